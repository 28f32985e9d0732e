"""Converts Equinox modules to `Model`s; Equinox is imported on use."""

from collections.abc import Callable
from typing import Any

import jax

from lth_jax import layouts, trees
from lth_jax.models.adapters.calls import (
    AUTO,
    Output,
    bind_axes,
    chosen_output,
    needs_key,
    read_call,
)
from lth_jax.types import Key, Model, Params


def from_equinox(
    make: Callable[[Key], Any],
    *,
    batched: bool = False,
    flag: str = AUTO,
    output: Output | None = None,
) -> Model:
    """Converts an Equinox module to a `Model`.

    `params` is the module with its inexact arrays alone, `eqx.filter(module,
    eqx.is_inexact_array)`, so that `eqx.combine(params, module)` is the trained module. `state`
    holds all other arrays, those of an `eqx.nn.State` and integers, by name (`{}` without any); the
    arrays of the `State` are updated during training.

    An Equinox module is called with one example, so it is mapped over the first axis of `x`, under
    the `axis_name` that its BatchNorm layers name. If its call takes `key`, each example gets a
    split of `key`. `eqx.nn.inference_mode` switches the mode, and a flag that the call takes
    (`inference`, `train`, `training`, `is_training`, `deterministic`) is passed as well.

    Args:
      make: `key -> module`, or `key -> (module, state)` by `eqx.nn.make_with_state`; it is
        called once per `init`, and once here for the shapes.
      batched: whether the module takes the whole batch and maps over it itself; `key` is then not
        split.
      flag: the flag's name; `"auto"` reads it from the signature; `"none"` if there is none.
      output: applied to the module's result for the batch, without the `State`; required if the
        result is a tuple.

    Raises:
      TypeError: if `make` does not return an Equinox module, or the module requires more arguments;
        from `apply`, if the module returns a tuple and there is no `output`.
      ValueError: if a stateful module has no `State`, its layers name several axes, or the call
        takes several flags and `flag` is `"auto"`; from `apply`, if the module draws random numbers
        without a `key`, or examples differ in their new `State`.

    >>> import equinox as eqx
    >>> model = from_equinox(lambda key: eqx.nn.MLP(4, 2, width_size=8, depth=1, key=key))
    >>> x = jax.numpy.ones((3, 4))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> model.apply(params, state, x, train=False)[0].shape, state
    ((3, 2), {})
    """
    import equinox as eqx

    made = eqx.filter_eval_shape(make, jax.eval_shape(jax.random.key, 0))
    shapes, stats = _module_and_state(eqx, made)
    name, stateful = type(shapes).__name__, stats is not None
    call = read_call(
        shapes.__call__,
        name=name,
        flag=flag,
        inputs=1 + stateful,
        given=("key",),
        own_flag="inference",  # Dropout of Equinox 0.13 also accepts its old flag `deterministic`
        keywords_are_flags=False,
    )
    axis = _axis_name(shapes, name)
    # JAX 0.10 compares the static fields of two structures, so all trees use those of one module.
    like, rest = eqx.partition(shapes, _is_inexact)
    arrays, static = eqx.partition(rest, _is_array)
    others = {"state": stats, "arrays": arrays}

    def init(key: Key, x: Any) -> tuple[Params, Any]:
        del x
        module, state = _module_and_state(eqx, make(key))
        found = {"state": state, "arrays": eqx.filter(module, _is_other_array)}
        params = jax.tree.leaves(eqx.filter(module, _is_inexact))
        return jax.tree.unflatten(jax.tree.structure(like), params), trees.to_named(found)

    def apply(
        params: Params, state: Any, x: Any, *, key: Key | None = None, train: bool
    ) -> tuple[Any, Any]:
        if train and key is None and "key" in call.required:
            raise ValueError(f"`key` must be given with `train=True`: {name} requires it.")
        carried = trees.from_named(state, others)
        module = eqx.combine(params, carried["arrays"], static)
        module = eqx.nn.inference_mode(module, value=not train)

        def one(x: Any, stats: Any, key: Key | None) -> tuple[Any, Any]:
            keywords = call.mode(train) | ({"key": key} if call.takes("key") else {})
            return module(x, stats, **keywords) if stateful else (module(x, **keywords), None)

        def run() -> tuple[Any, Any]:
            if batched:  # a copy, because `State.set` invalidates the old object
                return one(x, jax.tree.map(lambda leaf: leaf, carried["state"]), key)
            size = jax.tree.leaves(x)[0].shape[0]
            keys = None if key is None else jax.random.split(key, size)
            over = jax.vmap(one, in_axes=(0, None, 0), out_axes=(0, None), axis_name=axis)
            return over(x, carried["state"], keys)

        try:
            out, moved = bind_axes(run)
        except RuntimeError as error:
            if key is None and "requires a key" in str(error):  # Equinox 0.13
                raise needs_key(name, error, train) from error
            raise
        except ValueError as error:
            if stateful and "out_axes" in str(error):
                raise ValueError(
                    f"{name} computes a separate `State` for each example; average it over "
                    f"the batch with `jax.lax.pmean`, or use `batched=True`: {error}"
                ) from error
            raise
        carried["state"] = moved if train else carried["state"]
        return chosen_output(out, output, name), trees.to_named(carried) if train else state

    return Model(init=init, apply=apply, layouts=lambda x: layouts.of_equinox(shapes))


def _is_inexact(leaf: Any) -> bool:
    return _is_array(leaf) and jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact)


def _is_other_array(leaf: Any) -> bool:
    return _is_array(leaf) and not _is_inexact(leaf)


def _is_array(leaf: Any) -> bool:
    """Whether a leaf is an array or a shape; `eqx.is_array` is false for shapes."""
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


def _module_and_state(eqx: Any, made: Any) -> tuple[Any, Any]:
    module, state = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not (isinstance(module, eqx.Module) and callable(module)):
        raise TypeError(f"`make` must return a callable eqx.Module, got {type(module).__name__}.")
    if state is None and any(isinstance(one, eqx.nn.StateIndex) for one in _nodes(module)):
        raise ValueError(
            f"`make` must return a module and its `State`: use "
            f"`eqx.nn.make_with_state({type(module).__name__})`."
        )
    return module, state


def _nodes(tree: Any) -> list[Any]:
    """All nodes of a tree that are Python objects with attributes."""
    found: list[Any] = []

    def collect(node: Any) -> bool:
        found.append(node)
        return False

    jax.tree.leaves(tree, is_leaf=collect)
    return found


def _axis_name(module: Any, name: str) -> Any:
    """The axis name of the module's layers, or None."""
    found = [getattr(node, "axis_name", None) for node in _nodes(module)]
    named = list(dict.fromkeys(one for one in found if one is not None))
    if len(named) > 1:
        raise ValueError(
            f"{name} names the axes {', '.join(map(repr, named))}, but examples have one batch "
            f"axis; give all layers one `axis_name`."
        )
    return named[0] if named else None
