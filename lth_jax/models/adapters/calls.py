"""Shared by all adapters: the flag of a call, unbound axis names, and the output."""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax

from lth_jax.legal import check_name

FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}
"""Arguments that switch between training and evaluation, with their values in training."""

AUTO, NONE = "auto", "none"
"""Other values of `flag`: take the name from the signature, or pass no flag."""

Output = Callable[[Any], Any]


class Call(NamedTuple):
    """The signature of a network's call.

    Attributes:
      flag: the argument that switches between training and evaluation, or None.
      optional: other arguments that the adapter can pass and that have a default.
      required: those without a default.
    """

    flag: str | None
    optional: frozenset[str]
    required: frozenset[str]

    def mode(self, train: bool) -> dict[str, bool]:
        """The keyword argument for training or evaluation."""
        return {} if self.flag is None else {self.flag: FLAGS[self.flag] == train}

    def takes(self, name: str) -> bool:
        """Whether the call takes an argument of that name."""
        return name in self.optional | self.required


def read_call(
    function: Callable[..., Any],
    *,
    name: str,
    flag: str,
    inputs: int = 1,
    given: Collection[str] = (),
    own_flag: str = "",
    keywords_are_flags: bool = True,
) -> Call:
    """Reads the `Call` of a network from its signature.

    Args:
      function: the function that is called, without `self`.
      name: the network's name, for messages.
      flag: `"auto"`, `"none"`, or a key of `FLAGS`.
      inputs: number of leading arguments that are passed by position.
      given: names of the other arguments that the adapter can pass.
      own_flag: the framework's own flag, which takes precedence.
      keywords_are_flags: whether `**kwargs` may hide a flag, so that `"auto"` is ambiguous.

    Raises:
      TypeError: if the call requires an argument that the adapter does not pass.
      ValueError: if `flag` is unknown or not taken, or `"auto"` is ambiguous.
    """
    parameters = parameters_of(function)
    kinds = {one.kind for one in parameters.values()}
    named = {
        key: one
        for key, one in list(parameters.items())[inputs:]
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    any_keyword = inspect.Parameter.VAR_KEYWORD in kinds
    found = [key for key in FLAGS if key in named]
    chosen = own_flag if flag == AUTO and own_flag in found else None
    chosen = chosen or _flag(name, flag, found, any_keyword)
    if flag == AUTO and chosen is None and any_keyword and keywords_are_flags:
        raise ValueError(
            f"`flag` must name the keyword with which {name} (it takes `**kwargs`) switches "
            f"between training and evaluation: one of {', '.join(FLAGS)}, or '{NONE}'."
        )
    needed = {key for key, one in named.items() if one.default is one.empty} - {chosen}
    if extra := sorted(needed - set(given)):
        raise TypeError(
            f"{name} must be callable with one input, but requires {_listed(extra)} too; "
            "wrap it in a function that passes the rest."
        )
    return Call(chosen, frozenset((set(named) - needed) & set(given)), frozenset(needed))


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function or of a class's `__init__`, by name."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type):  # Flax 0.12: the metaclass of NNX modules hides the signature
        function = function.__init__  # type: ignore[misc]
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # a callable without a signature
        return inspect.signature(lambda *args, **kwargs: None).parameters


def _flag(name: str, flag: str, found: list[str], any_keyword: bool) -> str | None:
    if flag == NONE:
        return None
    if flag == AUTO:
        if len(found) > 1:
            raise ValueError(
                f"`flag` must choose between {_listed(found)}, all of which {name} takes."
            )
        return found[0] if found else None
    check_name("flag", flag, (AUTO, NONE, *FLAGS))
    if flag not in found and not any_keyword:
        raise ValueError(f"`flag` is '{flag}', but {name} takes {_listed(found) or 'no flag'}.")
    return flag


def _listed(names: Collection[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def chosen_output(out: Any, output: Output | None, name: str) -> Any:
    """`output(out)`; without `output`, `out` itself unless it is a tuple.

    Raises:
      TypeError: if `out` is a tuple and no `output` selects the predictions.
    """
    if output is not None:
        return output(out)
    if isinstance(out, tuple):
        raise TypeError(
            f"{name} returns a tuple of {len(out)}; choose the part for the loss with `output`, "
            f"for example `output=lambda out: out[0]`, or keep all with `output=lambda out: out`."
        )
    return out


def bind_axes(f: Callable[[], Any], names: tuple[str, ...] = ()) -> Any:
    """Calls `f()` with each axis name that no caller binds bound to an axis of size 1.

    BatchNorm with an `axis_name` (Haiku: `cross_replica_axis`) averages its statistics over the
    devices of a `pmap`. With an axis of size 1 the statistics are those of the whole batch, as on
    one device. A name that the caller binds keeps the caller's axis.

    Raises:
      ValueError: if the name of an unbound axis is not a string.

    >>> bind_axes(lambda: jax.lax.pmean(jax.numpy.float32(3.0), "batch")).item()
    3.0
    """
    run = f
    for name in names:
        run = _over_one(run, name)
    try:
        return run()
    except NameError as error:
        # JAX 0.10 to 0.12 give the name only in the message.
        found = re.search(r"unbound axis name: ([^\s,]+?)\.?(?:\s|$)", str(error))
        if found is None:
            raise
        if found[1] in names:
            raise ValueError(f"An axis name must be a string, got {found[1]}.") from error
        return bind_axes(f, (*names, found[1]))


def _over_one(f: Callable[[], Any], name: str) -> Callable[[], Any]:
    def run() -> Any:
        out = jax.vmap(lambda _: f(), axis_name=name)(jax.numpy.zeros(1))
        return jax.tree.map(lambda leaf: jax.lax.squeeze(leaf, (0,)), out)

    return run


def needs_key(name: str, error: Exception, train: bool) -> ValueError:
    """The error for a network that draws random numbers without a key."""
    if train:
        return ValueError(f"`key` must be given with `train=True`: {name} draws numbers: {error}")
    return ValueError(
        f"{name} draws random numbers with `train=False`; give `key`, or check that its call has "
        f"one of the flags {', '.join(FLAGS)}, and that the module respects it: {error}"
    )
