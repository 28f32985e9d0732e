"""Layouts from the types of layers, for Linen, NNX, Equinox and Haiku.

The frameworks are imported inside the functions, so that the transforms do not load them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.layouts.layout import DENSE, Layout, conv

Describe = Callable[[Any], dict[str, tuple[Layout, tuple[int, ...]]]]
"""`layer -> {parameter name: (layout, shape)}` of one layer without a stack."""

_TYPES: dict[type, Describe] = {}


def register(layer: type, describe: Describe) -> None:
    """Registers the layouts of a user's layer type, for `of_linen`, `of_nnx` and the others.

    It replaces an earlier registration of the type, and the library's own description of it,
    without a warning. Nothing is checked here: `of_linen` and the others raise the errors of
    `describe`.

    Args:
      layer: a class of Flax, Equinox or Haiku modules, or of Keras layers; subclasses are covered.
      describe: `layer -> {parameter name: (layout, shape)}`, with the shape without a stack (a
        shape with more axes then indicates a stack).

    Example:
      >>> class Scale: width = 3
      >>> register(Scale, lambda layer: {"w": (DENSE, (layer.width, layer.width))})
    """
    _TYPES[layer] = describe


def of_layer(layer: Any, known: Mapping[type, Describe]) -> dict[str, tuple[Layout, Any]]:
    """The layouts of a layer's kernels, by the first of its classes that is registered or known."""
    for kind in type(layer).__mro__:
        if kind in _TYPES or kind in known:
            return {**known, **_TYPES}[kind](layer)
    return {}


def _in_stack(layout: Layout, inner: tuple[int, ...], outer: tuple[int, ...]) -> Layout | None:
    """The layout of a leaf of shape `outer` that stacks kernels of shape `inner`.

    None if there is no position of the stacked axes, or several.
    """
    found: set[tuple[int, ...]] = set()

    def insert(shape: tuple[int, ...], axes: tuple[int, ...], start: int) -> None:
        if len(shape) == len(outer):
            if shape == outer:
                found.add(axes)
            return
        for axis in range(start, len(shape) + 1):
            if axis < len(outer):
                insert((*shape[:axis], outer[axis], *shape[axis:]), (*axes, axis), axis + 1)

    insert(inner, (), 0)
    if len(found) != 1:
        return None
    for axis in found.pop():
        layout = layout.with_stack(axis)
    return layout


def _collect(
    params: Any, layers: Iterator[tuple[str, dict[str, tuple[Layout, tuple[int, ...]]]]]
) -> dict[str, Layout]:
    """Leaf name to layout from `(prefix, {parameter: (layout, shape)})` of all layers."""
    shapes = {name: tuple(leaf.shape) for name, leaf in trees.to_named(params).items()}
    found: dict[str, Layout] = {}
    for prefix, described in layers:
        for parameter, (layout, inner) in described.items():
            name = f"{prefix}/{parameter}" if prefix else parameter
            placed = _in_stack(layout, tuple(inner), shapes[name]) if name in shapes else None
            if placed is not None:
                found[name] = placed
    return found


def _axes(*counts: int) -> list[tuple[int, ...]]:
    """Consecutive axes: `_axes(1, 2)` is `[(0,), (1, 2)]`."""
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [tuple(range(start, start + count)) for start, count in zip(starts, counts, strict=True)]


def general_layout(inputs: int, outputs: int, batch: int = 0) -> Layout:
    """A kernel `(*batch, *inputs, *outputs)`; of two input or output axes, the first is heads."""
    stacked, reads, makes = _axes(batch, inputs, outputs)
    heads = reads[:1] if inputs == 2 and outputs == 1 else ()
    heads = makes[:1] if outputs == 2 and inputs == 1 else heads
    return Layout(reads, makes, stacked=stacked, heads=heads)


def einsum_layout(equation: str, shape: tuple[int, ...]) -> Layout | None:
    """The kernel of `einsum(equation, x, kernel)`: its outputs are the remaining indices."""
    operands, _, result = equation.replace(" ", "").partition("->")
    kernel = operands.split(",")[-1].replace("...", "")
    if len(kernel) != len(shape) or not result:
        return None
    x = operands.split(",")[0]
    outputs = tuple(i for i, index in enumerate(kernel) if index in result and index not in x)
    # Each value of an index in all three operands is a separate layer.
    stacked = tuple(i for i, index in enumerate(kernel) if index in result and index in x)
    inputs = tuple(i for i, index in enumerate(kernel) if index not in result)
    return Layout(inputs, outputs, stacked=stacked)


