"""Converts Linen modules to `Model`s."""

import dataclasses
import re
import zlib
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from flax.errors import InvalidRngError, ModifyScopeVariableError

from lth_jax import layouts
from lth_jax.models.adapters.calls import (
    AUTO,
    FLAGS,
    Call,
    Output,
    bind_axes,
    chosen_output,
    needs_key,
    read_call,
)
from lth_jax.types import Key, Model, Params


def from_linen(module: nn.Module, *, flag: str = AUTO, output: Output | None = None) -> Model:
    """Converts a Linen module to a `Model`.

    `params` is the plain dictionary of the 'params' collection; `state` holds the other collections
    by name (`{}` without any) and is updated only during training. `key` is the key of the stream
    'dropout', as in `module.apply(…, rngs={"dropout": key})`; a stream of another name gets a key
    derived from `key` and the name.

    Training and evaluation differ by one flag of the call: `train`, `training`, `is_training` (true
    in training), `deterministic`, `use_running_average` or `inference` (false in training). If the
    call takes none but the module has a field of such a name, that field is set. A module with
    neither is called identically in both modes.

    An axis name that no caller binds (`nn.BatchNorm(axis_name="batch")`) is bound to an axis of
    size 1: the statistics are those of the whole batch.

    Args:
      module: an unbound module whose call takes one input.
      flag: the flag's name; `"auto"` reads it from the signature; `"none"` if there is none.
      output: applied to the module's result; required if that is a tuple.

    Raises:
      TypeError: if `module` is not a Linen module or requires more arguments; from `apply`, if it
        returns a tuple and there is no `output`.
      ValueError: if the signature has several flags, or `**kwargs` alone, and `flag` is `"auto"`;
        from `apply`, if the module draws random numbers without a `key`, or changes its state in
        evaluation.

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
    name = type(module).__name__
    # A Sequential passes its keywords only to its first layer.
    call = read_call(
        module.__call__,
        name=name,
        flag=flag,
        given=("rngs",),
        keywords_are_flags=not isinstance(module, nn.Sequential),
    )
    field = _field(module, call, flag)

    def configured(train: bool, rngs: dict[str, Key]) -> tuple[nn.Module, Callable[..., Any]]:
        """The module and the keywords of its call; `Module.apply` uses `rngs` itself."""
        keywords: dict[str, Any] = {"rngs": rngs} if call.takes("rngs") else {}
        network = module
        if field is not None:
            fields: dict[str, Any] = {field: FLAGS[field] == train}
            network = module.clone(**fields)
        else:
            keywords |= call.mode(train)
        return network, lambda network, x: network(x, **keywords)

    def init(key: Key, x: Any) -> tuple[Params, Any]:
        network, method = configured(False, {"dropout": key})
        state = dict(bind_axes(lambda: network.init(key, x, method=method)))
        return state.pop("params", {}), state

    def run(variables: Any, x: Any, rngs: dict[str, Key], train: bool, key: Key | None) -> Any:
        network, method = configured(train, rngs)
        mutable = list(variables)[1:] if train else False
        try:
            return bind_axes(
                lambda: network.apply(variables, x, method=method, rngs=rngs, mutable=mutable)
            )
        except InvalidRngError as error:
            stream = _missing_stream(error)
            if key is None:
                raise needs_key(name, error, train) from error
            if stream is None or stream in rngs:
                raise
            return run(variables, x, rngs | {stream: _derived(key, stream)}, train, key)
        except ModifyScopeVariableError as error:
            raise ValueError(
                f"{name} changes its state with `train=False`; it must respect one of the flags "
                f"{', '.join(FLAGS)}: {error}"
            ) from error

    def apply(
        params: Params, state: Any, x: Any, *, key: Key | None = None, train: bool
    ) -> tuple[Any, Any]:
        rngs = {} if key is None else {"dropout": key}
        out = run({"params": params, **state}, x, rngs, train, key)
        out, changed = out if train else (out, {})
        return chosen_output(out, output, name), {**state, **changed}

    def kernel_layouts(x: Any) -> layouts.Layouts:
        return layouts.of_linen_init(lambda key, x: init(key, x)[0], x)

    return Model(init=init, apply=apply, layouts=kernel_layouts, module=module)


def _field(module: nn.Module, call: Call, flag: str) -> str | None:
    """The field that switches the mode: no flag of the call, or set by the constructor.

    Flax refuses a flag that is given to both.
    """
    fields = {one.name for one in dataclasses.fields(module)}
    if call.flag is not None:
        is_set = call.flag in fields and getattr(module, call.flag) is not None
        return call.flag if is_set else None
    found = [one for one in FLAGS if one in fields and flag == AUTO]
    if len(found) > 1:
        raise ValueError(
            f"`flag` must be a flag of the call or 'none': {type(module).__name__} has the fields "
            f"{' and '.join(found)}."
        )
    return found[0] if found else None


def _missing_stream(error: InvalidRngError) -> str | None:
    """The stream's name, which Flax 0.12 gives only in the message."""
    found = re.search(r'needs PRNG for "([^"]*)"', str(error))
    return found[1] if found else None


def _derived(key: Key, stream: str) -> Key:
    return jax.random.fold_in(key, zlib.crc32(stream.encode()))
