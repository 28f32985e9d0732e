"""Size tables as text."""

from collections.abc import Sequence
from typing import Any

from lth_jax.coding.size import DENSE_BITS, SizeTable
from lth_jax.text import TextTable

_MASK = {"mask": "mask", "n·H": "entropy", "log2 C": "enumerative", "KT": "adaptive"}
_LINES = {"rows": "by_rows", "columns": "by_columns"}
_PRECISIONS = ("float32", "bfloat16", "int8", "int4")
_RUN = {
    "Masks beside their bounds": {
        "mask": "mask",
        "n·H": "mask_entropy_global",
        "Σ n·H": "mask_entropy_layers",
        "log2 C": "mask_enumerative",
        "KT": "mask_adaptive",
    },
    "Values": {name: f"values_{name}" for name in _PRECISIONS},
    "Whole files": {name: f"file_{name}" for name in _PRECISIONS},
}


COLUMNS = {
    "mask": "the mask as it is written",
    "n·H": "entropy bound at one density for all prunable weights",
    "Σ n·H": "at one density for each layer",
    "log2 C": "number of masks with these counts, as a code length",
    "KT": "adaptive code without given densities (Krichevsky and Trofimov, 1981)",
    "rows": "n·H with a density for each row",
    "columns": "with a density for each column",
}
"""The columns of size tables that need a definition."""


def file_tables(sizes: SizeTable) -> list[TextTable]:
    """The size tables of one ticket, in bytes: its masks with their bounds, and its values.

    >>> import numpy as np
    >>> from lth_jax.coding import encode, table
    >>> data = encode({"w": np.eye(3, dtype=bool)}, prunable={"w": True})
    >>> [len(shown.rows) for shown in file_tables(table(data))]
    [2, 2]
    """
    return [_masks(sizes), _values(sizes)]


def _masks(sizes: SizeTable) -> TextTable:
    rows, total = [], sizes.total
    for row in sizes.leaves:
        found = [getattr(row, name) for name in (*_MASK.values(), *_LINES.values())]
        rows.append([row.name, row.codec, _percent(row.density), *map(_bytes, found)])
    sums = [total.mask, total.entropy_layers, total.enumerative, total.adaptive]
    rows.append(["all", "", _percent(total.density), *map(_bytes, sums), "", ""])
    header = ["leaf", "code", "kept %", *_MASK, *_LINES]
    return _new("Masks beside their bounds (bytes)", header, rows)


def _values(sizes: SizeTable) -> TextTable:
    rows = []
    for row in sizes.leaves:
        shape = "×".join(map(str, row.shape)) or "scalar"
        found = [f"{row.kept:,}", _bytes(row.values), _bytes(row.values_entropy)]
        rows.append([row.name, shape, row.dtype, *found])
    kept = f"{sum(row.kept for row in sizes.leaves):,}"
    rows.append(["all", "", "", kept, _bytes(sizes.total.values), ""])
    header = ["leaf", "shape", "dtype", "kept", "values", "entropy of values"]
    return _new("Values (bytes)", header, rows)


def file_summary(sizes: SizeTable) -> str:
    """What the table omits: the file, its header, the bound over all leaves, and the dense size.

    >>> import numpy as np
    >>> from lth_jax.coding import encode, table
    >>> print(file_summary(table(encode({"w": np.eye(3, dtype=bool)}, prunable={"w": True}))))
    file ... bytes, ... of them the header; n·H over all prunable leaves together 1
    dense at 32 bits 36, 16 bits 18, 8 bits 9, 4 bits 4.5
    """
    total = sizes.total
    lines = [
        f"file {_bytes(total.file)} bytes, {_bytes(total.header)} of them the header; "
        f"n·H over all prunable leaves together {_bytes(total.entropy_global)}",
        _dense(total.dense),
    ]
    if total.break_even_density is not None:
        lines.append(
            f"at {total.bits_per_value:.2f} bits per value, mask and values are smaller than dense "
            f"below {_percent(total.break_even_density)} % kept"
        )
    return "\n".join(lines)


def run_tables(rows: Sequence[dict[str, Any]]) -> list[TextTable]:
    """The tables of a run from `run_size.size_rows`: a line for each level, means in bytes."""
    means = {(row["level"], row["metric"]): row["mean"] for row in rows}
    densities = {row["level"]: row["density"] for row in rows}
    tables = []
    for title, columns in _RUN.items():
        lines = []
        for level, density in densities.items():
            cells = [_bytes(means[level, f"{name}_bytes"]) for name in columns.values()]
            lines.append([str(level), _percent(density), *cells])
        tables.append(_new(f"{title} (mean bytes)", ["level", "kept %", *columns], lines))
    return tables


def run_summary(rows: Sequence[dict[str, Any]]) -> str:
    """What the table of a run omits: dense networks without a code.

    >>> run_summary([{"metric": f"dense_{b}_bytes", "mean": float(b)} for b in DENSE_BITS])
    'dense at 32 bits 32, 16 bits 16, 8 bits 8, 4 bits 4'
    """
    if not rows:
        return "No level is finished yet."
    means = {row["metric"]: row["mean"] for row in rows}
    return _dense({bits: means[f"dense_{bits}_bytes"] for bits in DENSE_BITS})


def _dense(sizes: dict[int, float]) -> str:
    return "dense at " + ", ".join(f"{bits} bits {_bytes(n)}" for bits, n in sizes.items())


def _new(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> TextTable:
    described = [f"{name}: {COLUMNS[name]}" for name in header if name in COLUMNS]
    return TextTable(header, rows, title, "; ".join(described))


def _bytes(size: float) -> str:
    """Formats a number of bytes, with tenths below a thousand if they are not zero.

    >>> _bytes(12345.6), _bytes(4.5), _bytes(4.0)
    ('12,346', '4.5', '4')
    """
    return f"{size:,.0f}" if size >= 1000 else f"{size:.1f}".removesuffix(".0")


def _percent(density: float) -> str:
    return f"{100 * density:.3g}"
