"""The type `Method`, and the registry of all methods."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import optax

from lth_jax import text
from lth_jax.pruning.transforms import Transform
from lth_jax.registry import Registry
from lth_jax.types import Count, Key, Mask, Params


@text.with_short_repr
class Inputs(NamedTuple):
    """The inputs of a method for one member; leaves may be traced and differ between members.

    Attributes:
      mask: the initial mask.
      count: how many weights the final mask keeps, as the method's scope counts them: an int32
        scalar, or a tree of them.
      key: typed PRNG key.
    """

    mask: Mask
    count: Count
    key: Key


@dataclass(frozen=True, eq=False)
class Method:
    """A sparse training method. Static: hashed by identity, closed over by compiled functions.

    A step of training is

        grads = jax.grad(loss)(method.effective(params, state))
        updates, state = tx.update(grads, state, params, step=step)
        params = optax.apply_updates(params, updates)

    with `tx = method.transform(inner, inputs)`, which may be built inside the trace at each step.
    The first `params` are masked by `inputs.mask`.

    Attributes:
      name: name in reports and errors.
      transform: `(inner, inputs) -> optax transformation`. `init` may read all of `inputs`,
        `update` reads `count` and `key` only, which must be the same at each step. The state holds
        everything else: at least `mask` (True = used by the network), `step` (int32) and
        `undecided` (int32, the number of times that invalid scores left the mask unchanged).
        `update` takes gradients of the loss at `effective(params, state)` and an optional `step`,
        the number of updates before this one, by which events are scheduled; by default the state
        counts the updates.
      effective: `(params, state) -> params` that the network uses in training.
      final: `(params, state) -> (params, mask)` that are evaluated and kept. Weights are exactly 0
        where the mask is False.
      starts_dense: True if `inputs.mask` must be all True, False if it keeps `count` weights.
      exact: whether the final mask keeps exactly `count` weights; otherwise the density is an
        outcome of training, and `count` is not read.
    """

    name: str
    transform: Callable[[optax.GradientTransformation, Inputs], Transform]
    effective: Callable[[Params, Any], Params]
    final: Callable[[Params, Any], tuple[Params, Mask]]
    starts_dense: bool
    exact: bool = True

    def __repr__(self) -> str:
        return f"Method({self.name!r})"


Builder = Callable[..., Method]
"""`(*, prunable, layouts, scope, steps, **options) -> Method`."""

COMMON = ("prunable", "layouts", "scope", "steps")
"""The keywords that every builder takes, used or not."""


OBJECTS = ("criterion", "score_optimizer")
"""Options of builders that are objects: neither configs nor command lines can hold them."""


def _check_builder(name: str, builder: Builder) -> None:
    found = inspect.signature(builder).parameters
    missing = [keyword for keyword in COMMON if keyword not in found]
    positional = [p.name for p in found.values() if p.kind is not p.KEYWORD_ONLY]
    required = [p.name for p in found.values() if p.default is p.empty and p.name not in COMMON]
    faults = {"missing": missing, "not keyword-only": positional, "without defaults": required}
    found_faults = [f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names]
    if found_faults:
        raise TypeError(
            f"`builder` of {name!r} must take {', '.join(COMMON)} and options with defaults, all "
            f"keyword-only; {'; '.join(found_faults)}."
        )


METHODS: Registry[Builder] = Registry("method", _check_builder)
"""All methods by name; configs use these names.

A builder takes `prunable`, a static tree of booleans; `layouts`, the meaning of the kernels' axes;
`scope`, which scores compete; `steps`, the number of updates of the training; and options with
defaults. The name equals `Method.name`.
"""
