"""Flax modules as `Model`s: two pure functions, all that the rest of the laboratory ever sees."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from flax import nnx
from flax.errors import InvalidRngError

from lth_jax.types import Key, Model, Params


def from_linen(module: nn.Module) -> Model:
    """A Linen module as a `Model`.

    `params` is the plain dictionary of the 'params' collection; `state` holds every other
    collection by its name (`{}` without any) and is updated only while training. `key` feeds
    every random stream, Dropout's among them.

    Args:
      module: an unbound module whose `__call__(x, *, train)` tells training from evaluation.

    Raises:
      TypeError: if `module` is not a Linen module or its call takes no `train`.
      ValueError: from `apply` with `train=True` and no `key`, if the module draws numbers.

    >>> from lth_jax.models.mlp import MLP
    >>> model = from_linen(MLP((4, 2)))
    >>> x = jax.numpy.ones((3, 5))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> logits, state = model.apply(params, state, x, train=False)
    >>> logits.shape
    (3, 2)
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"`module` must be a flax.linen.Module, got {type(module).__name__}.")
    _check_takes_train(module)

    def init(key: Key, x: Any) -> tuple[Params, Any]:
        state = dict(module.init(key, x, train=False))
        return state.pop("params", {}), state

    def apply(
        params: Params, state: Any, x: Any, *, key: Key | None = None, train: bool
    ) -> tuple[Any, Any]:
        variables = {"params": params, **state}
        if not train:
            return module.apply(variables, x, train=False), state
        try:
            out, changed = module.apply(variables, x, train=True, rngs=key, mutable=list(state))
        except InvalidRngError as error:
            raise ValueError(f"`key` must be given with `train=True`: {error}") from error
        return out, {**state, **changed}

    return Model(init, apply)


def _check_takes_train(module: nn.Module) -> None:
    parameters = inspect.signature(module.__call__).parameters.values()
    if not any(p.name == "train" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise TypeError(
            f"`module` must take the keyword `train` when called, but {type(module).__name__} "
            f"takes only {[p.name for p in parameters]}."
        )


def from_nnx(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """An NNX module as a `Model`.

    `params` is the plain dictionary of all `nnx.Param`s and `state` that of the other variables,
    save random streams: these are not carried but made anew from `key` in every training call,
    one for each stream in the module. So members that differ in nothing but their key still draw
    their own dropout masks, and no two layers share one. `module.train()` and `module.eval()`
    switch the modes, on the module itself and below.

    Args:
      build: makes the module from its random streams, for example
        `lambda rngs: nnx.Linear(4, 2, rngs=rngs)`; it is called once per `init`, and once for its
        shapes now.

    Raises:
      TypeError: if `build` does not return an NNX module.
      ValueError: from `apply` with `train=True` and no `key`, if the module holds streams.

    >>> model = from_nnx(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
    >>> params, state = model.init(jax.random.key(0), jax.numpy.ones((1, 4)))
    >>> jax.tree.map(jax.numpy.shape, params), state
    ({'bias': (2,), 'kernel': (4, 2)}, {})
    """
    shapes = nnx.eval_shape(lambda key: build(nnx.Rngs(key)), jax.eval_shape(jax.random.key, 0))
    if not isinstance(shapes, nnx.Module):
        raise TypeError(f"`build` must return an nnx.Module, got {type(shapes).__name__}.")
    structure, param_shapes, stream_shapes, state_shapes = _split(shapes)

    def init(key: Key, x: Any) -> tuple[Params, Any]:
        del x
        _, params, _, state = _split(build(nnx.Rngs(key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def apply(
        params: Params, state: Any, x: Any, *, key: Key | None = None, train: bool
    ) -> tuple[Any, Any]:
        module = nnx.merge(
            structure,
            _filled(param_shapes, params),
            _streams(stream_shapes, key) if train else stream_shapes,
            _filled(state_shapes, state),
        )
        if not train:
            module.eval()
            return module(x), state
        module.train()
        out = module(x)
        return out, nnx.to_pure_dict(_split(module)[3])

    return Model(init, apply)


def _split(module: nnx.Module) -> tuple[Any, ...]:
    """Structure, parameters, random streams and the rest, after what `sow` left is dropped."""
    nnx.pop(module, nnx.Intermediate)
    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _filled(shapes: Any, values: Any) -> Any:
    """A copy of the abstract NNX state `shapes`, filled from the plain dictionary `values`."""
    state = jax.tree.map(lambda leaf: leaf, shapes)
    nnx.replace_by_pure_dict(state, values)
    return state


def _streams(shapes: Any, key: Key | None) -> Any:
    """Fresh random streams: the i-th key is `fold_in(key, i)`, every count is zero."""
    leaves, structure = jax.tree.flatten(shapes)
    if not leaves:
        return shapes
    if key is None:
        raise ValueError("`key` must be given with `train=True`: the module holds random streams.")

    def fresh(i: int, leaf: Any) -> jax.Array:
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.fold_in(key, i) if is_key else jax.numpy.zeros(leaf.shape, leaf.dtype)

    return jax.tree.unflatten(structure, [fresh(i, leaf) for i, leaf in enumerate(leaves)])