def transposed_conv(dimensions: int, swapped: bool) -> Layout:
    """As `conv`, of a transposed convolution; `swapped`: `(*window, outputs, inputs)`."""
    window, second, last = _axes(dimensions, 1, 1)
    sides = (last, second) if swapped else (second, last)
    return Layout(*sides, window, kind="transposed")


def _gated(
    described: Mapping[str, tuple[Layout, tuple[int, ...]]],
) -> dict[str, tuple[Layout, tuple[int, ...]]]:
    """The layouts of a layer inside a gated recurrent cell."""
    return {name: (layout.of_kind("gated"), shape) for name, (layout, shape) in described.items()}


def of_linen(module: Any, *args: Any, **kwargs: Any) -> dict[str, Layout]:
    """The layouts of a Linen module's kernels, from the types of its layers.

    Evaluates `module.init` abstractly, without computing. Layers inside `nn.scan`, `nn.vmap` and
    `nn.remat` are found, and stacked axes from the difference of shapes. A leaf is omitted if its
    layer's type is not known (see `register`), or if more than one axis could be the stacked one.

    Args:
      module: an unbound Linen module.
      *args: arguments of its call; arrays or `jax.ShapeDtypeStruct`.
      **kwargs: static keywords of its call.

    Returns:
      Leaf name in the `params` collection to layout.

    >>> from flax import linen as nn
    >>> module = nn.MultiHeadDotProductAttention(num_heads=2)
    >>> of_linen(module, jnp.zeros((1, 3, 8)))["out/kernel"]
    Layout(inputs=(0, 1), outputs=(2,), heads=(0,))
    """

    def init(key: Any, *call_args: Any) -> Any:
        return module.init(key, *call_args, **kwargs).get("params", {})

    return of_linen_init(init, *args)


def of_linen_init(init: Callable[..., Any], *args: Any) -> dict[str, Layout]:
    """The layouts of a function that initialises Linen modules; see `of_linen`.

    Args:
      init: `(key, *args) -> params`, the `params` collection of its modules. A leaf that has
        another path than in that collection is omitted.
      *args: arrays or `jax.ShapeDtypeStruct`.

    Returns:
      Leaf name in the params to layout.

    Raises:
      ModuleNotFoundError: Flax is not installed. Errors of `init` are passed on.

    >>> from flax import linen as nn
    >>> init = lambda key, x: nn.Dense(2).init(key, x)["params"]
    >>> of_linen_init(init, jnp.zeros((1, 3)))
    {'kernel': Layout(inputs=(0,), outputs=(1,))}
    """
    from flax import linen as nn

    cells = (nn.LSTMCell, nn.OptimizedLSTMCell, nn.GRUCell, nn.MGUCell, nn.ConvLSTMCell)
    seen: dict[str, dict[str, tuple[Layout, Any]]] = {}
    known = _linen_types()

    def look(call: Any, call_args: Any, call_kwargs: Any, context: Any) -> Any:
        out = call(*call_args, **call_kwargs)
        layer = context.module
        described = of_layer(layer, known) if layer.scope is not None else {}
        if isinstance(layer.parent, cells):
            described = _gated(described)
        if described:
            held = layer.scope.variables().get("params", {})
            shapes = {name: leaf.shape for name, leaf in held.items() if hasattr(leaf, "shape")}
            # Inside a lifted transform, the shape is that of one layer.
            seen["/".join(layer.scope.path)] = {
                name: (layout, shapes[name])
                for name, (layout, _) in described.items()
                if name in shapes and len(layout.order) == len(shapes[name])
            }
        return out

    with nn.intercept_methods(look):
        params = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), *args)
    return _collect(params, iter(seen.items()))


def _linen_types() -> dict[type, Describe]:
    from flax import linen as nn
    from flax.linen import recurrent

    def named(parameter: str, make: Callable[[Any], Layout | None]) -> Describe:
        def describe(layer: Any) -> dict[str, tuple[Layout, Any]]:
            layout = make(layer)
            return {} if layout is None else {parameter: (layout, ())}

        return describe

    def count(value: Any) -> int:
        return len(value) if isinstance(value, (tuple, list)) else 1

    def window(layer: Any) -> int:
        return count(layer.kernel_size)

    return {
        nn.Dense: named("kernel", lambda layer: DENSE),
        recurrent.DenseParams: named("kernel", lambda layer: DENSE),
        nn.Embed: named("embedding", lambda layer: DENSE),
        nn.DenseGeneral: named(
            "kernel",
            lambda layer: general_layout(
                count(layer.axis), count(layer.features), len(tuple(layer.batch_dims))
            ),
        ),
        nn.Einsum: named(
            "kernel", lambda layer: einsum_layout(layer.einsum_str or "", layer.shape)
        ),
        nn.Conv: named("kernel", lambda layer: conv(window(layer))),
        nn.ConvTranspose: named(
            "kernel", lambda layer: transposed_conv(window(layer), layer.transpose_kernel)
        ),
    }


