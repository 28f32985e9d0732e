"""Converts NNX modules to `Model`s."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from lth_jax import layouts
from lth_jax.models.adapters.calls import AUTO, Output, bind_axes, chosen_output, read_call
from lth_jax.types import Key, Model, Params


def from_nnx(
    build: Callable[[nnx.Rngs], nnx.Module], *, flag: str = AUTO, output: Output | None = None
) -> Model:
    """Converts an NNX module to a `Model`.

    `params` is a plain dictionary of all `nnx.Param`s, and `state` one of the other variables
    except random streams. Every training call makes its streams from `key`: the i-th stream gets
    `fold_in(key, i)`, and one stacked by `nnx.vmap` or `nnx.split_rngs` gets a split of it. So
    members that differ only in their key draw different dropout masks, and so do the layers of one
    network. In evaluation without `key`, every stream has a constant key.

    `module.train()` and `module.eval()` switch the mode of the module and its submodules, and set
    the attributes `training` and `is_training`. If the call takes a flag (`train`, `training`,
    `is_training`, `deterministic`, `use_running_average`, `inference`), it is passed as well. If
    the call takes `rngs`, it gets an `nnx.Rngs` in training, and in evaluation if it requires one.

    An axis name that no caller binds (`nnx.BatchNorm(axis_name="batch")`) is bound to an axis of
    size 1: the statistics are those of the whole batch.

    Args:
      build: makes the module from its random streams, for example `lambda rngs: nnx.Linear(4, 2,
        rngs=rngs)`; it is called once per `init`, and once here for the shapes.
      flag: the flag's name; `"auto"` reads it from the signature; `"none"` if there is none.
      output: applied to the module's result; required if that is a tuple.

    Raises:
      TypeError: if `build` does not return an NNX module, or the module requires more arguments
        than one input; from `apply`, if the module returns a tuple and there is no `output`.
      ValueError: if the call takes several flags and `flag` is `"auto"`; from `apply` with
        `train=True` and no `key`, if the module has streams or requires `rngs`.

    >>> model = from_nnx(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
    >>> params, state = model.init(jax.random.key(0), jax.numpy.ones((1, 4)))
    >>> jax.tree.map(jax.numpy.shape, params), state
    ({'bias': (2,), 'kernel': (4, 2)}, {})
    """
    shapes = nnx.eval_shape(lambda key: build(nnx.Rngs(key)), jax.eval_shape(jax.random.key, 0))
    if not isinstance(shapes, nnx.Module):
        raise TypeError(f"`build` must return an nnx.Module, got {type(shapes).__name__}.")
    name = type(shapes).__name__
    call = read_call(
        shapes.__call__, name=name, flag=flag, given=("rngs",), keywords_are_flags=False
    )
    structure, param_shapes, stream_shapes, state_shapes = _split(shapes)
    has_streams = bool(jax.tree.leaves(stream_shapes))
    with jax.ensure_compile_time_eval():  # constants, no operations of an evaluation's trace
        constant = jax.random.key(0)
        constant_streams = _streams(stream_shapes, constant)

    def init(key: Key, x: Any) -> tuple[Params, Any]:
        del x
        _, params, _, state = _split(build(nnx.Rngs(key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def keywords(key: Key | None, train: bool) -> dict[str, Any]:
        found: dict[str, Any] = call.mode(train)
        if "rngs" in call.required or (call.takes("rngs") and key is not None):
            found["rngs"] = nnx.Rngs(constant if key is None else _next(stream_shapes, key))
        return found

    def apply(
        params: Params, state: Any, x: Any, *, key: Key | None = None, train: bool
    ) -> tuple[Any, Any]:
        if train and key is None and (has_streams or "rngs" in call.required):
            raise ValueError(f"`key` must be given with `train=True`: {name} has random streams.")

        def run() -> tuple[Any, Any]:
            streams = constant_streams if key is None else _streams(stream_shapes, key)
            module = nnx.merge(
                structure,
                _filled(param_shapes, params),
                jax.tree.map(lambda leaf: leaf, streams),  # modules modify them in place
                _filled(state_shapes, state),
            )
            modes = {"training": train, "is_training": train}
            (module.train if train else module.eval)(**modes)
            out = module(x, **keywords(key, train))
            return out, nnx.to_pure_dict(_split(module)[3]) if train else state

        out, state = bind_axes(run)
        return chosen_output(out, output, name), state

    return Model(init=init, apply=apply, layouts=lambda x: layouts.of_nnx(shapes))


def _split(module: nnx.Module) -> tuple[Any, ...]:
    """Splits off structure, parameters, random streams and the rest; drops sown values."""
    nnx.pop(module, nnx.Intermediate)
    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _filled(shapes: Any, values: Any) -> Any:
    """A copy of the abstract NNX state `shapes` with the values of a plain dictionary."""
    state = jax.tree.map(lambda leaf: leaf, shapes)
    nnx.replace_by_pure_dict(state, values)
    return state


def _streams(shapes: Any, key: Key) -> Any:
    """Random streams: the i-th key is `fold_in(key, i)` or a split of it; every count is zero."""
    leaves, structure = jax.tree.flatten(shapes)

    def fresh(i: int, leaf: Any) -> jax.Array:
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.numpy.zeros(leaf.shape, leaf.dtype)
        one = jax.random.fold_in(key, i)
        return jax.random.split(one, leaf.shape) if leaf.shape else one

    return jax.tree.unflatten(structure, [fresh(i, leaf) for i, leaf in enumerate(leaves)])


def _next(shapes: Any, key: Key) -> Key:
    """The key that follows those of the streams."""
    return jax.random.fold_in(key, len(jax.tree.leaves(shapes)))
