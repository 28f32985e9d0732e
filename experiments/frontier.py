"""Bytes on disk against accuracy: a finished run's tickets and dense parents at every precision.

    python -m experiments.frontier RUN [--root runs]

Each network is written as a `.ticket` file, read back, and tested as it was read; networks with a
state (BatchNorm statistics) keep it in the file. The rows go to `report/data/frontier.*` of the
run, the picture to `report/figures`, and both onto the run's page. What is measured is kept in the
store, so a command that was cut off continues.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.finished import (
    Finished,
    exit_code,
    machine_of,
    open_finished,
    parser_for,
    require_accuracy,
)
from experiments.flags import UserError
from lth_jax import coding, trees
from lth_jax import store as stores
from lth_jax.coding.stored import Stored, members
from lth_jax.lottery import Task
from lth_jax.measures.intervals import student_t
from lth_jax.population.segment import evaluate
from lth_jax.report import write_report
from lth_jax.report.levels import write_rates
from lth_jax.schema import LevelEntry, Named, prunable_of_run, read_entries, read_entry
from lth_jax.types import DENSE, TICKET

SOURCES = (
    *(f"lth_jax.{room}" for room in ("coding", "population", "models", "data", "trees")),
    "experiments.frontier",
)
MOST_DRIFT = 0.01
"""By how much an accuracy measured here may differ from the run's own: an argmax at a tie."""


class Precision(NamedTuple):
    """A precision as tables name it.

    Attributes:
      name: of the values' type.
      scales: what shares a scale: a whole "tensor" or a "channel".
      written: the precision itself.
    """

    name: str
    scales: str
    written: coding.Precision


PRECISIONS = (
    Precision("float32", "tensor", coding.exact()),
    Precision("bfloat16", "tensor", coding.bfloat16()),
    *(Precision(f"int{bits}", "tensor", coding.integers(bits)) for bits in (8, 4, 3, 2)),
    *(Precision(f"int{bits}", "channel", coding.integers(bits, -1)) for bits in (4, 3, 2)),
)

QUANTITIES = ("mask_bytes", "values_bytes", "file_bytes", "accuracy")

Accuracy = Callable[[Named, Named], float]
Row = dict[str, Any]


def frontier(machine: ConfigDict, name: str) -> Path:
    """Measures a run's networks at every precision and draws the frontier into its report.

    Args:
      machine: `workdir`, `data_dir` and `manual_dir`, as in a config.
      name: the run: its folder, its name, or a unique beginning of it.

    Returns:
      The page of the run's report.

    Raises:
      UserError: if there is no such finished run, or its data are not what they were.
      StoreError: if something in the store is damaged.
    """
    run = open_finished(machine, name)
    require_accuracy(run, "a frontier of bytes against accuracy")
    rows = summaries(list(_seed_rows(run)))
    write_rates(run.info.path, run.info.config_hash, rows)
    return write_report(run.store, run.info)


def _seed_rows(run: Finished) -> Iterator[Row]:
    """One row per network and precision."""
    accuracy = tester(run.task)
    what = {
        "what": "rate-accuracy",
        "precisions": PRECISIONS,
        **run.basis,
        "source": stores.source_fingerprint(*SOURCES),
    }
    listed = read_entries(run.info.path)
    prunable = prunable_of_run(run.store, listed)
    for entry in listed:
        if {DENSE, TICKET} & set(entry.arms):
            networks = {"key": entry.key, "rows": entry.rows}
            key = stores.content_key({**what, "networks": networks, "prunable": prunable})
            measured = partial(_measured, run.store, entry, prunable, accuracy)
            node = run.store.node(key, measured)
            yield from _rows_of(node)


def tester(task: Task) -> Accuracy:
    """`(params, state) -> test accuracy` of named arrays, compiled once."""
    like = task.shapes
    test = jax.jit(lambda params, state: evaluate(task.trainer, params, state, task.data.test))

    def accuracy(params: Named, state: Named) -> float:
        found = test(trees.from_named(params, like[0]), trees.from_named(state, like[1]))
        return float(found["accuracy"])

    return accuracy


