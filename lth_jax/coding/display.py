"""Size tables as people read them."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from lth_jax.coding.size import DENSE_BITS, SizeTable

_BOUNDS = {"n·H": "entropy", "log2 C": "enumerative", "KT": "adaptive"}
_LINES = {"by rows": "by_rows", "by columns": "by_columns"}
_COLUMNS = {
    "mask": "mask",
    "ΣnH": "mask_entropy_layers",
    "log2 C": "mask_enumerative",
    **{f"values {p}": f"values_{p}" for p in ("float32", "bfloat16", "int8", "int4")},
    **{f"file {p}": f"file_{p}" for p in ("float32", "bfloat16", "int8", "int4")},
}


def file_table(sizes: SizeTable) -> Table:
    """The table of one ticket: a line for each leaf and one for the whole; bytes.

    >>> import numpy as np
    >>> from lth_jax.coding import encode, table
    >>> data = encode({"w": np.eye(3, dtype=bool)}, prunable={"w": True})
    >>> file_table(table(data)).row_count
    2
    """
    header = ["leaf", "shape", "kept %", "code", "mask", *_BOUNDS, *_LINES, "values", "entropy"]
    shown = _new("Bytes of the mask beside its bounds, and of the values", header)
    for row in sizes.leaves:
        shape = "×".join(map(str, row.shape)) or "scalar"
        bounds = [_bytes(getattr(row, name)) for name in (*_BOUNDS.values(), *_LINES.values())]
        about = [row.name, shape, _percent(row.density), row.codec, _bytes(row.mask)]
        shown.add_row(*about, *bounds, _bytes(row.values), _bytes(row.values_entropy))
    total = sizes.total
    bounds = [_bytes(b) for b in (total.entropy_layers, total.enumerative, total.adaptive)]
    whole = ["all", f"{total.size:,}", _percent(total.density), "", _bytes(total.mask)]
    shown.add_row(*whole, *bounds, "", "", _bytes(total.values), "", style="bold")
    return shown


def file_summary(sizes: SizeTable) -> str:
    """What the table does not say: the file, its header, the bound over all leaves, and dense.

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
            f"at {total.bits_per_value:.2f} bits a value mask and values beat dense below "
            f"{_percent(total.break_even_density)} % kept"
        )
    return "\n".join(lines)


def run_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The table of a run from `run_size.size_rows`: a line for each level, means in bytes."""
    shown = _new("Mean bytes over replicates; level 0 is dense", ["level", "kept %", *_COLUMNS])
    means = {(row["level"], row["metric"]): row["mean"] for row in rows}
    for level, density in {row["level"]: row["density"] for row in rows}.items():
        cells = [_bytes(means[level, f"{name}_bytes"]) for name in _COLUMNS.values()]
        shown.add_row(str(level), _percent(density), *cells)
    return shown


def run_summary(rows: Sequence[dict[str, Any]]) -> str:
    """What the table of a run does not say: dense networks without a code.

    >>> run_summary([{"metric": f"dense_{b}_bytes", "mean": float(b)} for b in DENSE_BITS])
    'dense at 32 bits 32, 16 bits 16, 8 bits 8, 4 bits 4'
    """
    if not rows:
        return "No level is finished yet."
    means = {row["metric"]: row["mean"] for row in rows}
    return _dense({bits: means[f"dense_{bits}_bytes"] for bits in DENSE_BITS})


def _dense(sizes: dict[int, float]) -> str:
    return "dense at " + ", ".join(f"{bits} bits {_bytes(n)}" for bits, n in sizes.items())


def _new(title: str, header: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.title_justify = "left"
    for name in header:
        table.add_column(name, justify="left" if name in ("leaf", "code") else "right")
    return table


def _bytes(size: float) -> str:
    """At most one decimal, and none where there is nothing behind the point.

    >>> _bytes(12345), _bytes(4.5)
    ('12,345', '4.5')
    """
    return f"{size:,.1f}".removesuffix(".0")


def _percent(density: float) -> str:
    return f"{100 * density:.3g}"
