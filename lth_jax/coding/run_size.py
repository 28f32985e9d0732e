"""Sizes of a run's tickets by level: file bytes, bounds, and dense sizes."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from lth_jax.coding.quantize import bfloat16, exact, integers
from lth_jax.coding.size import lengths, table
from lth_jax.coding.stored import Stored, read_stored
from lth_jax.coding.writer import encode
from lth_jax.measures.intervals import student_t
from lth_jax.store.nodes import Store

PRECISIONS = {"float32": exact(), "bfloat16": bfloat16(), "int8": integers(8), "int4": integers(4)}
"""The precisions of size measurements, with one scale per leaf."""

Row = dict[str, Any]


def stored_sizes(one: Stored) -> dict[str, float]:
    """The sizes of one network in bytes, by name of the quantity.

    `mask`; its bounds `mask_entropy_global`, `mask_entropy_layers`, `mask_enumerative` and
    `mask_adaptive` (see `entropy`); at each of `PRECISIONS` `values_<precision>` and
    `file_<precision>`, header included; and `dense_<bits>`, all entries at that many bits.

    Args:
      one: a network whose values are finite.
    """
    total = table(encode(one.mask, prunable=one.prunable)).total
    found: dict[str, float] = {
        "mask": total.mask,
        "mask_entropy_global": total.entropy_global,
        "mask_entropy_layers": total.entropy_layers,
        "mask_enumerative": total.enumerative,
        "mask_adaptive": total.adaptive,
    }
    for name, precision in PRECISIONS.items():
        data = encode(one.mask, one.params, prunable=one.prunable, precision=precision)
        _, values, file = lengths(data)
        found |= {f"values_{name}": values, f"file_{name}": file}
    return found | {f"dense_{bits}": size for bits, size in total.dense.items()}


def size_rows(store: Store, path: str | Path) -> list[Row]:
    """One row per level and quantity of `stored_sizes`: the mean over replicates, in bytes.

    Level 0 holds the dense networks, coded like tickets. Intervals are 95 % Student intervals;
    diverged networks are excluded.

    Args:
      store: holds the nodes.
      path: the run's folder.

    Raises:
      CorruptError: if a file of the run is damaged.
    """
    finite = (one for one in read_stored(store, path) if one.diverged_at is None)
    rows = []
    for level, group in groupby(finite, key=lambda one: one.level):
        rows += list(_level_rows(level, group))
    return rows


def _level_rows(level: int, networks: Iterable[Stored]) -> Iterator[Row]:
    sized = [(one, stored_sizes(one)) for one in networks]
    first = sized[0][0]
    place = {"arm": first.arm, "level": level, "density": first.density}
    for name in sized[0][1]:
        values = [float(sizes[name]) for _, sizes in sized]
        mean, low, high, replicates, _ = student_t(values)
        alone = replicates < 2
        yield {
            **place,
            "metric": f"{name}_bytes",
            "mean": mean,
            "low": None if alone else low,
            "high": None if alone else high,
            "replicates": replicates,
            "values": values,
        }
