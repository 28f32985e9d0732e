"""Rules of primitives that read or write at indices, or generate entries."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lth_jax.structure.constraints import FINITE, Atoms, Axes, Links
from lth_jax.structure.graph import Op, Value
from lth_jax.structure.rules import Shrunk, pick_kept, register
from lth_jax.structure.rules_shape import joined

# --- slices at computed positions


def _start(op: Op, d: int, first: int, size: int, window: int) -> int | None:
    """The first index of a window, clamped as in XLA, or None if it depends on data."""
    if window == size:
        return 0
    known = op.ins[first + d].constant
    return None if known is None else min(max(int(np.asarray(known)), 0), size - window)


def _dynamic_slice(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    out = []
    for d, (atoms, n) in enumerate(zip(ins[0], op.outs[0].shape, strict=True)):
        start = _start(op, d, 1, len(atoms), n)
        if start is None:
            links.pin(atoms, "`dynamic_slice` at a data-dependent index")
            out.append(links.stuck(n, "`dynamic_slice` at a data-dependent index"))
        else:
            out.append(atoms[start : start + n])
    return [out]


def _moved_starts(shrunk: Shrunk, op: Op, args: Sequence[Any], first: int, part: Value) -> list:
    """The start indices after removing indices before a window at a static position."""
    starts = list(args[first:])
    for d, (flags, n) in enumerate(zip(shrunk.kept(op.ins[0]), part.shape, strict=True)):
        place = _start(op, d, first, len(flags), n)
        if place is not None and not flags.all():
            starts[d] = np.asarray(flags[:place].sum(), op.ins[first + d].aval.dtype)
    return starts


def _run_dynamic_slice(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    starts = _moved_starts(shrunk, op, args, 1, op.outs[0])
    return op.bind(args[0], *starts, slice_sizes=shrunk.shape(op.outs[0]))


def _dynamic_update(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    out = []
    for d, (whole, part) in enumerate(zip(*ins[:2], strict=True)):
        start = _start(op, d, 2, len(whole), len(part))
        if start is None:
            links.pin(whole, "`dynamic_update_slice` at a data-dependent index")
            links.pin(part, "`dynamic_update_slice` at a data-dependent index")
            out.append(whole)
        else:
            window = whole[start : start + len(part)]
            links.tie(window, part)
            held = links.content(whole).copy()
            held[start : start + len(part)] = np.maximum(links.content(window), links.content(part))
            out.append(links.with_content(whole, held))
    return [out]


def _run_dynamic_update(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    return op.bind(*args[:2], *_moved_starts(shrunk, op, args, 2, op.ins[1]))


register("dynamic_slice", link=_dynamic_slice, run=_run_dynamic_slice)
register("dynamic_update_slice", link=_dynamic_update, run=_run_dynamic_update)


def _known_rows(op: Op) -> tuple[int, np.ndarray] | None:
    """`(axis, indices)` if a gather reads static indices of one axis (`x[:, [2, 0]]`)."""
    dims, indices = op.params["dimension_numbers"], op.ins[1].constant
    plain = len(dims.collapsed_slice_dims) == 1 and not dims.operand_batching_dims
    if indices is None or not plain or tuple(dims.start_index_map) != dims.collapsed_slice_dims:
        return None
    rows, axis = np.asarray(indices)[..., 0], dims.collapsed_slice_dims[0]
    inside = rows.ndim == 1 and ((rows >= 0) & (rows < op.ins[0].shape[axis])).all()
    return (axis, rows) if inside else None


def _gather(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """Axes with full-size windows keep their atoms; axes indexed by data are pinned."""
    dims, sizes, known = op.params["dimension_numbers"], op.params["slice_sizes"], _known_rows(op)
    operand, indices = ins[:2]
    fill = op.params["fill_value"]
    # The value for out-of-bounds indices. NaN, the default, marks an error in the indices.
    if fill is not None and fill != 0 and not np.isnan(fill):
        operand = [links.with_content(atoms, FINITE) for atoms in operand]
    windows = iter(dims.offset_dims)
    out: dict[int, Atoms] = {}
    for d, atoms in enumerate(operand):
        if d in dims.operand_batching_dims:
            place = dims.operand_batching_dims.index(d)
            links.tie(atoms, indices[dims.start_indices_batching_dims[place]])
        elif d in dims.collapsed_slice_dims:
            if known is None:
                links.pin(atoms, "`gather` reads it at computed indices")
        elif sizes[d] == len(atoms):
            out[next(windows)] = atoms
        else:
            links.pin(atoms, "`gather` reads a window of it")
            out[next(windows)] = links.stuck(sizes[d], "a window that `gather` reads")
    links.pin(indices[-1], "the coordinates of a `gather`")
    free = [d for d in range(len(op.outs[0].shape)) if d not in dims.offset_dims]
    beside = dict(zip(dims.start_indices_batching_dims, dims.operand_batching_dims, strict=True))
    for k, (d, atoms) in enumerate(zip(free, indices[:-1], strict=True)):
        # An index of a batching axis reads its own slice of the operand, others any entry.
        held = links.content(operand[beside[k]]) if k in beside else FINITE
        out[d] = links.with_content(atoms, held)
    if known is not None:
        axis, rows = known
        out[free[0]] = links.order(operand[axis], "`gather` reads it in a fixed order")[rows]
    return [[out[d] for d in range(len(op.outs[0].shape))]]


def _run_gather(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    x, indices = args[:2]
    known, kept = _known_rows(op), shrunk.kept(op.ins[0])
    if known is not None:
        axis, rows = known
        now = np.cumsum(kept[axis]) - 1
        indices = now[rows[kept[axis][rows]]].astype(np.asarray(indices).dtype)[:, None]
    sizes = tuple(
        int(flags.sum()) if n == len(flags) else n
        for flags, n in zip(kept, op.params["slice_sizes"], strict=True)
    )
    return op.bind(x, indices, slice_sizes=sizes)


def _scatter(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """Axes with full-size windows are tied to the operand's; axes written by data are pinned."""
    dims = op.params["dimension_numbers"]
    operand, indices, updates = ins
    windows = iter(dims.update_window_dims)
    rows = [d for d in range(len(updates)) if d not in dims.update_window_dims]
    batch = dict(zip(dims.operand_batching_dims, dims.scatter_indices_batching_dims, strict=True))
    for d, atoms in enumerate(indices):
        if d not in batch.values():
            links.pin(atoms, "the places of a `scatter`")
            if d < len(rows):
                links.pin(updates[rows[d]], "the rows of a `scatter`")
    out = []
    for d, atoms in enumerate(operand):
        if d in batch:  # each index writes to itself only
            links.tie(atoms, indices[batch[d]])
            out.append(joined(links, [atoms, updates[rows[batch[d]]]]))
            continue
        part = None if d in dims.inserted_window_dims else updates[next(windows)]
        if part is not None and len(part) == len(atoms):
            out.append(joined(links, [atoms, part]))
            continue
        out.append(links.pin(atoms, "`scatter` writes at places that depend on data"))
        if part is not None:
            links.pin(part, "a window that `scatter` writes")
    return [out]