def of_nnx(module: Any, *args: Any, **kwargs: Any) -> dict[str, Layout]:
    """The layouts of an NNX module's kernels, from the types of its layers.

    Stacked axes, as by `nnx.vmap`, are found from the shapes that the layers' attributes imply. A
    leaf is omitted if its layer's type is not known (see `register`), or if more than one axis
    could be the stacked one.

    Args:
      module: an NNX module, also an abstract one (`nnx.eval_shape`).
      *args: ignored; accepted so that all `of_*` functions have one signature.
      **kwargs: ignored.

    Returns:
      Leaf name in `nnx.state(module, nnx.Param)` to layout.

    >>> from flax import nnx
    >>> of_nnx(nnx.Conv(3, 8, (5, 5), rngs=nnx.Rngs(0)))["kernel"] == conv(2)
    True
    """
    from flax import nnx

    del args, kwargs
    known: dict[type, Describe] = {
        nnx.Linear: lambda m: {"kernel": (DENSE, (m.in_features, m.out_features))},
        nnx.LinearGeneral: lambda m: {
            "kernel": (
                general_layout(len(m.in_features), len(m.out_features), len(m.batch_axis)),
                (*m.batch_axis.values(), *m.in_features, *m.out_features),
            )
        },
        nnx.Einsum: lambda m: present(
            "kernel", einsum_layout(m.einsum_str, m.kernel_shape), m.kernel_shape
        ),
        nnx.Embed: lambda m: {"embedding": (DENSE, (m.num_embeddings, m.features))},
        nnx.Conv: lambda m: {"kernel": (conv(len(m.kernel_shape) - 2), m.kernel_shape)},
        nnx.ConvTranspose: lambda m: {
            "kernel": (
                transposed_conv(len(m.kernel_shape) - 2, m.transpose_kernel),
                m.kernel_shape,
            )
        },
    }
    cells = (nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell)
    modules = dict(nnx.iter_modules(module))

    def layers() -> Iterator[tuple[str, Any]]:
        for path, layer in modules.items():
            described = of_layer(layer, known)
            inside = path and isinstance(modules.get(path[:-1]), cells)
            yield "/".join(map(str, path)), _gated(described) if inside else described

    return _collect(nnx.state(module, nnx.Param), layers())


def present(name: str, layout: Layout | None, shape: Any) -> dict[str, tuple[Layout, Any]]:
    """One kernel with its layout; nothing without a layout."""
    return {} if layout is None else {name: (layout, shape)}


