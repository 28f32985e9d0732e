"""Types that all packages share."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import chex

from lth_jax import text

DENSE, TICKET = "dense", "ticket"
"""The two arms that every ladder has; its controls have other names."""

Key: TypeAlias = chex.PRNGKey
"""A typed PRNG key (`jax.random.key`)."""

Params: TypeAlias = Any
"""A pytree of floating-point arrays.

The containers may be of any class. `chex.ArrayTree` is not used: it excludes Equinox modules, and
type checkers reject `params["dense"]` and `prune(...)(...)["kernel"]` on it."""

Mask: TypeAlias = Any
"""A pytree shaped like the parameters with boolean leaves; True = kept.

Leaves that are not prunable are all True, never None, so that masks stack and vmap."""

Prunable: TypeAlias = Any
"""A static pytree of Python booleans, one per leaf: may this leaf ever be pruned?"""

Scores: TypeAlias = Any
"""A pytree of float scores shaped like the parameters; higher = keep."""

Count: TypeAlias = Any
"""How many prunable weights to keep: an int32 scalar, or a tree of them, one per leaf."""

Info = dict[str, Any]
"""Values that a step reports: logged, not carried to the next step."""


@text.with_short_repr
class Batch(NamedTuple):
    """Examples along the first axis of every leaf: inputs `x`, targets `y`."""

    x: Any
    y: Any


@text.with_short_repr
class TrainState(NamedTuple):
    """The training state of a network: parameters, model state and optimizer state."""

    params: Params
    state: Any
    opt_state: Any


@text.with_short_repr
class Splits(NamedTuple):
    """The three parts of a data set."""

    train: Batch
    validation: Batch
    test: Batch


class Model(NamedTuple):
    """A network as two pure functions: the interface between this library and all frameworks.

    Attributes:
      init: `(key, x) -> (params, state)`; `x` is an example batch, `state` holds what is carried
        but not trained (BatchNorm statistics and the like; `{}` when there is none).
      apply: `(params, state, x, *, key=None, train) -> (out, state)`; `key` feeds dropout and is
        needed only with `train=True`.
      layouts: `x -> layouts` of the kernels (`lth_jax.layouts`), where the adapter finds them.
      module: the Linen module that the functions are made of; None for other frameworks.
    """

    init: Callable[..., tuple[Params, Any]]
    apply: Callable[..., tuple[Any, Any]]
    layouts: Callable[[Any], Mapping[str, Any]] | None = None
    module: Any = None
