"""Bytes on disk and accuracy of tickets and dense parents, at every precision."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lth_jax import coding, trees
from lth_jax.analysis.arguments import AnalysisError, checked
from lth_jax.analysis.measurement import Found, Measurement, RunContext, about
from lth_jax.coding.stored import Named, Stored
from lth_jax.lottery import Result, Task
from lth_jax.measures.intervals import student_t
from lth_jax.population.segment import evaluate
from lth_jax.report import rates
from lth_jax.report.tables import interval_cells, summary_cells
from lth_jax.types import DENSE, TICKET

MOST_DRIFT = 0.01
"""The largest allowed difference from the run's accuracy; ties of logits can cause one."""


PRECISIONS = {
    ("float32", "tensor"): coding.exact(),
    ("bfloat16", "tensor"): coding.bfloat16(),
    **{(f"int{bits}", "tensor"): coding.integers(bits) for bits in (8, 4, 3, 2)},
    **{(f"int{bits}", "channel"): coding.integers(bits, -1) for bits in (4, 3, 2)},
}
"""Precisions by type of values and by scale, one per tensor or one per channel."""

PLACE = ("arm", "level", "density", "precision", "scales")
QUANTITIES = ("mask_bytes", "values_bytes", "file_bytes", "accuracy")

Accuracy = Callable[[Named, Named], float]
Row = dict[str, Any]


@checked()
def frontier(run: Result) -> Measurement:
    """Measures the size of `.ticket` files and the accuracy of the decoded networks.

    Each dense network and each ticket is written at every precision, read back, and tested. A
    network's state (BatchNorm statistics) is stored exactly in the file.

    Args:
      run: a finished run.

    Returns:
      Mean bytes and accuracies with 95 % intervals, by arm, level and precision; `frontier` marks
      the rows that no other row dominates.

    Raises:
      AnalysisError: if the run has no accuracy, all networks diverged, or their accuracies differ
        from the run's.
    """
    context = RunContext(run, "analysis.frontier", "coding", accuracy=True)
    rates.write(run.path, run.info.config_hash, summaries(list(_seed_rows(context))))
    return Measurement(rates, run)


def _seed_rows(context: RunContext) -> Iterator[Row]:
    """One row per network and precision."""
    accuracy, levels = tester(context.task), context.run.record.levels
    own = {
        (member.arm, level.level, member.replicate): level.results["test_accuracy_final"][i]
        for level in levels
        for i, member in enumerate(level.members)
    }
    for one in context.converged(DENSE, TICKET):
        node = context.keep(
            {"kind": "rates", **about(one)},
            partial(_measured, one, own[one.arm, one.level, one.replicate], accuracy),
            network=one.key,
            prunable=one.prunable,
            precisions=list(PRECISIONS.items()),
        )
        for i, (values, scales) in enumerate(PRECISIONS):
            numbers = {name: float(node.arrays[name][i]) for name in QUANTITIES}
            yield {**about(one, "density"), "precision": values, "scales": scales, **numbers}


def tester(task: Task) -> Accuracy:
    """`(params, state) -> test accuracy` of named arrays, compiled once."""
    like = task.shapes
    test = jax.jit(lambda params, state: evaluate(task.trainer, params, state, task.data.test))

    def accuracy(params: Named, state: Named) -> float:
        found = test(trees.from_named(params, like[0]), trees.from_named(state, like[1]))
        return float(found["accuracy"])

    return accuracy


def _measured(one: Stored, own: float, accuracy: Accuracy) -> Found:
    points = np.array(measure(one, accuracy))
    found = points[0, -1]  # of the exact values
    if abs(own - found) > MOST_DRIFT:
        raise AnalysisError(
            f"the run recorded a test accuracy of {own:.4f} for '{one.arm}' {one.replicate} at "
            f"level {one.level}, but this machine measures {found:.4f}; the data or the code have "
            "changed."
        )
    return dict(zip(QUANTITIES, points.T, strict=True)), {}


def measure(one: Stored, accuracy: Accuracy) -> list[tuple[float, ...]]:
    """The `QUANTITIES` at each of `PRECISIONS`; a state is stored exactly and counted."""
    mask = one.mask | {name: np.ones(leaf.shape, bool) for name, leaf in one.state.items()}
    points = coding.rate_points(
        mask,
        one.params | one.state,
        prunable=one.prunable | dict.fromkeys(one.state, False),
        precisions=list(PRECISIONS.values()),
    )
    return [(p.mask, p.values, p.file, accuracy(*_split(p.params, one.params))) for p in points]


def _split(joined: Named, params: Named) -> tuple[Named, Named]:
    """Splits parameters from state, which are stored together."""
    state = {name: leaf for name, leaf in joined.items() if name not in params}
    return {name: joined[name] for name in params}, state


def summaries(seeds: Sequence[Row]) -> list[Row]:
    """One row per arm, level and precision: means over the replicates that did not diverge.

    `mean`, `low` and `high` are the mean accuracy and its 95 % Student interval; `file_bytes` and
    its parts are means, with the interval of the file's size; `frontier`: no other row has a
    smaller mean file and at least the same mean accuracy; `values` are the accuracies.

    Args:
      seeds: one row per network and precision.

    Raises:
      AnalysisError: if every network diverged.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in seeds:
        groups.setdefault(tuple(row[name] for name in PLACE), []).append(row)
    if not groups:
        raise AnalysisError("the run has no frontier, since all of its networks diverged.")
    rows = [_summary(place, group) for place, group in groups.items()]
    sizes, accuracies = (np.array([row[name] for row in rows]) for name in ("file_bytes", "mean"))
    unbeaten = coding.frontier(sizes, accuracies)
    return [row | {"frontier": bool(best)} for row, best in zip(rows, unbeaten, strict=True)]


def _summary(place: tuple[Any, ...], group: list[Row]) -> Row:
    columns = {name: [row[name] for row in group] for name in QUANTITIES}
    size = interval_cells(student_t(columns["file_bytes"]))
    return {
        **dict(zip(PLACE, place, strict=True)),
        **{name: float(np.mean(columns[name])) for name in QUANTITIES[:3]},
        **{f"file_bytes_{end}": size[end] for end in ("low", "high")},
        **summary_cells(columns["accuracy"]),
    }
