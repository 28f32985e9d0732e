"""Instability analysis of a ladder at several rewind steps, as Frankle et al. (2020) did it.

    python -m experiments.stability --config=experiments/configs/stability.py
        [--rewind 0,20,100,400] [--levels 0,2,4] [--children 2] [--points 11] [--chunk 0]

For each rewind step the ladder of the config is run with that rewinding (or found finished); then
at each level the network at the rewind step, under the level's mask, has children that differ in
their data order alone. What is reported is the barrier on the lines between them. A command that
was cut off continues; the picture is on the page of each of the runs.
"""

import copy
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import checks, flags
from experiments.commands import HELP, config_of
from experiments.finished import (
    CHUNK,
    Finished,
    check_known,
    open_finished,
    plan_of,
    whole_numbers,
)
from experiments.legal import whole
from experiments.options import Options
from experiments.runner import run as run_ladder
from lth_jax import landscape, trees
from lth_jax import store as stores
from lth_jax.coding.stored import Stored, read_stored, rewound
from lth_jax.keys import derive
from lth_jax.lottery.stability import between_children, member_at
from lth_jax.population import train_population
from lth_jax.population.segment import Member
from lth_jax.report import write_report
from lth_jax.schema import Named, read_entries
from lth_jax.store.analyses import add_analysis
from lth_jax.types import DENSE, TICKET, Batch

DEFAULT = "experiments/configs/stability.py"
SOURCES = (
    *(
        f"lth_jax.{room}"
        for room in ("landscape", "lottery", "population", "models", "data", "keys")
    ),
    "experiments.stability",
)
OPTIONS = ("--rewind", "--levels", "--children", "--points", "--chunk")
RENEWAL = 100  # batches shown to a network between two others, if it has BatchNorm
Start = tuple[Stored, tuple[Named, Named]]


class Settings(NamedTuple):
    """What decides an analysis, besides the run.

    Attributes:
      children: of each start.
      points: α on each line, the ends included.
      chunk: children trained at a time, which decides their last bits; 0 for a level's all.
    """

    children: int = 2
    points: int = 11
    chunk: int = 0


def analyse(run: Finished, levels: Sequence[int], settings: Settings) -> Iterator[tuple[str, Any]]:
    """The nodes of a run: `(key, labels)` of each level.

    Args:
      run: a finished ladder.
      levels: which of its levels; empty for all.
      settings: how to analyse.

    Raises:
      UserError: if the run lacks a level.
      StoreError: if something in the store is damaged.
    """
    there = sorted({entry.level for entry in read_entries(run.info.path)})
    check_known("levels", levels, there)
    identity = {
        **settings._asdict(),
        **run.basis,
        "source": stores.source_fingerprint(*SOURCES),
    }
    for level in levels or there:
        starts = [
            (one, rewound(run.store, run.info, one))
            for one in read_stored(run.store, run.info.path, (DENSE, TICKET))
            if one.level == level and one.diverged_at is None
        ]
        labels = {"kind": "stability", "level": level, "rewind": run.experiment.rewind.step}
        networks = [one.key for one, _ in starts]
        key = stores.content_key({**identity, **labels, "networks": networks})
        run.store.node(key, partial(_measured, run, starts, settings, labels))
        yield key, labels


def _measured(
    run: Finished, starts: Sequence[Start], settings: Settings, labels: Any, progress: Any
) -> stores.Node:
    del progress  # a level is one node
    task, experiment = run.task, run.experiment
    members = children(run, starts, settings.children)
    members, _, _ = train_population(
        task.trainer,
        members,
        task.data.train,
        task.data.validation,
        plan=plan_of(len(starts) * settings.children, settings.chunk),
        start=experiment.rewind.step,
        stop=experiment.train.steps,
    )
    has_state = bool(jax.tree.leaves(members.state))
    size = experiment.train.batch_size
    renewal = renewal_of(task.data.train, size) if has_state else None
    alphas = jnp.linspace(0.0, 1.0, settings.points)
    lines = jax.jit(
        lambda m: between_children(task.trainer, m, settings.children, task.data, alphas, renewal)
    )(members)
    errors = {split: 1 - np.asarray(found["accuracy"]) for split, found in lines.items()}
    arrays = {
        "alphas": np.asarray(alphas),
        "alive": np.asarray(members.alive).reshape(len(starts), -1).all(axis=1),
        **{f"{split}_error": values for split, values in errors.items()},
        **{f"{split}_loss": np.asarray(found["loss"]) for split, found in lines.items()},
        **{f"{s}_error_barrier": landscape.barrier(values) for s, values in errors.items()},
    }
    facts = {"density": starts[0][0].density, "replicates": [one.replicate for one, _ in starts]}
    return stores.Node(arrays, {**labels, **facts})


