"""The meaning of a kernel's axes, and its resolution for a tree of parameters."""

import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees

KINDS = ("", "transposed", "gated")


@dataclass(frozen=True, repr=False)
class Layout:
    """The meaning of each axis of a kernel; every axis is in exactly one of the first four fields.

    Attributes:
      inputs: axes that the layer sums over.
      outputs: axes that appear in the layer's output.
      window: the spatial axes of a convolution kernel.
      stacked: axes of independent layers, from `nn.scan`, `nnx.vmap` or `eqx.filter_vmap`; each
        index is a separate layer.
      heads: axes of attention heads, which are also in `inputs` or `outputs`.
      kind: `"transposed"` for the kernel of a transposed convolution, `"gated"` for one of a gated
        recurrent cell (LSTM, GRU), empty for others. Layouts of the same axes are equal.

    >>> Layout(inputs=(0,), outputs=(1, 2), heads=(1,)).fan_in((64, 4, 16))
    64
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    window: tuple[int, ...] = ()
    stacked: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    kind: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        axes = sorted(self.order)
        if axes != list(range(len(axes))):
            raise ValueError(
                f"`Layout` must name every axis from 0 to {len(axes) - 1} once in `inputs`, "
                f"`outputs`, `window` or `stacked`, but it names {axes}."
            )
        if not set(self.heads) <= {*self.inputs, *self.outputs}:
            raise ValueError(f"`heads` is {self.heads}, but heads are axes of inputs or outputs.")
        if self.kind not in KINDS:
            raise ValueError(f"`kind` is {self.kind!r}, but it must be one of {KINDS}.")

    def __repr__(self) -> str:
        fields = vars(self).items()
        return f"Layout({', '.join(f'{name}={found!r}' for name, found in fields if found)})"

    @property
    def axes(self) -> dict[str, tuple[int, ...]]:
        """The fields of axes by name, as files hold them."""
        return {name: found for name, found in vars(self).items() if name != "kind"}

    @classmethod
    def of_axes(cls, axes: Mapping[str, Iterable[int]]) -> "Layout":
        """The inverse of `axes`.

        Raises:
          TypeError: a field is unknown or missing.
          ValueError: the axes do not form a complete layout.
        """
        made: dict[str, Any] = {name: tuple(map(int, found)) for name, found in axes.items()}
        return cls(**made)

    @property
    def order(self) -> tuple[int, ...]:
        """All axes in the order stacked, window, inputs, outputs."""
        return (*self.stacked, *self.window, *self.inputs, *self.outputs)

    def fan_in(self, shape: tuple[int, ...]) -> int:
        """The number of inputs of one output in one layer: `Π inputs · Π window`."""
        return math.prod(shape[axis] for axis in (*self.inputs, *self.window))

    def layers(self, shape: tuple[int, ...]) -> int:
        """The number of stacked layers; 1 without a stack."""
        return math.prod(shape[axis] for axis in self.stacked)

    def with_stack(self, axis: int) -> "Layout":
        """The layout of a stack of such kernels, stacked along a new axis.

        >>> Layout((0,), (1,)).with_stack(0)
        Layout(inputs=(1,), outputs=(2,), stacked=(0,))
        """
        fields = (self.inputs, self.outputs, self.window, self.stacked, self.heads)
        inputs, outputs, window, stacked, heads = (
            tuple(a + (a >= axis) for a in field) for field in fields
        )
        return Layout(inputs, outputs, window, tuple(sorted((axis, *stacked))), heads, self.kind)

    def of_kind(self, kind: str) -> "Layout":
        """The layout of the same axes in a layer of this kind.

        >>> DENSE.of_kind("gated")
        Layout(inputs=(0,), outputs=(1,), kind='gated')
        """
        return replace(self, kind=kind)

    def to_matrix(self, leaf: jax.Array) -> jax.Array:
        """Reshapes the leaf to `(layers, window, inputs, outputs)`, each a product of its axes.

        >>> Layout((0,), (1, 2)).to_matrix(jnp.zeros((8, 4, 2))).shape
        (1, 1, 8, 8)
        """
        return jnp.transpose(leaf, self.order).reshape(self.matrix_shape(leaf.shape))

    def from_matrix(self, matrix: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The inverse of `to_matrix` for a leaf of this shape."""
        back = sorted(range(len(self.order)), key=lambda i: self.order[i])
        return jnp.transpose(matrix.reshape([shape[axis] for axis in self.order]), back)

    def matrix_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """The shape of `to_matrix`."""
        layers, window, inputs, outputs = (
            math.prod(shape[axis] for axis in axes)
            for axes in (self.stacked, self.window, self.inputs, self.outputs)
        )
        return layers, window, inputs, outputs


def to_layers(leaf: jax.Array, layout: Layout) -> jax.Array:
    """Reshapes the leaf to `(layers, *other axes)`.

    >>> to_layers(jnp.zeros((2, 3, 4)), Layout((0,), (2,), stacked=(1,))).shape
    (3, 2, 4)
    """
    rest = [size for axis, size in enumerate(leaf.shape) if axis not in layout.stacked]
    moved = jnp.moveaxis(leaf, layout.stacked, range(len(layout.stacked)))
    return moved.reshape([layout.layers(leaf.shape), *rest])


