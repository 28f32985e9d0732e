"""Intermediate values of Linen networks, outside of the `Model` interface."""

from typing import Any

import jax
from flax import linen as nn

from lth_jax import trees
from lth_jax.types import Params

INTERMEDIATES = "intermediates"
"""The collection in which Linen stores sown and captured values."""


def attention_probabilities(
    module: nn.Module, params: Params, state: Any, x: Any
) -> dict[str, jax.Array]:
    """The attention probabilities of every layer of a network, in evaluation.

    Args:
      module: a network of `transformer.Attention` layers, or of others that sow `probabilities`.
      params: its parameters, as from `Model.init`.
      state: its other collections, as from `Model.init`.
      x: a batch of inputs.

    Returns:
      `{name of the attention layer: (batch, heads, queries, keys)}`, ordered by name; the sum over
      the keys is 1.

    Raises:
      ValueError: if the network sows no probabilities.

    >>> from functools import partial
    >>> from lth_jax.models.adapters import from_linen
    >>> from lth_jax.models.transformer import Transformer
    >>> module = Transformer(width=8, heads=2, layers=1, vocabulary=3, causal=True)
    >>> x = jax.numpy.array([[0, 2, 1]])
    >>> params, state = jax.eval_shape(from_linen(module).init, jax.random.key(0), x)
    >>> found = jax.eval_shape(partial(attention_probabilities, module), params, state, x)
    >>> {name: p.shape for name, p in found.items()}
    {'TransformerBlock_0/Attention_0': (1, 2, 3, 3)}
    """
    variables = {"params": params, **state}
    _, changed = module.apply(variables, x, train=False, mutable=[INTERMEDIATES])
    named = trees.to_named(changed.get(INTERMEDIATES, {}))
    found = {
        name.removesuffix("/probabilities/0"): value
        for name, value in named.items()
        if name.endswith("/probabilities/0")
    }
    if not found:
        raise ValueError(
            f"`module` must sow attention probabilities, but {type(module).__name__} sows "
            f"{sorted(named)}."
        )
    return found


def layer_outputs(
    module: nn.Module,
    params: Params,
    state: Any,
    x: Any,
    layers: tuple[type[nn.Module], ...] = (nn.Dense, nn.Conv),
) -> dict[str, jax.Array]:
    """The outputs of the layers of some classes, in evaluation.

    Args:
      module: a network whose call takes `train`.
      params: its parameters, as from `Model.init`.
      state: its other collections, as from `Model.init`.
      x: a batch of inputs.
      layers: classes of layers. Those before a ReLU show which units are dead (with BatchNorm in
        between, `(nn.BatchNorm,)`).

    Returns:
      `{name of the layer: (batch, ..., units)}`, ordered by name; the first output of a layer that
      is called several times. Layers whose output is not one array are left out; without a layer
      of these classes it is empty.

    Raises:
      TypeError: the call of `module` does not take `train`.
      flax.errors.FlaxError: `params` or `state` does not fit `module` and `x`.

    >>> from lth_jax.models.adapters import from_linen
    >>> from lth_jax.models.mlp import MLP
    >>> module, x = MLP((4, 2)), jax.numpy.ones((3, 5))
    >>> params, state = from_linen(module).init(jax.random.key(0), x)
    >>> {name: out.shape for name, out in layer_outputs(module, params, state, x).items()}
    {'Dense_0': (3, 4), 'Dense_1': (3, 2)}
    """
    _, changed = module.apply(
        {"params": params, **state},
        x,
        train=False,
        mutable=[INTERMEDIATES],
        capture_intermediates=lambda layer, method: (
            isinstance(layer, layers) and method == "__call__"
        ),
    )
    named = trees.to_named(changed.get(INTERMEDIATES, {}))
    return {
        name.removesuffix("/__call__/0"): value
        for name, value in named.items()
        if name.endswith("/__call__/0")
    }
