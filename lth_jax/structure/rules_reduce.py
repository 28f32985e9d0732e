"""Rules of primitives that combine entries: products, convolutions, reductions, windows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lth_jax.models.convolution import conv_p
from lth_jax.structure.constraints import FINITE, Atoms, Axes, Links, Site, product
from lth_jax.structure.graph import Op
from lth_jax.structure.rules import Link, Shrunk, register

# --- products


def contract(links: Links, op: Op, left: Atoms, right: Atoms, site: Site | None = None) -> None:
    """`Σᵢ leftᵢ rightᵢ`: ties the two axes; the sum is exact if a factor is zero."""
    links.tie(left, right, site)
    held = product(links.content(left), links.content(right))
    links.add_up(left, held, f"`{op.name}` sums over units that are not zero when masked")


def _dot_general(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return _product(links, op, ins, op.params["dimension_numbers"])


def _product(links: Links, op: Op, ins: list[Axes], dims: Any) -> list[Axes]:
    (lc, rc), (lb, rb) = dims
    left, right = ins
    for a, b in zip(lc, rc, strict=True):
        contract(links, op, left[a], right[b])
    batch = [_side_by_side(links, left[a], right[b]) for a, b in zip(lb, rb, strict=True)]
    free_left = [left[d] for d in range(len(left)) if d not in (*lc, *lb)]
    free_right = [right[d] for d in range(len(right)) if d not in (*rc, *rb)]
    return [[links.after_sum(atoms) for atoms in (*batch, *free_left, *free_right)]]


def _side_by_side(links: Links, left: Atoms, right: Atoms) -> Atoms:
    """A batch axis: tied, and zero if either side is."""
    links.tie(left, right)
    held = product(links.content(left), links.content(right))
    return links.with_content(right if links.is_stuck(right) else left, held)


register("dot_general", link=_dot_general)


def _ragged_dot(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """A product for each group of rows: features are removable; rows and groups are pinned."""
    dims = op.params["ragged_dot_dimension_numbers"]
    (lc, rc), (lb, rb) = dims.dot_dimension_numbers
    left, right, *sizes = ins
    ragged = [left[d] for d in dims.lhs_ragged_dimensions]
    experts = [right[d] for d in dims.rhs_group_dimensions]
    for atoms in [*ragged, *experts, *(atoms for axes in sizes for atoms in axes)]:
        links.pin(atoms, f"`{op.name}` counts the rows of each group along it")
    for a, b in zip(lc, rc, strict=True):
        contract(links, op, left[a], right[b])
    batch = [_side_by_side(links, left[a], right[b]) for a, b in zip(lb, rb, strict=True)]
    free = [left[d] for d in range(len(left)) if d not in (*lc, *lb)]
    gone = (*rc, *rb, *dims.rhs_group_dimensions)
    free += [right[d] for d in range(len(right)) if d not in gone]
    out = [links.after_sum(atoms) for atoms in (*batch, *free)]
    made = len(op.outs[0].shape) - len(out)  # one product per group, if rows are contracted
    groups = [links.stuck(n, f"the groups of `{op.name}`") for n in op.outs[0].shape[:made]]
    return [[*groups, *out]]


def _scaled_dot(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return _scaled(links, op, ins, op.params["dimension_numbers"])


def _scaled_matmul(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return _scaled(links, op, ins, (((2,), (2,)), ((0,), (0,))))


def _scaled(links: Links, op: Op, ins: list[Axes], dims: Any) -> list[Axes]:
    """`(left · scale) (right · scale)`, with one scale per block of a contracted axis."""
    for operand, scale, contracted in zip(ins[:2], ins[2:4], dims[0], strict=True):
        for d, (a, b) in enumerate(zip(operand, scale, strict=True)):
            if d in contracted:
                for atoms in (a, b):
                    links.pin(atoms, f"`{op.name}` scales blocks of it")
            else:
                links.tie(a, b)
    return _product(links, op, ins[:2], dims)


register("ragged_dot_general", link=_ragged_dot)
register("scaled_dot", link=_scaled_dot)
register("scaled_matmul", "scaled_matmul_wrapper", link=_scaled_matmul)


# --- convolutions


class _Layout(NamedTuple):
    """The axes of a convolution by meaning; `members` are the member axes, or empty."""

    batch: tuple[int, int]
    features: tuple[int, int]
    fan_in: int
    kernel_out: int
    spaces: tuple[tuple[int, int], ...]
    members: tuple[int, ...]
    groups: int
    batch_groups: int


def stock_layout(op: Op) -> _Layout:
    """The layout of `jax.lax.conv_general_dilated`."""
    image, kernel, out = op.params["dimension_numbers"]
    return _Layout(
        (image[0], out[0]),
        (image[1], out[1]),
        kernel[1],
        kernel[0],
        tuple(zip(image[2:], kernel[2:], strict=True)),
        (),
        op.params["feature_group_count"],
        op.params["batch_group_count"],
    )


def own_layout(op: Op) -> _Layout:
    """The layout of `lth_jax.models.convolution`: channels last, members first if any."""
    geometry = op.params["geometry"]
    rank = len(geometry.kernel) + 2
    first = len(op.ins[0].shape) - rank
    spaces = tuple((first + 1 + d, first + d) for d in range(rank - 2))
    last = first + rank - 1
    return _Layout(
        (first, first), (last, last), last - 1, last, spaces, (0,) * first, geometry.groups, 1
    )


def _convolution(layout_of: Callable[[Op], _Layout]) -> Link:
    """The link of a convolution: channels are removable; window and spatial axes are pinned.

    A grouped convolution loses whole groups, or the same channels of every group.
    """

    def link(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
        layout, (image, kernel) = layout_of(op), ins
        for a, b in layout.spaces:
            links.pin(image[a], f"a spatial axis of `{op.name}`")
            links.pin(kernel[b], f"the window of `{op.name}`")
        out = [links.stuck(n, f"a spatial axis of `{op.name}`") for n in op.outs[0].shape]
        for d in layout.members:
            out[d] = links.after_sum(_side_by_side(links, image[d], kernel[d]))
        channels = image[layout.features[0]], kernel[layout.fan_in], kernel[layout.kernel_out]
        if layout.batch_groups == 1:
            out[layout.batch[1]] = links.after_sum(image[layout.batch[0]])
        else:
            for atoms in (image[layout.batch[0]], channels[2]):
                links.pin(atoms, f"the batch groups of `{op.name}`")
        features = _channels(links, op, layout.groups, *channels)
        out[layout.features[1]] = links.after_sum(features)
        return [out]

    return link


def _channels(links: Links, op: Op, groups: int, image: Atoms, fan_in: Atoms, out: Atoms) -> Atoms:
    """The atoms of the output channels."""
    if groups == 1:
        contract(links, op, image, fan_in)
        return out
    image, out = image.reshape(groups, -1), out.reshape(groups, -1)
    options = [image[:, 0], image[0, :]] if len(fan_in) > 1 else [image[:, 0]]
    site = Site(op, "groups")
    live = links.choose(site, options)
    if live == 1:
        return _same_in_every_group(links, op, image, fan_in, out, site)
    if live is None:
        for atoms in (image, fan_in, out):
            reason = f"no group, and no channel of every group, is removable from `{op.name}`"
            links.pin(atoms, reason)
        return out.ravel()
    links.pin(fan_in, "channels of a group that is removed as a whole", site)
    links.tie(np.broadcast_to(image[:, :1], image.shape), image, site)
    links.tie(np.broadcast_to(image[:, :1], out.shape), out, site)
    held = product(links.content(image).max(1)[:, None], links.content(out))
    return links.with_content(out.ravel(), held.ravel())


def _same_in_every_group(
    links: Links, op: Op, image: Atoms, fan_in: Atoms, out: Atoms, site: Site
) -> Atoms:
    contract(links, op, image, np.broadcast_to(fan_in, image.shape), site)
    links.tie(np.broadcast_to(out[:1], out.shape), out, site)
    return out.ravel()


def _groups_left(layout: _Layout, args: Sequence[Any]) -> int:
    """The number of remaining groups: whole groups are removed, or channels of every group."""
    return args[0].shape[layout.features[0]] // args[1].shape[layout.fan_in]


def _run_stock(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    return op.bind(*args, feature_group_count=_groups_left(stock_layout(op), args))


def _run_own(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    geometry = op.params["geometry"]._replace(groups=_groups_left(own_layout(op), args))
    return op.bind(*args, geometry=geometry)


register("conv_general_dilated", link=_convolution(stock_layout), run=_run_stock)
register(conv_p.name, link=_convolution(own_layout), run=_run_own)


# --- reductions


def _reduce(neutral: bool) -> Link:
    """The link of a reduction; `neutral`: zero entries do not change the result."""

    def link(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
        gone = op.params["axes"]
        which = "units that are not zero when masked" if neutral else "masked units, too"
        for d in gone:
            held: Any = links.content(ins[0][d]) if neutral else FINITE
            links.add_up(ins[0][d], held, f"`{op.name}` runs over {which}")
        return [[atoms for d, atoms in enumerate(ins[0]) if d not in gone]]

    return link


def _arg_reduce(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    gone = op.params["axes"]
    for d in gone:
        links.pin(ins[0][d], f"`{op.name}` returns indices of it")
    return [[links.with_content(atoms, FINITE) for d, atoms in enumerate(ins[0]) if d not in gone]]


register("reduce_sum", "reduce_or", "reduce_xor", link=_reduce(neutral=True))
register("reduce_max", "reduce_min", "reduce_prod", "reduce_and", link=_reduce(neutral=False))
register("argmax", "argmin", link=_arg_reduce)


def _reduce_by(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """A reduction of several arrays by an arbitrary scalar function."""
    gone, arrays = op.params["dimensions"], ins[: len(op.outs)]
    out: Axes = []
    for d, across in enumerate(zip(*arrays, strict=True)):
        for atoms in across[1:]:
            links.tie(across[0], atoms)
        if d in gone:
            links.add_up(across[0], FINITE, f"`{op.name}` runs over masked units, too")
        else:
            out.append(links.with_content(across[0], FINITE))
    return [out] * len(op.outs)


register("reduce", link=_reduce_by)


# --- along an axis whose order matters


def _cumulative(neutral: bool) -> Link:
    """The link of a cumulative operation; `neutral`: zero slices remain zero."""

    def link(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
        links.pin(ins[0][op.params["axis"]], f"`{op.name}` runs along it")
        held = ins[0] if neutral else [links.with_content(atoms, FINITE) for atoms in ins[0]]
        return [held]

    return link


def _sort(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    for d, across in enumerate(zip(*ins, strict=True)):
        if d == op.params["dimension"]:
            for atoms in across:
                links.pin(atoms, "`sort` sorts along it")
        for atoms in across[1:]:
            links.tie(across[0], atoms)
    return ins


def _top_k(axis: str) -> Link:
    """The link of the largest along the axis that the parameter `axis` names."""

    def link(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
        along, reason = op.params[axis] % len(ins[0]), f"`{op.name}` sorts along it"
        links.pin(ins[0][along], reason)
        best = links.stuck(op.outs[0].shape[along], reason)
        values = [best if d == along else atoms for d, atoms in enumerate(ins[0])]
        return [values, [links.with_content(atoms, FINITE) for atoms in values]]

    return link


register("cumsum", "cumprod", "cummax", "cummin", link=_cumulative(neutral=True))
register("cumlogsumexp", link=_cumulative(neutral=False))
register("sort", link=_sort)
register("top_k", link=_top_k("axis"))
register("approx_top_k", link=_top_k("reduction_dimension"))


# --- windows


def _window(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """Axes with a window of 1 keep their atoms; the others are pinned.

    A windowed operation may have several operands, and scatter into one of them.
    """
    window, reason = op.params["window_dimensions"], f"a spatial axis of `{op.name}`"
    arrays = [axes for axes in ins if len(axes) == len(window)]
    known = op.name in _KNOWN_WINDOWS
    out: Axes = []
    for d, across in enumerate(zip(*arrays, strict=True)):
        n = op.outs[0].shape[d]
        if window[d] == 1 and all(len(atoms) == n for atoms in across):
            for atoms in across[1:]:
                links.tie(across[0], atoms)
            held = np.max([links.content(atoms) for atoms in across], axis=0)
            out.append(links.with_content(across[0], held if known else np.maximum(held, FINITE)))
        else:
            for atoms in across:
                links.pin(atoms, reason)
            out.append(links.stuck(n, reason))
    return [out] * len(op.outs)


# Windows of zeros give zeros, except for arbitrary scalar functions.
_KNOWN_WINDOWS = (
    "reduce_window_max", "reduce_window_min", "reduce_window_sum", "select_and_gather_add",
    "select_and_scatter_add",
)  # fmt: skip
register(*_KNOWN_WINDOWS, "reduce_window", "select_and_scatter", link=_window)
