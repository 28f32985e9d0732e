"""Rules of the primitives that move entries: reshape, slice, concatenate, gather and their kin."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lth_jax.structure.graph import Op, Value
from lth_jax.structure.links import FINITE, Atoms, Axes, Links
from lth_jax.structure.rules import Shrunk, pick, pick_kept, register, scalar_content

Sizes = Sequence[int]


def _is_known(value: Value) -> bool:
    return value.constant is not None


# --- axes added, dropped, reordered


def _broadcast(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    held = scalar_content(op.ins[0], 1)[0]
    out = [links.fresh(n, held) for n in op.outs[0].shape]
    for atoms, d in zip(ins[0], op.params["broadcast_dimensions"], strict=True):
        if len(atoms) == len(out[d]):
            out[d] = atoms
        else:
            links.pin(atoms, "`broadcast_in_dim` repeats an axis of one")
    return [out]


def _squeeze(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    gone = op.params["dimensions"]
    for d in gone:
        links.pin(ins[0][d], "a single index that is read by its place")
    return [[atoms for d, atoms in enumerate(ins[0]) if d not in gone]]


def _transpose(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return [[ins[0][d] for d in op.params["permutation"]]]


def _reverse(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    gone = op.params["dimensions"]
    return [[atoms[::-1] if d in gone else atoms for d, atoms in enumerate(ins[0])]]


def _tile(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return [[np.tile(atoms, n) for atoms, n in zip(ins[0], op.params["reps"], strict=True)]]


def _run_broadcast(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    return op.bind(*args, shape=shrunk.shape(op.outs[0]))


register("broadcast_in_dim", link=_broadcast, run=_run_broadcast)
register("squeeze", link=_squeeze)
register("tile", link=_tile)
register("transpose", link=_transpose)
register("rev", link=_reverse)


# --- reshape


def _factors(old: Sizes, new: Sizes) -> Iterator[tuple[list[int], list[int]]]:
    """The smallest runs of axes (those of one left out) with equal products on both sides."""
    a = [d for d, n in enumerate(old) if n != 1]
    b = [d for d, n in enumerate(new) if n != 1]
    while a:
        left, right = [a.pop(0)], [b.pop(0)]
        x, y = old[left[0]], new[right[0]]
        while x != y:
            if x < y:
                left.append(a.pop(0))
                x *= old[left[-1]]
            else:
                right.append(b.pop(0))
                y *= new[right[-1]]
        yield left, right


def _reshape(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    old, new = op.ins[0].shape, op.outs[0].shape
    if 0 in old or op.params.get("dimensions") is not None:
        for atoms in ins[0]:
            links.pin(atoms, "`reshape` of no entries")
        return [[links.stuck(n, "`reshape` of no entries") for n in new]]
    out = [links.stuck(n, "an axis of one that `reshape` makes") for n in new]
    for d, n in enumerate(old):
        if n == 1:
            links.pin(ins[0][d], "an axis of one that `reshape` drops")
    for left, right in _factors(old, new):
        flat = _merge(links, op, left, [ins[0][d] for d in left])
        for d, atoms in zip(right, _split_axis(links, op, right, flat), strict=True):
            out[d] = atoms
    return [out]


def _places(sizes: Sizes, k: int) -> np.ndarray:
    """For each entry of a flattened array, its index along axis `k`."""
    return np.broadcast_to(
        np.arange(sizes[k]).reshape([-1 if d == k else 1 for d in range(len(sizes))]), sizes
    ).ravel()


def _merge(links: Links, op: Op, where: list[int], axes: list[Atoms]) -> Atoms:
    """Several axes become one: the indices of one factor may go, with all entries they hold."""
    if len(axes) == 1:
        return axes[0]
    sizes = [len(atoms) for atoms in axes]
    live = links.choose(op, ("merge", where[0]), axes)
    for k, atoms in enumerate(axes):
        if k != live:
            links.pin(atoms, "another factor of a merged axis is removable")
    return axes[live or 0][_places(sizes, live or 0)]


def _split_axis(links: Links, op: Op, where: list[int], flat: Atoms) -> list[Atoms]:
    """One axis becomes several: the indices of one factor may go."""
    sizes = [op.outs[0].shape[d] for d in where]
    if len(sizes) == 1:
        return [flat]
    reason = "another factor of a split axis is removable"
    if links.is_stuck(flat):
        return [links.stuck(n, "a split axis that must stay") for n in sizes]
    held = links.content(flat).reshape(sizes)
    others = [tuple(j for j in range(len(sizes)) if j != k) for k in range(len(sizes))]
    options = [links.fresh(n, held.max(o)) for n, o in zip(sizes, others, strict=True)]
    live = links.choose(op, ("split", where[0]), options)
    for k, atoms in enumerate(options):
        if k != live:
            links.pin(atoms, reason)
    if live is None:
        links.pin(flat, "an axis that is split, and no factor of it can lose an index")
    else:
        links.tie(flat, options[live][_places(sizes, live)])
    return options


def _run_reshape(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    return op.bind(*args, new_sizes=shrunk.shape(op.outs[0]))


register("reshape", link=_reshape, run=_run_reshape)


# --- pieces of an axis


def _concatenate(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    along = op.params["dimension"]
    out = []
    for d, pieces in enumerate(zip(*ins, strict=True)):
        if d == along:
            out.append(np.concatenate(pieces))
        else:
            out.append(_joined(links, pieces))
    return [out]


def _joined(links: Links, pieces: Sequence[Atoms]) -> Atoms:
    """Axes that run side by side: tied, and zero where all of them are."""
    for atoms in pieces[1:]:
        links.tie(pieces[0], atoms)
    return links.with_content(pieces[0], np.max([links.content(p) for p in pieces], axis=0))


def _stack(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    along = op.params["axis"]
    out = [_joined(links, pieces) for pieces in zip(*ins, strict=True)]
    return [[*out[:along], links.stuck(len(ins), "`stack` makes it"), *out[along:]]]


def _unstack(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    along = op.params["axis"]
    links.pin(ins[0][along], "`unstack` takes it apart")
    return [[*ins[0][:along], *ins[0][along + 1 :]]] * len(op.outs)


def _split(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    along = op.params["axis"]
    cuts = np.cumsum(op.params["sizes"])[:-1]
    pieces = np.split(ins[0][along], cuts)
    return [[*ins[0][:along], piece, *ins[0][along + 1 :]] for piece in pieces]


def _run_split(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    return op.bind(*args, sizes=tuple(shrunk.shape(v)[op.params["axis"]] for v in op.outs))


def _ranges(op: Op) -> list[slice]:
    start, limit = op.params["start_indices"], op.params["limit_indices"]
    strides = op.params["strides"] or (1,) * len(start)
    return [slice(*r) for r in zip(start, limit, strides, strict=True)]


def _slice(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return [[atoms[r] for atoms, r in zip(ins[0], _ranges(op), strict=True)]]


def _run_slice(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    """Reads the kept ones among the indices that were read, wherever they stand now."""
    (x,) = args
    for d, (flags, r) in enumerate(zip(shrunk.kept(op.ins[0]), _ranges(op), strict=True)):
        now = np.cumsum(flags) - 1
        x = pick(x, d, now[r][flags[r]])
    return [x]


def _pad(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    out = []
    for n, atoms, (low, high, inner) in zip(
        op.outs[0].shape, ins[0], op.params["padding_config"], strict=True
    ):
        if inner or min(low, high) < 0:
            links.pin(atoms, "`pad` between or away from indices")
            out.append(links.stuck(n, "`pad` between or away from indices"))
        else:
            edge = scalar_content(op.ins[1], 1)[0]
            ends = links.fresh(low, edge), links.fresh(high, edge)
            out.append(np.concatenate([ends[0], atoms, ends[1]]))
    return [out]


def _run_pad(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    config = []
    for flags, (low, high, inner) in zip(
        shrunk.kept(op.outs[0]), op.params["padding_config"], strict=True
    ):
        if flags.all():
            config.append((low, high, inner))
        else:
            end = len(flags) - high
            config.append((int(flags[:low].sum()), int(flags[end:].sum()), 0))
    return op.bind(*args, padding_config=tuple(config))


register("concatenate", link=_concatenate)
register("stack", link=_stack)
register("unstack", link=_unstack)
register("split", link=_split, run=_run_split)
register("slice", link=_slice, run=_run_slice)
register("pad", link=_pad, run=_run_pad)


# --- pieces whose place is computed


def _start(op: Op, d: int, first: int, size: int, window: int) -> int | None:
    """Where a window of an axis begins, kept inside as XLA does, or None if it depends on data."""
    if window == size:
        return 0
    known = op.ins[first + d].constant
    return None if known is None else min(max(int(known), 0), size - window)


def _dynamic_slice(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    out = []
    for d, (atoms, n) in enumerate(zip(ins[0], op.outs[0].shape, strict=True)):
        start = _start(op, d, 1, len(atoms), n)
        if start is None:
            links.pin(atoms, "`dynamic_slice` at a place that depends on data")
            out.append(links.stuck(n, "`dynamic_slice` at a place that depends on data"))
        else:
            out.append(atoms[start : start + n])
    return [out]


def _moved_starts(shrunk: Shrunk, op: Op, args: Sequence[Any], first: int, part: Value) -> list:
    """The start indices where the indices before a window of known place may be gone."""
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
            links.pin(whole, "`dynamic_update_slice` at a place that depends on data")
            links.pin(part, "`dynamic_update_slice` at a place that depends on data")
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
    """`(axis, indices)` if a gather reads known indices of one axis (`x[:, [2, 0]]`)."""
    dims, indices = op.params["dimension_numbers"], op.ins[1].constant
    plain = len(dims.collapsed_slice_dims) == 1 and not dims.operand_batching_dims
    if indices is None or not plain or tuple(dims.start_index_map) != dims.collapsed_slice_dims:
        return None
    rows, axis = np.asarray(indices)[..., 0], dims.collapsed_slice_dims[0]
    inside = rows.ndim == 1 and ((rows >= 0) & (rows < op.ins[0].shape[axis])).all()
    return (axis, rows) if inside else None


def _gather(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """Windows of full size keep their axes; axes that are looked up by data must stay."""
    dims, sizes, known = op.params["dimension_numbers"], op.params["slice_sizes"], _known_rows(op)
    operand, indices = ins[:2]
    windows = iter(dims.offset_dims)
    out: dict[int, Atoms] = {}
    for d, atoms in enumerate(operand):
        if d in dims.operand_batching_dims:
            place = dims.operand_batching_dims.index(d)
            links.tie(atoms, indices[dims.start_indices_batching_dims[place]])
        elif d in dims.collapsed_slice_dims:
            if known is None:
                links.pin(atoms, "`gather` looks it up")
        elif sizes[d] == len(atoms):
            out[next(windows)] = atoms
        else:
            links.pin(atoms, "`gather` reads a window of it")
            out[next(windows)] = links.stuck(sizes[d], "a window that `gather` reads")
    links.pin(indices[-1], "the coordinates of a `gather`")
    free = [d for d in range(len(op.outs[0].shape)) if d not in dims.offset_dims]
    for d, atoms in zip(free, indices[:-1], strict=True):
        out[d] = links.with_content(atoms, FINITE)
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
    """Windows of full size are tied to the operand's axes; axes written by data must stay."""
    dims = op.params["dimension_numbers"]
    operand, indices, updates = ins
    windows = iter(dims.update_window_dims)
    for atoms in indices:
        links.pin(atoms, "the places of a `scatter`")
    out = []
    for d, atoms in enumerate(operand):
        inserted = d in dims.inserted_window_dims or d in dims.operand_batching_dims
        part = None if inserted else updates[next(windows)]
        if part is not None and len(part) == len(atoms):
            out.append(_joined(links, [atoms, part]))
            continue
        out.append(links.pin(atoms, "`scatter` writes at places that depend on data"))
        if part is not None:
            links.pin(part, "a window that `scatter` writes")
    for d, atoms in enumerate(updates):
        if d not in dims.update_window_dims:
            links.pin(atoms, "the rows of a `scatter`")
    return [out]


register("gather", link=_gather, run=_run_gather)
register("scatter", "scatter-add", "scatter-min", "scatter-max", "scatter-mul", "scatter-sub",
         link=_scatter)  # fmt: skip


# --- entries made from nothing


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
    """Makes all entries and keeps the survivors', so that each sees the number it saw before."""
    return [pick_kept(x, shrunk.kept(v)) for x, v in zip(op.bind(*args), op.outs, strict=True)]


register("iota", link=_iota, run=_run_whole)
register("random_bits", "random_gamma", "rng_uniform", link=_random, run=_run_whole)
register("random_seed", "random_wrap", "random_unwrap", "random_fold_in", "random_split",
         "random_clone", link=_key)  # fmt: skip