def from_layers(layers: jax.Array, layout: Layout, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `to_layers` for a leaf of this shape."""
    stacked = [shape[axis] for axis in layout.stacked]
    rest = [size for axis, size in enumerate(shape) if axis not in layout.stacked]
    return jnp.moveaxis(layers.reshape(stacked + rest), range(len(stacked)), layout.stacked)


def map_layers(f: Callable[..., Any], layout: Layout | None, *leaves: jax.Array) -> Any:
    """Maps `f` over the layers of stacked leaves; others are one layer.

    Results with the shape of a layer are put back in place of the layers; others are stacked along
    a new first axis.

    >>> layout, leaf = Layout((1,), (2,), stacked=(0,)), jnp.array([[[1.0, 3.0]], [[2.0, 2.0]]])
    >>> map_layers(jnp.sum, layout, leaf).tolist()
    [4.0, 4.0]
    >>> map_layers(lambda w: w / w.sum(), layout, leaf).tolist()
    [[[0.25, 0.75]], [[0.5, 0.5]]]
    """
    if layout is None or not layout.stacked:
        return f(*leaves)
    shape, layers = leaves[0].shape, [to_layers(leaf, layout) for leaf in leaves]

    def back(out: jax.Array) -> jax.Array:
        return from_layers(out, layout, shape) if out.shape == layers[0].shape else out

    return jax.tree.map(back, jax.vmap(f)(*layers))


Layouts = Mapping[str, Layout]
"""Leaf name, as in `trees.names`, to layout; absent leaves have none."""

DENSE = Layout(inputs=(0,), outputs=(1,))
"""A dense kernel `(inputs, outputs)` of Flax or Haiku; an embedding `(entries, features)`."""


def conv(dimensions: int) -> Layout:
    """The kernel of a Flax or Haiku convolution: `(*window, inputs per group, outputs)`.

    >>> conv(2)
    Layout(inputs=(2,), outputs=(3,), window=(0, 1))
    """
    return Layout((dimensions,), (dimensions + 1,), tuple(range(dimensions)))


_TWO_AXES = re.compile(r"(?:|.*_)kernel(?:_\d+)?|w|embeddings?|positions|pos(?:ition)?_embedding")


def resolve(params: Any, layouts: Layouts | None = None) -> dict[str, Layout]:
    """The known layouts: the given ones, else those that a leaf's name determines.

    A leaf of two axes called `kernel`, `*_kernel` or `w` is `(inputs, outputs)` in Flax, Haiku and
    Keras, and an `embedding` is `(entries, features)`. Other names are ambiguous: in Equinox and
    PyTorch a `weight` is `(outputs, inputs)`, and three axes or more have several meanings.

    Args:
      params: tree of arrays.
      layouts: leaf name to layout.

    Raises:
      ValueError: if `layouts` has a leaf that `params` does not have, or a layout with another
        number of axes than its leaf.

    >>> resolve({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)})
    {'kernel': Layout(inputs=(0,), outputs=(1,))}
    """
    shapes = {name: leaf.shape for name, leaf in trees.to_named(params).items()}
    for name, layout in (layouts or {}).items():
        if name not in shapes:
            raise ValueError(
                f"`layouts` names the leaf '{name}', but the leaves are {list(shapes)[:5]}."
            )
        if len(layout.order) != len(shapes[name]):
            raise ValueError(
                f"`layouts` at '{name}' has {len(layout.order)} axes, but the leaf has shape "
                f"{shapes[name]}."
            )
    named = {
        name: DENSE
        for name, shape in shapes.items()
        if len(shape) == 2 and _TWO_AXES.fullmatch(name.rpartition("/")[2])
    }
    return {**named, **(layouts or {})}


def require(layouts: Layouts, name: str, shape: tuple[int, ...], purpose: str) -> Layout:
    """The layout of a leaf.

    Args:
      layouts: result of `resolve`.
      name: name of the leaf.
      shape: shape of the leaf, for the message.
      purpose: the use of the layout, for the message.

    Raises:
      ValueError: if the layout is not known.
    """
    if name not in layouts:
        raise ValueError(
            f"{purpose} needs the layout of '{name}', of shape {shape}: which of its axes are "
            "inputs and outputs; pass `layouts` (from lth_jax.layouts.of_linen, of_nnx, "
            "of_equinox, of_haiku or by_name), or mark the leaf as not prunable."
        )
    return layouts[name]


def by_name(params: Any, rules: Mapping[str, Layout]) -> dict[str, Layout]:
    """Layouts from patterns of leaf names; the first matching pattern is used.

    Args:
      params: tree of arrays.
      rules: shell-style pattern (`*`, `?`, `[...]`) to layout.

    Raises:
      ValueError: if a pattern matches no leaf, or a layout has another number of axes than its
        leaf.

    >>> params = {"query": {"kernel": jnp.zeros((8, 2, 4)), "bias": jnp.zeros((2, 4))}}
    >>> by_name(params, {"*/kernel": Layout((0,), (1, 2), heads=(1,))})["query/kernel"].inputs
    (0,)
    """
    names = trees.names(params)
    for pattern in rules:
        if not fnmatch.filter(names, pattern):
            raise ValueError(
                f"`rules` has the pattern {pattern!r}, which matches none of the leaves {names}."
            )
    found = {}
    for name in names:
        fits = [layout for rule, layout in rules.items() if fnmatch.fnmatchcase(name, rule)]
        if fits:
            found[name] = fits[0]
    return {name: layout for name, layout in resolve(params, found).items() if name in found}
