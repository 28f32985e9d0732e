"""Summary of a finished run, for lists of runs."""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from lth_jax.report.display import HEADLINES
from lth_jax.schema import LevelEntry, NodeFacts, read_entries, read_results
from lth_jax.store.garbage import size_of
from lth_jax.store.nodes import Store
from lth_jax.types import DENSE, TICKET


class LevelSummary(TypedDict):
    """A level: its number, its density, and the tickets' mean of the metric."""

    level: int
    density: float
    mean: float | None


class RunSummary(TypedDict):
    """The summary that `Run.finish` records.

    `bytes` is the run's share of its nodes on disk: a node that other runs use, too, counts by the
    members that are this run's.
    """

    metric: str | None
    replicates: int
    bytes: int
    levels: list[LevelSummary]


class _NodeSummary(NamedTuple):
    """Parts of a node: facts, results of its members, and bytes on disk."""

    facts: NodeFacts
    results: dict[str, Any]
    bytes: int


def summarize_run(store: Store, path: str | Path) -> RunSummary:
    """The summary of a run whose manifest is complete.

    Level 0 has the mean of the dense networks. Of each node, only the results are read.

    Args:
      store: holds the nodes.
      path: the run's folder.

    Raises:
      CorruptError: if the manifest or a node is damaged.
    """
    entries = read_entries(path)
    nodes = [_read_node(store, entry.key) for entry in entries]
    names = dict.fromkeys(name for node in nodes for name in node.results)
    metric = next((name for name in (*HEADLINES, *names) if name in names), None)
    values: dict[int, list[float]] = {}
    densities: dict[int, float] = {}
    for entry, node in zip(entries, nodes, strict=True):
        arm = TICKET if entry.level else DENSE
        for row in entry.rows:
            member = node.facts.members[row]
            if metric is not None and member.arm == arm:
                densities.setdefault(entry.level, member.density)
                values.setdefault(entry.level, []).append(float(node.results[metric][row]))
    return {
        "metric": metric,
        "replicates": max(map(len, values.values()), default=0),
        "bytes": round(sum(map(_share, entries, nodes))),
        "levels": [
            {"level": level, "density": densities[level], "mean": _mean(values[level])}
            for level in values
        ],
    }


def _share(entry: LevelEntry, node: _NodeSummary) -> float:
    return node.bytes * len(entry.rows) / len(node.facts.members)


def _mean(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else None


@functools.lru_cache(maxsize=1024)  # the cells of a sweep have nodes in common
def _read_node(store: Store, key: str) -> _NodeSummary:
    return _NodeSummary(*read_results(store, key), size_of(store.path(key)))
