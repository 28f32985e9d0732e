"""Converts Haiku's pairs of pure functions to `Model`s; Haiku is not imported."""

import inspect
from typing import Any

from lth_jax import layouts
from lth_jax.models.adapters.calls import (
    AUTO,
    Output,
    bind_axes,
    chosen_output,
    needs_key,
    read_call,
)
from lth_jax.types import Key, Model, Params


def from_haiku(transformed: Any, *, flag: str = AUTO, output: Output | None = None) -> Model:
    """Converts the result of `hk.transform` or `hk.transform_with_state` to a `Model`.

    `params` and `state` are Haiku's own dictionaries (`state` is `{}` without `_with_state`, and is
    updated only during training); `key` is Haiku's `rng`. `init` calls the function in training
    mode, as Haiku's BatchNorm requires. Flags and unbound axes (`cross_replica_axis`) are treated
    as in `from_linen`.

    Args:
      transformed: has `init(rng, x)` and `apply(params, [state,] [rng,] x)`, with these argument
        names; `hk.without_apply_rng` leaves `rng` out.
      flag: the name of the function's flag for training or evaluation; `"auto"` reads it from the
        signature; `"none"` if there is none.
      output: applied to the function's result; required if that is a tuple.

    Raises:
      TypeError: if `transformed` has no such functions, or the network requires more arguments;
        from `apply`, if it returns a tuple without `output`.
      ValueError: if the signature has several flags, or `**kwargs` alone, and `flag` is `"auto"`;
        from `apply`, if the function draws random numbers without a `key`.

    >>> import haiku as hk, jax
    >>> model = from_haiku(hk.transform(lambda x: hk.Linear(2)(x)))
    >>> x = jax.numpy.ones((3, 4))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> model.apply(params, state, x, train=False)[0].shape, state
    ((3, 2), {})
    """
    name = "`transformed`"
    if not (callable(getattr(transformed, "init", None)) and hasattr(transformed, "apply")):
        raise TypeError(
            f"{name} must be what hk.transform returns, got {type(transformed).__name__}."
        )
    names = list(inspect.signature(transformed.apply).parameters)
    has_state = type(transformed).__name__ != "Transformed" and names[1:2] == ["state"]
    has_rng = names[1 + has_state : 2 + has_state] == ["rng"]
    call = read_call(transformed.apply, name=name, flag=flag, inputs=2 + has_state + has_rng)

    def init(key: Key, x: Any) -> tuple[Params, Any]:
        found = bind_axes(lambda: transformed.init(key, x, **call.mode(train=True)))
        return found if has_state else (found, {})

    def apply(
        params: Params, state: Any, x: Any, *, key: Key | None = None, train: bool
    ) -> tuple[Any, Any]:
        leading = [params, *([state] if has_state else []), *([key] if has_rng else [])]
        try:
            found = bind_axes(lambda: transformed.apply(*leading, x, **call.mode(train)))
        except ValueError as error:
            if key is None and "PRNGKey" in str(error):  # Haiku 0.0.17
                raise needs_key(name, error, train) from error
            raise
        out, moved = found if has_state else (found, state)
        return chosen_output(out, output, name), moved if train else state

    def kernel_layouts(x: Any) -> layouts.Layouts:
        return layouts.of_haiku(lambda key, x: init(key, x)[0], x)

    return Model(init=init, apply=apply, layouts=kernel_layouts)