register("gather", link=_gather, run=_run_gather)
register("scatter", "scatter-add", "scatter-min", "scatter-max", "scatter-mul", "scatter-sub",
         link=_scatter)  # fmt: skip


# --- generated entries


def _iota(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    out = [links.fresh(n) for n in op.outs[0].shape]
    links.order(out[op.params["dimension"]], "`iota` counts along it")
    return [out]


def _random(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    for axes in ins:
        for atoms in axes:
            links.pin(atoms, "a random key")
    out = [[links.fresh(n) for n in value.shape] for value in op.outs]
    for axes in out:
        for atoms in axes:
            links.order(atoms, "random numbers are drawn for each index")
    return out


def _key(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    for axes in ins:
        for atoms in axes:
            links.pin(atoms, "a random key")
    return [[links.stuck(n, "a random key") for n in value.shape] for value in op.outs]


def _run_whole(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    """Generates all entries and selects the kept ones, so that their values do not change."""
    return [pick_kept(x, shrunk.kept(v)) for x, v in zip(op.bind(*args), op.outs, strict=True)]


def _generate(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """A new state, which is pinned, and random numbers."""
    _, drawn = _random(links, op, ins)
    return [[links.stuck(n, "a random key") for n in op.outs[0].shape], drawn]


def _empty(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return [[links.fresh(n) for n in op.outs[0].shape]]


def _run_empty(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    return op.bind(shape=shrunk.shape(op.outs[0]))


register("iota", link=_iota, run=_run_whole)
register("empty", link=_empty, run=_run_empty)
register("rng_bit_generator", link=_generate, run=_run_whole)
register("random_bits", "random_gamma", "rng_uniform", link=_random, run=_run_whole)
register("random_seed", "random_wrap", "random_unwrap", "random_fold_in", "random_split",
         "random_clone", link=_key)  # fmt: skip
