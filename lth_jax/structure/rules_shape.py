"""Rules of primitives that rearrange axes: reshape, slice, concatenate."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lth_jax.structure.constraints import Atoms, Axes, Links, Site
from lth_jax.structure.graph import Op
from lth_jax.structure.rules import Shrunk, pick, register, scalar_content

Sizes = Sequence[int]


# --- axes added, dropped, reordered


def _broadcast(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    held = scalar_content(op.ins[0], 1)[0]
    out = [links.fresh(n, held) for n in op.outs[0].shape]
    for atoms, d in zip(ins[0], op.params["broadcast_dimensions"], strict=True):
        if len(atoms) == len(out[d]):
            out[d] = atoms
        else:
            links.pin(atoms, "`broadcast_in_dim` broadcasts a length-1 axis")
    return [out]


def _squeeze(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    gone = op.params["dimensions"]
    for d in gone:
        links.pin(ins[0][d], "an axis indexed by a constant")
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
    """The smallest runs of axes (without axes of length 1) with equal products on both sides."""
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
    new, order = op.outs[0].shape, op.params.get("dimensions")
    axes = ins[0] if order is None else [ins[0][d] for d in order]
    old = [len(atoms) for atoms in axes]
    if 0 in old:
        for atoms in axes:
            links.pin(atoms, "`reshape` of no entries")
        return [[links.stuck(n, "`reshape` of no entries") for n in new]]
    out = [links.stuck(n, "a length-1 axis that `reshape` adds") for n in new]
    for atoms in axes:
        if len(atoms) == 1:
            links.pin(atoms, "a length-1 axis that `reshape` removes")
    for left, right in _factors(old, new):
        pieces = _rearranged(links, op, (left, right), [axes[d] for d in left])
        for d, atoms in zip(right, pieces, strict=True):
            out[d] = atoms
    return [out]


def _rearranged(
    links: Links, op: Op, where: tuple[list[int], list[int]], axes: list[Atoms]
) -> list[Atoms]:
    """Axes with equal products: splits each old axis, and merges the parts to new axes.

    `(16, 6) -> (4, 24)` splits 16 into `(4, 4)` and merges the second 4 with 6. Without common
    factors, as in `(6, 4) -> (4, 6)`, all axes are merged and split again.
    """
    left, right = where
    sizes = [[len(atoms) for atoms in axes], [op.outs[0].shape[d] for d in right]]
    cuts = _common_cuts(*sizes)
    if cuts is None:
        flat = _merge(links, op, left[0], axes)
        return _split_axis(links, op, left[0], flat, sizes[1])
    parts: list[Atoms] = []
    for d, atoms, inner in zip(left, axes, _within(cuts, sizes[0]), strict=True):
        parts += _split_axis(links, op, d, atoms, inner)
    out = []
    for d, inner in zip(right, _within(cuts, sizes[1]), strict=True):
        out.append(_merge(links, op, d, parts[: len(inner)]))
        parts = parts[len(inner) :]
    return out


def _common_cuts(old: Sizes, new: Sizes) -> list[int] | None:
    """The sizes of the coarsest common factors of both shapes, or None."""
    ends = sorted({*np.cumprod(old).tolist(), *np.cumprod(new).tolist()})
    pairs = list(zip([1, *ends], ends, strict=False))
    return None if any(b % a for a, b in pairs) else [b // a for a, b in pairs]


def _within(cuts: Sizes, sizes: Sizes) -> Iterator[list[int]]:
    """The factors of each axis."""
    rest = iter(cuts)
    for n in sizes:
        inner = [next(rest)]
        while np.prod(inner) != n:
            inner.append(next(rest))
        yield inner


def _places(sizes: Sizes, k: int) -> np.ndarray:
    """For each entry of a flattened array, its index along axis `k`."""
    return np.broadcast_to(
        np.arange(sizes[k]).reshape([-1 if d == k else 1 for d in range(len(sizes))]), sizes
    ).ravel()


def _merge(links: Links, op: Op, where: int, axes: list[Atoms]) -> Atoms:
    """Merges several axes: the indices of one factor may be removed."""
    if len(axes) == 1:
        return axes[0]
    sizes, site = [len(atoms) for atoms in axes], Site(op, ("merge", where))
    live = None if _share_atoms(links, axes) else links.choose(site, axes)
    if live is None:
        return _stays(links, "no factor of a merged axis can lose indices", axes, sizes)
    for k, atoms in enumerate(axes):
        if k != live:
            links.pin(atoms, "another factor of a merged axis is removable (see `prefer`)", site)
    chosen = axes[live][_places(sizes, live)]
    flat = links.fresh(len(chosen), links.content(chosen))
    links.tie(flat, chosen, site)
    return flat


def _share_atoms(links: Links, axes: list[Atoms]) -> bool:
    """Whether two factors share atoms, so that neither can be removed alone; pins them."""
    free = [atoms for atoms in axes if not links.is_stuck(atoms)]
    together = np.concatenate([np.unique(atoms) for atoms in free] or [np.zeros(0, int)])
    shared = len(np.unique(together)) < len(together)
    if shared:
        for atoms in free:
            links.pin(atoms, "two factors of a merged axis are the same units")
    return shared


def _stays(links: Links, reason: str, axes: list[Atoms], sizes: Sizes) -> Atoms:
    """A pinned merged axis, with the reasons of a pinned factor, if any."""
    for atoms in axes:
        if not links.is_stuck(atoms):
            links.pin(atoms, reason)
    return axes[0][_places(sizes, 0)]


def _split_axis(links: Links, op: Op, where: int, flat: Atoms, sizes: Sizes) -> list[Atoms]:
    """Splits an axis: the indices of one factor may be removed."""
    if len(sizes) == 1:
        return [flat]
    if links.is_stuck(flat):
        return [np.repeat(flat[:1], n) for n in sizes]
    held = links.content(flat).reshape(sizes)
    others = [tuple(j for j in range(len(sizes)) if j != k) for k in range(len(sizes))]
    options = [links.fresh(n, held.max(o)) for n, o in zip(sizes, others, strict=True)]
    site = Site(op, ("split", where))
    live = links.choose(site, options)
    if live is None:
        for atoms in (flat, *options):
            links.pin(atoms, "an axis that is split into axes that cannot lose indices")
        return options
    for k, atoms in enumerate(options):
        if k != live:
            links.pin(atoms, "another factor of a split axis is removable (see `prefer`)", site)
    links.tie(flat, options[live][_places(sizes, live)], site)
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
            out.append(joined(links, pieces))
    return [out]


def joined(links: Links, pieces: Sequence[Atoms]) -> Atoms:
    """Corresponding axes: tied, and zero if all of them are."""
    for atoms in pieces[1:]:
        links.tie(pieces[0], atoms)
    return links.with_content(pieces[0], np.max([links.content(p) for p in pieces], axis=0))


def _stack(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    along = op.params["axis"]
    out = [joined(links, pieces) for pieces in zip(*ins, strict=True)]
    return [[*out[:along], links.stuck(len(ins), "an axis created by `stack`"), *out[along:]]]


def _unstack(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    along = op.params["axis"]
    links.pin(ins[0][along], "an axis split by `unstack`")
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
    """Reads the kept indices of the slice at their new positions."""
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
