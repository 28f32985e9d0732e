"""Runs a grid of experiments: every combination of the values given for some config fields.

    python -m experiments.sweep --config=experiments/configs/mnist1d_ladder.py:smoke \
        --sweep.experiment.optimizer.learning_rate=0.001,0.01 --sweep.experiment.seed=0,1

Each cell is a run of its own, named by its config: a sweep that was cut off continues, cells that
are finished are shown, and cells share the dense parents and levels that they have in common.
`--dry_run` lists the cells and stops.
"""

import copy
import itertools
import sys
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from experiments import flags
from experiments.runner import run

DEFAULT = "experiments/configs/mnist1d_ladder.py"
CONFIG = flags.define(DEFAULT)
MOST_CELLS = 10_000
PREFIX = "--sweep."

Grid = dict[str, list[Any]]


def parse_grid(arguments: list[str], config: ConfigDict) -> Grid:
    """Reads `--sweep.FIELD=VALUE,VALUE` arguments, each value as the type of its field.

    Raises:
      UserError: for an unknown field, no or repeated values, a value of the wrong type, no field
        at all, or more than 10,000 cells.
    """
    known = dict(flags.fields(config))
    grid: Grid = {}
    for argument in arguments:
        name, _, text = argument.removeprefix(PREFIX).partition("=")
        if name not in known:
            raise flags.UserError(flags.nearest("a field of `--sweep`", name, known))
        grid[name] = [_as_type(name, value, known[name]) for value in text.split(",") if value]
        if not grid[name]:
            raise flags.UserError(f"`{PREFIX}{name}` has no values; give some, such as 1,2.")
        if len(set(grid[name])) < len(grid[name]):
            raise flags.UserError(f"`{PREFIX}{name}` is {text}; each value may be given once.")
    if not grid:
        raise flags.UserError(f"nothing to sweep; give {PREFIX}FIELD=VALUE,VALUE.")
    cells = 1
    for values in grid.values():
        cells *= len(values)
    if cells > MOST_CELLS:
        raise flags.UserError(f"the sweep has {cells:,} cells; at most {MOST_CELLS:,} are allowed.")
    return grid


def _as_type(name: str, text: str, like: Any) -> Any:
    if isinstance(like, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif isinstance(like, int | float | str):
        try:
            return type(like)(text)
        except ValueError:
            pass
    kind = type(like).__name__
    raise flags.UserError(f"`{PREFIX}{name}` has the value '{text}'; the field holds one {kind}.")


def cells(config: ConfigDict, grid: Grid) -> Iterator[tuple[dict[str, Any], ConfigDict]]:
    """Every combination of the grid's values: what is set, and the config with it."""
    for values in itertools.product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        cell = copy.deepcopy(config)
        cell.update_from_flattened_dict(setting)
        yield setting, cell


def main(argv: list[str]) -> None:
    grid = parse_grid(SWEPT, CONFIG.value)
    planned = list(cells(CONFIG.value, grid))
    for i, (setting, config) in enumerate(planned, start=1):
        shown = ", ".join(f"{name}={value}" for name, value in setting.items())
        print(f"cell {i}/{len(planned)}: {shown}", flush=True)
        if not DRY_RUN:
            again = [f"--config.{name}={value}" for name, value in setting.items()]
            run(config, ["python", "-m", "experiments.run", *argv[1:], *again])


if __name__ == "__main__":
    SWEPT = [argument for argument in sys.argv if argument.startswith(PREFIX)]
    DRY_RUN = "--dry_run" in sys.argv
    sys.argv = [a for a in sys.argv if a not in (*SWEPT, "--dry_run")]
    flags.run_main(main, DEFAULT)
