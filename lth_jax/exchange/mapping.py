"""Mappings from leaves to PyTorch names, and the axes of PyTorch's kernels.

PyTorch stores a kernel as `(outputs, inputs, *window)`. A leaf's `Layout` determines which of its
axes these are, so the transposition does not depend on a name or a shape.
"""

import json
import math
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax.exchange.errors import ExchangeError
from lth_jax.layouts import DENSE, Layout, Layouts, conv, resolve

AS_IS = "as_is"
_FORMS = "'dense', 'conv', 'as_is', or a table of `inputs`, `outputs` and `window`"
_FIELDS = {"name", "layout", "flattened"}
_UNMAPPED = {
    "transposed": "a transposed convolution, which is not mapped, since PyTorch mirrors its window",
    "gated": "a gated recurrent cell, which is not mapped, since PyTorch may order its gates "
    "differently",
}


class Target(NamedTuple):
    """The place of one leaf in a PyTorch state dictionary.

    Attributes:
      name: the PyTorch name, such as `"conv1.weight"`.
      layout: the axes of the leaf: a `Layout`, `"dense"`, `"conv"`, or `"as_is"` for a leaf that
        PyTorch stores with the same axes; None takes that of `layouts` or of the leaf's name.
      flattened: the shape `(*space, channels)` that a channels-last network flattens to the inputs
        of a dense kernel; PyTorch flattens `(channels, *space)`. Empty where nothing is flattened.
        Where shapes suggest a flattened convolution, `(inputs,)` states that there is none, without
        a warning.
    """

    name: str
    layout: Layout | str | None = None
    flattened: tuple[int, ...] = ()


NameMapping = Mapping[str, str | Mapping[str, Any] | Target]
"""Leaf name, as in `trees.names`, to the PyTorch name, a table of `Target`'s fields, or a `Target`.
"""