def renewal_of(data: Batch, size: int) -> Batch:
    """So many batches, leaves `[RENEWAL, size, ...]`; where the data are few they come again."""
    rows = np.arange(RENEWAL * size).reshape(RENEWAL, size) % len(jax.tree.leaves(data)[0])
    return trees.index(data, rows)


def children(run: Finished, starts: Sequence[Start], count: int) -> Member:
    """The population: `count` members of each start, which differ in their data order alone."""
    task = run.task
    like = task.shapes
    members = []
    for one, (params, state) in starts:
        point = (trees.from_named(params, like[0]), trees.from_named(state, like[1]))
        mask = trees.from_named(one.mask, like[0])
        for i in range(count):
            data_key = derive(run.seeds.root, one.replicate, "child", i)
            place = (*point, mask, data_key, one.replicate)
            members.append(member_at(task.trainer, task.hyper, *place))
    return trees.stack(members)


def analyse_all(
    config: ConfigDict, steps: Sequence[int], levels: Sequence[int], settings: Settings
) -> Path:
    """Runs the ladder at every rewind step, analyses it, and lists all nodes with every run.

    Returns:
      The page of the last run, with the picture of all rewind steps.
    """
    found: list[tuple[str, Any]] = []
    runs = []
    for step in steps:
        cell = _rewound(config, step)
        command = ["python", "-m", "experiments.run", f"--config.experiment.rewind.step={step}"]
        path = run_ladder(cell, command)
        runs.append(open_finished(cell.machine, str(path)))
        found += analyse(runs[-1], levels, settings)
    for run in runs:
        for key, labels in found:
            add_analysis(run.info.path, key, labels)
        page = write_report(run.store, run.info)
    return page


def _rewound(config: ConfigDict, step: int) -> ConfigDict:
    cell = copy.deepcopy(config)
    cell.experiment.rewind.step = step
    return cell


def _parser() -> Options:
    parser = Options("experiments.stability", str(__doc__))
    parser.add_argument("--rewind", default="0,20,100,400", help="rewind steps")
    parser.add_argument("--levels", default="", help="such as 0,2,4; all by default")
    usual = Settings()
    parser.option("children", whole(2, 1000), usual.children, "of each start")
    parser.option("points", whole(3, 10_000), usual.points, "on each line, the ends included")
    parser.option("chunk", CHUNK, usual.chunk, "members at a time; 0: all of a level")
    return parser


def main() -> None:
    given = [argument for argument in sys.argv[1:] if argument not in HELP]
    parser = _parser()
    arguments, rest = parser.parse_known_args(given)
    settings = Settings(arguments.children, arguments.points, arguments.chunk)
    asked = HELP[:1] if len(given) < len(sys.argv) - 1 else ()
    config = config_of([sys.argv[0], *rest, *asked], DEFAULT, parser.format_help(), OPTIONS)
    steps = whole_numbers("rewind", arguments.rewind)
    levels = whole_numbers("levels", arguments.levels)
    check_known("levels", levels, range(config.experiment.prune.levels + 1))
    for step in steps:  # all of them before the first is trained
        checks.check(_rewound(config, step).experiment)
    print(f"page: {analyse_all(config, steps, levels, settings)}")


if __name__ == "__main__":
    flags.run_main(main)
