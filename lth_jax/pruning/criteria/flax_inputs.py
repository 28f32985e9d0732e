"""Squared inputs of the linear layers of Linen and NNX networks, for Wanda.

Flax is imported inside the functions, so that importing the transforms does not load it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.pruning.criteria.activations import Inputs, squared_inputs

COLLECTION = "squared_inputs"
"""The Linen collection into which the layers sow."""


def linen_inputs(forward: Callable[..., Any], layers: tuple[Any, ...] | None = None) -> Inputs:
    """The inputs of a Linen network's linear layers, by `flax.linen.intercept_methods`.

    Each call of a linear layer sows its sums into the collection `"squared_inputs"`. Lifted loops
    (`nn.scan`, `nn.vmap`) must carry this collection (`variable_axes={"squared_inputs": 0}`).

    Args:
      forward: `forward(params, batch, mutable=...)`: applies the module and passes `mutable` on,
        for instance `lambda params, batch, **kw: module.apply({"params": params}, batch.x, **kw)`.
        `params` must be the whole collection, so that names agree.
      layers: the classes of layers to read, linear in their parameters; by default Linen's Dense,
        DenseGeneral, Einsum, Conv, ConvTranspose and Embed.

    Returns:
      `(params, batch) -> {leaf name: Σ x²}` for `wanda`.

    Example:
      >>> from flax import linen as nn
      >>> module, x = nn.Sequential([nn.Dense(2), nn.relu, nn.Dense(1)]), jnp.array([[3.0, 1.0]])
      >>> params = module.init(jax.random.key(0), x)["params"]
      >>> forward = lambda params, x, **kw: module.apply({"params": params}, x, **kw)
      >>> linen_inputs(forward)(params, x)["layers_0/kernel"].tolist()
      [[9.0, 9.0], [1.0, 1.0]]
    """
    from flax import linen as nn

    linear = (nn.Dense, nn.DenseGeneral, nn.Einsum, nn.Conv, nn.ConvTranspose, nn.Embed)
    layers = linear if layers is None else layers

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module: Any = context.module
        # The collection is not mutable inside `_linen_sums`, which ends the recursion.
        watched = module.scope is not None and module.scope.is_mutable_collection(COLLECTION)
        if watched and isinstance(module, layers) and context.method_name == "__call__":
            for name, leaf in _linen_sums(module, args, kwargs).items():
                module.sow(COLLECTION, name, leaf, init_fn=lambda: 0.0, reduce_fn=jnp.add)
        return call(*args, **kwargs)

    def inputs(params: Any, batch: Any) -> dict[str, jax.Array]:
        with nn.intercept_methods(intercept):
            _, variables = forward(params, batch, mutable=[COLLECTION])
        sums = variables.get(COLLECTION, {})
        return dict(zip(trees.names(sums), jax.tree.leaves(sums), strict=True))

    return inputs


def nnx_inputs(
    call: Callable[[Any, Any], Any],
    graphdef: Any,
    *rest: Any,
    layers: tuple[Any, ...] | None = None,
) -> Inputs:
    """The inputs of an NNX network's linear layers, recorded by subclasses of these layers.

    Each batch merges a copy of the model and replaces the class of its linear layers by a subclass
    that records their sums. The caller's model is not changed.

    Args:
      call: `call(model, batch)`, for instance `lambda model, batch: model(batch.x)`.
      graphdef: the first of `nnx.split(model, nnx.Param, ...)`.
      *rest: the further results of that split, after the parameters.
      layers: the classes of layers to read, linear in their parameters; by default NNX's Linear,
        LinearGeneral, Einsum, Conv, ConvTranspose and Embed.

    Returns:
      `(params, batch) -> {leaf name: Σ x²}` for `wanda`.

    Example:
      >>> from flax import nnx
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> graphdef, params = nnx.split(model, nnx.Param)
      >>> inputs = nnx_inputs(lambda model, x: model(x), graphdef)
      >>> inputs(params, jnp.array([[3.0, 1.0]]))["kernel"].tolist()
      [[9.0], [1.0]]
    """
    from flax import nnx

    linear = (nnx.Linear, nnx.LinearGeneral, nnx.Einsum, nnx.Conv, nnx.ConvTranspose, nnx.Embed)
    layers = linear if layers is None else layers

    def inputs(params: Any, batch: Any) -> dict[str, jax.Array]:
        model = nnx.merge(graphdef, params, *rest, copy=True)
        watched = {}
        for path, module in nnx.iter_modules(model):
            if isinstance(module, layers):
                module.__class__ = _recording(type(module))
                watched["/".join(map(str, path))] = module
        call(model, batch)
        return {
            f"{path}/{name}".lstrip("/"): leaf
            for path, module in watched.items()
            if hasattr(module, "recorded_inputs")
            for name, leaf in module.recorded_inputs.get_value().items()
        }

    return inputs


def _linen_sums(module: Any, args: Any, kwargs: Any) -> dict[str, jax.Array]:
    """`squared_inputs` of a bound Linen layer, computed in float32 whatever its own dtype."""
    layer, variables = module.unbind()
    layer = layer.clone(dtype=jnp.float32) if hasattr(layer, "dtype") else layer
    return squared_inputs(
        lambda weights, x: layer.apply({"params": weights}, x, *args[1:], **kwargs),
        variables["params"],
        args[0],
    )


def _recording(layer: type) -> type:
    """The subclass of an NNX layer that adds squared inputs to the variable `recorded_inputs`."""
    from flax import nnx

    def call(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        sums = _nnx_sums(layer, self, x, args, kwargs)
        if hasattr(self, "recorded_inputs"):  # an earlier call in this pass: inputs add up
            sums = jax.tree.map(jnp.add, sums, self.recorded_inputs.get_value())
        # A variable, because only variables leave a transformed call such as nnx.remat.
        self.recorded_inputs = nnx.Intermediate(sums)
        return layer.__call__(self, x, *args, **kwargs)

    return type(layer.__name__, (layer,), {"__call__": call})


def _nnx_sums(layer: type, module: Any, x: Any, args: Any, kwargs: Any) -> dict[str, jax.Array]:
    """`squared_inputs` of an NNX layer, computed in float32 whatever its own dtype."""
    from flax import nnx

    graphdef, params, *rest = nnx.split(module, nnx.Param, ...)

    def run(weights: Any, x: Any) -> Any:
        copy = nnx.merge(graphdef, weights, *rest, copy=True)
        copy.dtype = jnp.float32
        return layer.__call__(copy, x, *args, **kwargs)

    return squared_inputs(run, nnx.as_pure(params), x)