def read_mapping(path: str | Path) -> dict[str, Target]:
    """Reads a mapping from a JSON or TOML file.

    Args:
      path: a file `.json` or `.toml` of one object. Its keys are leaf names; its values PyTorch
        names, or objects with `name` and optionally `layout` and `flattened`.

    Returns:
      Leaf name to `Target`, in the order of the file.

    Raises:
      ExchangeError: the file does not hold such a mapping, or two leaves have one PyTorch name.
      OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "names.json")
    ...     _ = path.write_text('{"Dense_0/kernel": {"name": "fc.weight", "layout": "dense"}}')
    ...     read_mapping(path)
    {'Dense_0/kernel': Target(name='fc.weight', layout='dense', flattened=())}
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = tomllib.loads(text) if Path(path).suffix == ".toml" else json.loads(text)
    except ValueError as error:  # of JSON, TOML and UTF-8
        raise ExchangeError(f"`mapping` '{path}' cannot be read: {str(error)[:80]}.") from None
    if not isinstance(found, dict):
        raise ExchangeError(
            f"`mapping` '{path}' must contain an object that maps leaf names to PyTorch names."
        )
    return as_targets(found)


def as_targets(mapping: NameMapping) -> dict[str, Target]:
    """The checked entries of a mapping.

    Raises:
      ExchangeError: an entry is not a name or a table, or two leaves have one PyTorch name.

    >>> as_targets({"Dense_0/kernel": "fc.weight"})["Dense_0/kernel"].name
    'fc.weight'
    """
    found = {leaf: _target(leaf, entry) for leaf, entry in mapping.items()}
    owners: dict[str, str] = {}
    for leaf, target in found.items():
        if owners.setdefault(target.name, leaf) != leaf:
            raise ExchangeError(
                f"`mapping` gives '{owners[target.name]}' and '{leaf}' the same name "
                f"'{target.name}'."
            )
    return found


def _target(leaf: str, entry: Any) -> Target:
    if isinstance(entry, Target):
        return entry
    if isinstance(entry, str):
        return Target(entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise ExchangeError(f"`mapping` at '{leaf}' is {str(entry)[:80]}; a name is needed.")
    if unknown := sorted(set(entry) - _FIELDS):
        raise ExchangeError(f"`mapping` at '{leaf}' has {unknown}; {sorted(_FIELDS)} are allowed.")
    flattened = entry.get("flattened", ())
    try:
        layout = entry.get("layout")
        if isinstance(layout, Mapping):
            layout = Layout.of_axes(layout)
        return Target(entry["name"], layout, tuple(map(int, flattened)))
    except (TypeError, ValueError) as error:
        raise ExchangeError(f"`mapping` at '{leaf}' has no valid layout: {error}") from None


def layout_of(leaf: str, shape: tuple[int, ...], target: Target, layouts: Layouts) -> Layout | None:
    """The layout of a leaf; None if PyTorch stores it with the same axes.

    These are leaves of one axis or none, embeddings, and leaves marked `"as_is"`.

    Raises:
      ExchangeError: the layout is not known, has stacked layers, or is that of a transposed
        convolution or a gated recurrent cell.
    """
    layout, axes = target.layout, len(shape)
    if axes < 2 or layout == AS_IS:
        return None
    if isinstance(layout, str):
        if layout not in ("dense", "conv"):
            raise ExchangeError(f"`mapping` at '{leaf}' has the layout {layout!r}; use {_FORMS}.")
        layout = DENSE if layout == "dense" else conv(axes - 2)
    if layout is None:
        layout = layouts.get(leaf)
        last = leaf.rpartition("/")[2]
        if "embedding" in last or last == "positions":  # (entries, features) in PyTorch too
            return None
        layout = layout or resolve({leaf: np.empty(shape, bool)}).get(leaf)
    if layout is None:
        raise ExchangeError(
            f"The layout of '{leaf}', of shape {shape}, is needed for PyTorch: pass `layouts` (as "
            f"of lth_jax.layouts.of_linen), or give its `layout` in the mapping: {_FORMS}."
        )
    if layout.kind:
        raise ExchangeError(
            f"'{leaf}' is a kernel of {_UNMAPPED[layout.kind]}; to write or read its axes alone, "
            f"state its `layout` in the mapping: {_FORMS}."
        )
    if len(layout.order) != axes:
        raise ExchangeError(
            f"The layout of '{leaf}' has {len(layout.order)} axes, but its shape is {shape}; where "
            "several axes are one in PyTorch, `like` is needed."
        )
    if layout.stacked:
        raise ExchangeError(
            f"'{leaf}' stacks layers along its axes {layout.stacked}; PyTorch has one array for "
            "each layer, so unstack the leaf first."
        )
    return layout


def with_biases(
    shapes: Mapping[str, tuple[int, ...] | None],
    targets: Mapping[str, Target],
    layouts: Layouts,
) -> dict[str, Layout]:
    """`layouts`, and those of biases with several axes, which their kernels' outputs determine.

    Args:
      shapes: leaf name to shape; None where it is not known.
      targets: the mapping, whose layouts of kernels count before those of `layouts`.
      layouts: leaf name to layout.

    >>> shapes = {"query/kernel": (6, 2, 4), "query/bias": (2, 4)}
    >>> targets = {name: Target(name) for name in shapes}
    >>> with_biases(shapes, targets, {"query/kernel": Layout((0,), (1, 2))})["query/bias"]
    Layout(outputs=(0, 1))
    """
    stated = {name: t.layout for name, t in targets.items() if isinstance(t.layout, Layout)}
    known, added = {**layouts, **stated}, dict(layouts)
    for kernel, layout in known.items():
        shape, bias = shapes.get(kernel), f"{kernel.rpartition('/')[0]}/bias".lstrip("/")
        if bias in known or shape is None or len(shape) != len(layout.order):
            continue
        axes = sorted((*layout.stacked, *layout.outputs))
        sizes, found = tuple(shape[axis] for axis in axes), shapes.get(bias)
        ones = len(layout.window) if found and len(found) > len(axes) else 0  # of Equinox
        if found and len(found) > 1 and found == (*sizes, *(1,) * ones):
            outputs, stacked = (
                tuple(map(axes.index, side)) for side in (layout.outputs, layout.stacked)
            )
            outputs = (*outputs, *range(len(axes), len(found)))
            added[bias] = Layout((), outputs, stacked=stacked)
    return added


def _order(layout: Layout) -> tuple[int, ...]:
    return (*layout.outputs, *layout.inputs, *layout.window)


def torch_shape(shape: tuple[int, ...], layout: Layout | None) -> tuple[int, ...]:
    """The shape of a leaf in PyTorch; several input or output axes become one.

    >>> torch_shape((3, 3, 8, 16), conv(2)), torch_shape((8, 2, 4), Layout((0,), (1, 2)))
    ((16, 8, 3, 3), (8, 8))
    """
    if layout is None:
        return shape
    sides = (layout.outputs, layout.inputs)
    merged = [math.prod(shape[axis] for axis in axes) for axes in sides if axes]
    return (*merged, *(shape[axis] for axis in layout.window))


def to_torch(leaf: Any, layout: Layout | None, flattened: tuple[int, ...] = ()) -> np.ndarray:
    """A leaf with PyTorch's axes.

    >>> to_torch(np.arange(6).reshape(2, 3), DENSE).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    leaf = np.asarray(leaf)
    if layout is None:
        return leaf
    moved = np.transpose(leaf, _order(layout)).reshape(torch_shape(leaf.shape, layout))
    if not flattened:
        return np.ascontiguousarray(moved)
    rows = moved.reshape(len(moved), *flattened)
    return np.ascontiguousarray(np.moveaxis(rows, -1, 1).reshape(moved.shape))