def of_equinox(module: Any, *args: Any, **kwargs: Any) -> dict[str, Layout]:
    """The layouts of an Equinox module's kernels, from the types of its layers.

    Equinox's kernels are `(outputs, inputs, *window)`. Stacked axes, as by `eqx.filter_vmap`, are
    found from the shapes that the layers' attributes imply. Leaves are omitted as in `of_nnx`.

    Args:
      module: an Equinox module, whole, filtered to its arrays, or abstract.
      *args: ignored; accepted so that all `of_*` functions have one signature.
      **kwargs: ignored.

    Returns:
      Leaf name, as in `trees.names(eqx.filter(module, eqx.is_inexact_array))`, to layout.

    >>> import equinox as eqx
    >>> of_equinox(eqx.nn.Linear(3, 5, key=jax.random.key(0)))["weight"].outputs
    (0,)
    """
    import equinox as eqx

    del args, kwargs
    backward = Layout(inputs=(1,), outputs=(0,))

    def size(features: Any) -> int:
        return 1 if features == "scalar" else int(features)

    def window(layer: Any) -> dict[str, tuple[Layout, Any]]:
        outputs, inputs, spatial = _axes(1, 1, layer.num_spatial_dims)
        shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
        kind = "transposed" if isinstance(layer, eqx.nn.ConvTranspose) else ""
        return {"weight": (Layout(inputs, outputs, spatial, kind=kind), shape)}

    def gates(number: int) -> Describe:
        return lambda m: _gated(
            {
                "weight_ih": (backward, (number * m.hidden_size, m.input_size)),
                "weight_hh": (backward, (number * m.hidden_size, m.hidden_size)),
            }
        )

    known: dict[type, Describe] = {
        eqx.nn.Linear: lambda m: {
            "weight": (backward, (size(m.out_features), size(m.in_features)))
        },
        eqx.nn.Conv: window,
        eqx.nn.ConvTranspose: window,
        eqx.nn.Embedding: lambda m: {"weight": (DENSE, (m.num_embeddings, m.embedding_size))},
        eqx.nn.LSTMCell: gates(4),
        eqx.nn.GRUCell: gates(3),
    }
    registered = (*known, *_TYPES)

    def is_layer(node: Any) -> bool:
        return isinstance(node, registered)

    nodes = jax.tree_util.tree_leaves_with_path(module, is_leaf=is_layer)
    layers = (
        (trees.path_name(path), of_layer(node, known)) for path, node in nodes if is_layer(node)
    )
    # Not `eqx.filter(module, eqx.is_inexact_array)`, which drops `jax.ShapeDtypeStruct`.
    inexact = jax.tree.map(
        lambda leaf: (
            leaf if jnp.issubdtype(getattr(leaf, "dtype", jnp.int32), jnp.inexact) else None
        ),
        module,
    )
    return _collect(inexact, layers)


def of_haiku(init: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Layout]:
    """The layouts of a Haiku network's kernels, from the types of its layers.

    Evaluates `init` abstractly, without computing. Leaves are omitted as in `of_linen`.

    Args:
      init: the transformed network's `init`, `(key, *args) -> params` or `-> (params, state)`.
      *args: arguments of its call; arrays or `jax.ShapeDtypeStruct`.
      **kwargs: static keywords of its call.

    Returns:
      Leaf name, `module name/w`, to layout.

    Raises:
      ModuleNotFoundError: Haiku is not installed. Errors of `init` are passed on.

    >>> import haiku as hk
    >>> network = hk.transform(lambda x: hk.Linear(2)(x))
    >>> of_haiku(network.init, jnp.zeros((1, 3)))
    {'linear/w': Layout(inputs=(0,), outputs=(1,))}
    """
    import haiku as hk

    known: dict[type, Describe] = {
        hk.Linear: lambda m: {"w": (DENSE, ())},
        hk.Embed: lambda m: {"embeddings": (DENSE, ())},
        hk.ConvND: lambda m: {"w": (conv(m.num_spatial_dims), ())},
        hk.ConvNDTranspose: lambda m: {
            "w": (transposed_conv(m.num_spatial_dims, swapped=True), ())
        },
        hk.DepthwiseConv2D: lambda m: {"w": (conv(2), ())},
    }
    cells = (hk.LSTM, hk.Conv1DLSTM, hk.Conv2DLSTM, hk.Conv3DLSTM)  # GRU's leaves have no layout
    gated: set[str] = set()
    seen: dict[str, dict[str, tuple[Layout, Any]]] = {}

    def look(call: Any, call_args: Any, call_kwargs: Any, context: Any) -> Any:
        out = call(*call_args, **call_kwargs)
        described = of_layer(context.module, known)
        if isinstance(context.module, cells):
            gated.add(context.module.module_name)
        if described and context.method_name == "__call__":
            # Inside `hk.layer_stack`, the shape is that of one layer.
            held = {name.rpartition("/")[2]: p for name, p in context.module.params_dict().items()}
            seen[context.module.module_name] = {
                name: (layout, held[name].shape)
                for name, (layout, _) in described.items()
                if name in held and held[name].ndim == len(layout.order)
            }
        return out

    def start(key: Any, *call_args: Any) -> Any:
        with hk.intercept_methods(look):
            out = init(key, *call_args, **kwargs)
        return out[0] if isinstance(out, tuple) else out

    params = jax.eval_shape(start, jax.eval_shape(lambda: jax.random.key(0)), *args)
    # `hk.layer_stack` initialises a layer under its own name, without that of the stack.
    layers = (
        (whole, _gated(seen[own]) if own.rpartition("/")[0] in gated else seen[own])
        for whole in params
        for own in (whole, *[name for name in seen if whole.endswith(f"/{name}")][:1])
        if own in seen
    )
    return _collect(params, layers)
