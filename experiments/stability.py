"""Instability analysis of a ladder at several rewind steps (Frankle et al., 2020).

    python -m experiments.stability --config=experiments/configs/stability.py
        [--rewind 0,20,100,400] [--levels 0,2,4] [--children 2] [--points 11] [--chunk 0]

For each rewind step the ladder of the config is run, unless it is finished, and then analysed by
`lth_jax.analysis.stability`. An interrupted command continues. The report of each run shows the
figure.
"""

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import checks
from experiments.commands import HELP, config_of
from experiments.finished import naming_options, open_finished
from experiments.runner import run as run_ladder
from lth_jax import analysis
from lth_jax.analysis import progress
from lth_jax.analysis.arguments import LEVELS, check_known
from lth_jax.cli.options import Options
from lth_jax.cli.programs import run_main
from lth_jax.legal import Legal
from lth_jax.report.display import place_table
from lth_jax.text import print_tables

DEFAULT = "experiments/configs/stability.py"
STEPS = Legal("different steps, such as 0,20", lambda value: value and LEVELS.holds(value))


def analyse_all(
    config: ConfigDict, steps: Sequence[int], arguments: Sequence[str] = (), **settings: Any
) -> Path:
    """Runs and analyses the ladder at every rewind step; returns the page of the last run.

    Args:
      config: the ladder.
      steps: the rewind steps.
      arguments: those of the command line, which pages show.
      **settings: those of `analysis.stability`.
    """
    command = ["python", "-m", "experiments.stability", *arguments]
    runs = []
    for step in steps:
        cell = _rewound(config, step)
        path = run_ladder(cell, command)
        runs.append(open_finished(cell.machine, str(path)).result)
    with progress.shown():
        found = analysis.stability(runs, **settings)
    print_tables(place_table(found.table()), drop=True)
    return [run.report() for run in runs][-1]


def _rewound(config: ConfigDict, step: int) -> ConfigDict:
    cell = copy.deepcopy(config)
    cell.experiment.rewind.step = step
    return cell


def main() -> None:
    """Runs the command."""
    given = [argument for argument in sys.argv[1:] if argument not in HELP]
    parser = Options("experiments.stability", str(__doc__))
    parser.option("rewind", STEPS, (0, 20, 100, 400), "rewind steps")
    names = parser.settings(analysis.stability)
    arguments, rest = parser.parse_known_args(given)
    asked = HELP[:1] if len(given) < len(sys.argv) - 1 else ()
    options = [f"--{name}" for name in ("rewind", *names)]
    config = config_of([sys.argv[0], *rest, *asked], DEFAULT, parser.format_help(), options)
    settings = {name: getattr(arguments, name) for name in names}
    with naming_options(names):
        check_known("levels", settings["levels"] or (), range(config.experiment.prune.levels + 1))
        for step in arguments.rewind:  # check all before training
            checks.check(_rewound(config, step).experiment)
        print(f"page: {analyse_all(config, arguments.rewind, given, **settings)}")


if __name__ == "__main__":
    run_main(main)