def from_torch(
    array: np.ndarray,
    layout: Layout | None,
    shape: tuple[int, ...],
    flattened: tuple[int, ...] = (),
) -> np.ndarray:
    """The inverse of `to_torch` for a leaf of this shape.

    >>> from_torch(np.array([[0, 3], [1, 4], [2, 5]]), DENSE, (2, 3)).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    if layout is None:
        return array
    if flattened:
        rows = array.reshape(len(array), flattened[-1], *flattened[:-1])
        array = np.moveaxis(rows, 1, -1).reshape(array.shape)
    order = _order(layout)
    moved = array.reshape([shape[axis] for axis in order])
    return np.ascontiguousarray(np.transpose(moved, np.argsort(order)))


def leaf_shape(torch: tuple[int, ...], layout: Layout | None) -> tuple[int, ...]:
    """The shape of a leaf from that in PyTorch, if no axes became one.

    >>> leaf_shape((16, 8, 3, 3), conv(2))
    (3, 3, 8, 16)
    """
    if layout is None:
        return torch
    return tuple(torch[i] for i in np.argsort(_order(layout)))


def check_flattened(
    leaf: str, shape: tuple[int, ...], layout: Layout | None, flattened: tuple[int, ...]
) -> None:
    """Raises `ExchangeError` unless `flattened` is a shape of the leaf's inputs."""
    if not flattened:
        return
    inputs = torch_shape(shape, layout)[1] if layout is not None and layout.inputs else 0
    if layout is None or layout.window or math.prod(flattened) != inputs:
        raise ExchangeError(
            f"`flattened` of '{leaf}' is {flattened}, but the leaf has {inputs} inputs of a dense "
            "kernel."
        )


def warn_of_flattened(
    shapes: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Layout | None],
    targets: Mapping[str, Target],
) -> None:
    """Warns of dense kernels that may read a flattened convolution, but have no `flattened`.

    These have a multiple of the channels of a convolution as inputs, and no layer has so many
    outputs. Shapes do not decide it: the features may also come from a pooling or an argument.

    Args:
      shapes: the shape of every leaf.
      found: its layout, from `layout_of`.
      targets: its entry of the mapping.
    """
    sizes = {name: torch_shape(shapes[name], layout) for name, layout in found.items() if layout}
    outputs = {size[0] for size in sizes.values()}
    convs = {name: size[0] for name, size in sizes.items() if len(size) > 2}
    for name, size in sizes.items():
        if len(size) != 2 or targets[name].flattened or size[1] in outputs:
            continue
        fits = [conv for conv, channels in convs.items() if size[1] % channels == 0 < channels]
        if fits:
            conv, n = fits[-1], size[1]
            warnings.warn(
                f"'{name}' has {n} inputs, {n // convs[conv]} times the {convs[conv]} channels of "
                f"'{conv}'. If it reads a flattened convolution, its entry in `mapping` needs "
                f"`flattened`, the shape (*space, {convs[conv]}), since PyTorch flattens channels "
                f"first. If it does not, `flattened` ({n},) states so.",
                stacklevel=3,
            )


def check_mapped(leaves: Mapping[str, Any], targets: Mapping[str, Target]) -> None:
    """Raises `ExchangeError` unless the mapping names the leaves, all of them and no others."""
    if missing := [name for name in leaves if name not in targets]:
        raise ExchangeError(
            f"`mapping` has no PyTorch name for {missing[:3]}; the leaves are {list(leaves)[:20]}."
        )
    if unknown := [name for name in targets if name not in leaves]:
        raise ExchangeError(
            f"`mapping` names the leaves {unknown[:3]}, but the leaves are {list(leaves)[:20]}."
        )