def _measured(
    store: stores.Store,
    entry: LevelEntry,
    prunable: dict[str, bool],
    accuracy: Accuracy,
    progress: stores.Partial,
) -> stores.Node:
    """All networks that a run has in a node, at all precisions."""
    del progress  # a node takes seconds
    parent = read_entry(store, entry)
    results = parent.results["test_accuracy_final"]
    mine = [
        (one, float(result))
        for one, result in zip(members(entry.key, parent, prunable), results, strict=True)
        if one.arm in (DENSE, TICKET)
    ]
    points = np.array([measure(one, accuracy) for one, _ in mine])
    for (one, result), (*_, found) in zip(mine, points[:, 0], strict=True):
        _check(one, result, found)
    first = mine[0][0]
    meta = {
        "kind": "rates",
        "level": first.level,
        "density": first.density,
        "members": [{"arm": one.arm, "replicate": one.replicate} for one, _ in mine],
    }
    return stores.Node(dict(zip(QUANTITIES, np.moveaxis(points, -1, 0), strict=True)), meta)


def _check(one: Stored, result: float, found: float) -> None:
    """The exact values must be as accurate as the run said, or this is not its data."""
    if abs(result - found) > MOST_DRIFT:
        raise UserError(
            f"the run found a test accuracy of {result:.4f} for '{one.arm}' {one.replicate} at "
            f"level {one.level}, this machine {found:.4f}; its data or its code have changed."
        )


def measure(one: Stored, accuracy: Accuracy) -> list[tuple[float, ...]]:
    """The `QUANTITIES` at each of `PRECISIONS`; NaN for a network that diverged.

    The state, if there is one, is kept exactly and counted.
    """
    if one.diverged_at is not None:
        return [(np.nan,) * len(QUANTITIES)] * len(PRECISIONS)
    mask = one.mask | {name: np.ones(leaf.shape, bool) for name, leaf in one.state.items()}
    points = coding.rate_points(
        mask,
        one.params | one.state,
        prunable=one.prunable | dict.fromkeys(one.state, False),
        precisions=[precision.written for precision in PRECISIONS],
    )
    return [(p.mask, p.values, p.file, accuracy(*_split(p.params, one.params))) for p in points]


def _split(joined: Named, params: Named) -> tuple[Named, Named]:
    """Parameters and state, which were written side by side."""
    state = {name: leaf for name, leaf in joined.items() if name not in params}
    return {name: joined[name] for name in params}, state


def _rows_of(node: stores.Node) -> Iterator[Row]:
    place = {"level": node.meta["level"], "density": node.meta["density"]}
    for i, member in enumerate(node.meta["members"]):
        for j, precision in enumerate(PRECISIONS):
            about = {"precision": precision.name, "scales": precision.scales}
            numbers = {name: float(node.arrays[name][i, j]) for name in QUANTITIES}
            yield {**member, **place, **about, **numbers}


def summaries(seeds: Sequence[Row]) -> list[Row]:
    """One row per arm, level and precision: means over the replicates that did not diverge.

    `mean`, `low` and `high` are the accuracy's, with a 95 % Student interval; `file_bytes` and its
    parts are means, with the ends of the file's interval; `frontier` says that no other row has a
    smaller mean file and at least this mean accuracy; `values` are the accuracies.

    Args:
      seeds: one row per network and precision.

    Raises:
      UserError: if every network diverged.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in seeds:
        place = tuple(row[name] for name in ("arm", "level", "density", "precision", "scales"))
        if np.isfinite(row["accuracy"]):
            groups.setdefault(place, []).append(row)
    if not groups:
        raise UserError("the run has no frontier, since all of its networks diverged.")
    rows = [_summary(place, group) for place, group in groups.items()]
    sizes, accuracies = (np.array([row[name] for row in rows]) for name in ("file_bytes", "mean"))
    unbeaten = coding.frontier(sizes, accuracies)
    return [row | {"frontier": bool(best)} for row, best in zip(rows, unbeaten, strict=True)]


def _summary(place: tuple[Any, ...], group: list[Row]) -> Row:
    arm, level, density, precision, scales = place
    mean, low, high, replicates, _ = student_t([row["accuracy"] for row in group])
    size, smallest, largest, _, _ = student_t([row["file_bytes"] for row in group])
    return {
        "arm": arm,
        "level": level,
        "density": density,
        "precision": precision,
        "scales": scales,
        "mask_bytes": float(np.mean([row["mask_bytes"] for row in group])),
        "values_bytes": float(np.mean([row["values_bytes"] for row in group])),
        "file_bytes": size,
        "file_bytes_low": smallest if replicates > 1 else None,
        "file_bytes_high": largest if replicates > 1 else None,
        "mean": mean,
        "low": low if replicates > 1 else None,
        "high": high if replicates > 1 else None,
        "replicates": replicates,
        "values": [row["accuracy"] for row in group],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    parser = parser_for("experiments.frontier", str(__doc__))

    def work() -> Path:
        arguments = parser.parse_args(argv)
        return frontier(machine_of(arguments), arguments.run)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
