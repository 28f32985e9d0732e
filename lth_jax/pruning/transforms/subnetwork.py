"""Optimizers on a subnetwork: `mask_updates`, `masked`, `static_sparse`, and their common step.

All transformations of this package except `straight_through` use this step. At pruned weights the
parameters, gradients and per-weight slots that the inner optimizer receives are exactly 0, and so
are the weights after its update.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from lth_jax import text, trees
from lth_jax.pruning.checks import check_mask, same_structure
from lth_jax.pruning.events import when
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.transforms.slots import mask_slots, slots_after_update, slots_to_update
from lth_jax.types import Key, Mask, Params

Transform: TypeAlias = optax.GradientTransformationExtraArgs
Start = Callable[[Params], Mask]
"""`params -> mask`: the initial mask; only `init` calls it."""

Revision = tuple[Mask, jax.Array]
"""A new mask, and whether scores were invalid for (a part of) it (boolean scalar)."""

_REFUSED = {
    "LookaheadState": "`optax.lookahead` updates two copies of the weights, so it cannot be inside "
    "a transformation; use `optax.lookahead(masked(optimizer, mask), ...)` and start from masked "
    "weights"
}
_REFUSED_UNDER_A_MASK = _REFUSED | {
    "GaLoreState": "`galore` keeps its slots in a rotated basis, so slots of single weights "
    "cannot be set to 0; use its base optimizer alone"
}
"""Optimizers that cannot be inside a transformation of this package: by their state, the reason."""


@text.with_short_repr
class SparseState(NamedTuple):
    """The state of a transformation that holds its mask.

    Attributes:
      mask: True = kept.
      step: number of updates so far (int32).
      key: PRNG key of a transformation that draws at random, else None.
      inner: the inner optimizer's state.
      undecided: number of events at which invalid scores left the mask of a layer (with a pruner:
        of the network) unchanged (int32).
    """

    mask: Mask
    step: jax.Array
    key: Key | None
    inner: Any
    undecided: jax.Array


class Events(NamedTuple):
    """The updates at which the mask is revised: `begin`, `begin + every`, … before `end`."""

    every: int = 1
    begin: int = 0
    end: int = 2**31 - 1

    def at(self, step: jax.Array) -> jax.Array:
        """Whether there is an event at this step (boolean scalar).

        >>> [bool(Events(every=2, begin=1, end=5).at(step)) for step in range(6)]
        [False, True, False, True, False, False]
        """
        since = step - self.begin
        return (since >= 0) & (step < self.end) & (since % self.every == 0)

    def check(self) -> None:
        """Raises `ValueError` for events that never happen.

        These have an `every` below 1, or an `end` at or before `begin`.

        >>> Events(every=5, begin=20, end=10).check()
        Traceback (most recent call last):
        ValueError: `end` must be above `begin`, which is 20, but is 10.
        """
        if isinstance(self.every, int) and self.every < 1:
            raise ValueError(f"`every` must be at least 1, but is {self.every}.")
        both = isinstance(self.begin, int) and isinstance(self.end, int)
        if both and self.end <= self.begin:
            raise ValueError(
                f"`end` must be above `begin`, which is {self.begin}, but is {self.end}."
            )


EACH_UPDATE = Events()


def check_events(events: Any) -> None:
    """Raises `TypeError` unless given `Events`, and `ValueError` for events that never happen."""
    if not hasattr(events, "at"):
        raise TypeError(
            f"`events` is {_kind(events)}; it must be `Events`, such as `Events(every=100)`."
        )
    events.check()


def mask_updates() -> Transform:
    """Sets the updates of pruned weights to 0; the mask is an argument of `update`.

    Only updates are masked: in `optax.chain(optimizer, mask_updates())` the optimizer receives
    pruned weights and keeps slots for them. `masked` hides them.

    Raises:
      ValueError: (from `update`) `mask` does not fit the updates.

    >>> tx = optax.chain(optax.sgd(1.0), mask_updates())
    >>> params, mask = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([True, False])}
    >>> updates, _ = tx.update({"w": jnp.ones(2)}, tx.init(params), params, mask=mask)
    >>> updates["w"].tolist()
    [-1.0, 0.0]
    """

    def update(
        updates: Params, state: Any, params: Params | None = None, *, mask: Mask, **extra: Any
    ) -> tuple[Params, Any]:
        del params, extra
        mask = in_structure_of("mask", mask, "updates", updates)
        return _keep(mask, "updates", updates), state

    return Transform(lambda params: optax.EmptyState(), update)


def masked(inner: optax.GradientTransformation, mask: Mask | None = None) -> Transform:
    """`inner` on a subnetwork: pruned weights are hidden from it.

    At pruned weights the parameters, gradients and slots that reach `inner` are 0, and so are the
    weights and the slots after the update. Clipping, weight decay and layer-wise rates therefore
    use the subnetwork alone. All optimizers of optax work except `optax.lookahead` and
    `optax.contrib.galore`. Pass further arguments of the optimizer (`value`, `value_fn`, `grad_fn`,
    …) as keywords to `update`.

    Without `mask` here, `update` takes it as a keyword argument: it may change at any update. With
    `mask` here, the state carries it (`optax.tree.get(state, "mask")`), and `update` takes
    gradients, state and parameters only, as `TrainState.apply_gradients` calls it.

    Args:
      inner: the optimizer.
      mask: boolean leaves like the parameters, True = kept.

    Raises:
      ValueError: by `init`, for an optimizer that cannot be used; by `update`, without `params`,
        or for a mask of another structure or shape.
      TypeError: by `update`, without a mask or another argument that `inner` needs.

    >>> params, mask = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([True, False])}
    >>> tx = masked(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)))
    >>> updates, _ = tx.update({"w": jnp.ones(2)}, tx.init(params), params, mask=mask)
    >>> optax.apply_updates(params, updates)["w"][1].item()
    0.0

    In a `TrainState`:

    >>> from flax.training.train_state import TrainState
    >>> tx = masked(optax.sgd(1.0), mask)
    >>> train_state = TrainState.create(apply_fn=None, params=params, tx=tx)
    >>> train_state.apply_gradients(grads={"w": jnp.ones(2)}).params["w"].tolist()
    [0.0, 0.0]
    """
    if mask is not None:
        return static_sparse(inner, lambda params: mask)
    inner = extended(inner)

    def update(
        grads: Params,
        state: Any,
        params: Params | None = None,
        *,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Params, Any]:
        if mask is None:
            raise TypeError("`mask` must be given: as `masked(inner, mask)` or to `update`.")
        mask = _checked(mask, params)
        return _step(inner, mask, grads, state, params, extra)

    return Transform(lambda params: init_inner(inner, params), update)


def static_sparse(inner: optax.GradientTransformation, start: Start) -> Transform:
    """Trains under a constant mask; the baseline of dynamic sparse training.

    Args:
      inner: any optimizer; see `masked`.
      start: `params -> mask`, usually random with ERK densities.

    Raises:
      ValueError: by `init` and `update`, as in `masked`.
      TypeError: an argument has the wrong type.

    >>> tx = static_sparse(optax.sgd(1.0), lambda params: {"w": jnp.array([True, False])})
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> updates, _ = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [0.0, 0.0]
    """
    return owning(inner, start, None, None)


def owning(
    inner: optax.GradientTransformation,
    start: Start,
    events: Events | None,
    revise: Callable[..., Revision] | None,
    key: Key | None = None,
    *operands: Any,
) -> Transform:
    """`masked(inner)` with a mask that `revise(mask, step, key, grads, params, *operands)` updates.

    `revise` gets the masked weights and the unmasked gradients. Values that differ between the
    members of a population must be operands: `revise` must not close over them (see `when`).
    """
    inner = extended(inner)
    if not callable(start):
        raise TypeError(
            f"`start` is {_kind(start)}; it must be a function of the parameters that returns a "
            "mask, such as `lambda params: mask`."
        )
    if events is not None:
        check_events(events)

    def init(params: Params) -> SparseState:
        mask = _checked(start(params), params)
        state = mask_slots(inner, init_inner(inner, apply_mask(mask, params)), mask)
        zero = jnp.zeros((), jnp.int32)
        return SparseState(mask, zero, key, state, zero)

    def revised(
        held: tuple[Mask, jax.Array], step: Any, key: Any, grads: Params, params: Params, *rest: Any
    ) -> tuple[Mask, jax.Array]:
        assert revise is not None
        mask, undecided = revise(held[0], step, key, grads, apply_mask(held[0], params), *rest)
        return mask, held[1] + undecided

    def update(
        grads: Params, state: SparseState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, SparseState]:
        if "mask" in extra:
            raise TypeError("`update` takes no `mask` here: the state carries it.")
        _checked(state.mask, params)
        step, held = state.step, (state.mask, state.undecided)
        if events is not None and revise is not None:
            key = None if state.key is None else jax.random.fold_in(state.key, step)
            held = when(events.at(step), revised, held, step, key, grads, params, *operands)
        mask, undecided = held
        updates, slots = _step(inner, mask, grads, state.inner, params, extra)
        return updates, SparseState(mask, step + 1, state.key, slots, undecided)

    return Transform(init, update)


def extended(inner: Any) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner`, which then ignores extra arguments that it does not take.

    Raises:
      TypeError: it has no `init` or no `update`.

    >>> extended(0.1)
    Traceback (most recent call last):
      ...
    TypeError: `inner` is 0.1; it must be an optimizer of optax.
    """
    if not (hasattr(inner, "init") and hasattr(inner, "update")):
        raise TypeError(f"`inner` is {_kind(inner)}; it must be an optimizer of optax.")
    return optax.with_extra_args_support(inner)


def _kind(value: Any) -> str:
    """A wrong argument in messages: short values as they are, others by their type."""
    text = repr(value)
    return text if len(text) <= 20 else f"a {type(value).__name__}"


def effective_params(params: Params, state: Any) -> Params:
    """The weights that the network uses: `params` under the mask in an optimizer's state.

    Raises:
      KeyError: the state holds several masks.
      ValueError: it holds none.

    >>> tx = static_sparse(optax.sgd(0.1), lambda params: {"w": jnp.array([True, False])})
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> effective_params(params, tx.init(params))["w"].tolist()
    [1.0, 0.0]
    """
    mask = optax.tree.get(state, "mask")
    if mask is None:
        raise ValueError("`state` holds no mask; the optimizer must hold it in its state.")
    return apply_mask(in_structure_of("mask", mask, "params", params), params)


def in_structure_of(name: str, tree: Any, like_name: str, like: Any) -> Any:
    """The leaves of `tree` in the containers of `like`, if all names agree.

    `nnx.Optimizer` calls `init` with a state of variables and `update` with a state of arrays; a
    mask in the caller's containers must fit both.

    Raises:
      ValueError: the names of the leaves differ.
    """
    structure: Any = jax.tree.structure(like)
    if jax.tree.structure(tree) == structure:
        return tree
    if trees.names(tree) != trees.names(like):
        trees.check_same_structure(name, tree, like_name, like)
    return structure.unflatten(jax.tree.leaves(tree))


def init_inner(inner: optax.GradientTransformation, params: Params, *, latent: bool = False) -> Any:
    """`inner.init(params)`; raises for an optimizer that cannot be used.

    Args:
      inner: the optimizer.
      params: its parameters.
      latent: True if it acts on all weights, False on a subnetwork.

    Raises:
      ValueError: the optimizer cannot be used; the message gives the reason.
    """
    state = inner.init(params)
    reasons = _REFUSED if latent else _REFUSED_UNDER_A_MASK
    for node in jax.tree.leaves(state, is_leaf=lambda node: type(node).__name__ in reasons):
        if reason := reasons.get(type(node).__name__):
            raise ValueError(f"`inner` cannot be used here: {reason}.")
    return state


def update_inner(
    inner: Transform, grads: Params, state: Any, params: Params, extra: dict[str, Any]
) -> tuple[Params, Any]:
    """`inner.update`, whose updates must be one per weight.

    Raises:
      TypeError: `inner` needs an argument that is missing.
      ValueError: the updates have another structure or other shapes than the parameters.
    """
    try:
        updates, state = inner.update(grads, state, params, **extra)
    except TypeError as error:
        if "required keyword-only argument" not in str(error):
            raise
        raise TypeError(
            f"`inner` needs more keyword arguments of `update`, which passes them on: {error}."
        ) from error
    trees.check_same_structure("updates of inner", updates, "params", params)
    return updates, state


def _step(
    inner: Transform, mask: Mask, grads: Params, state: Any, params: Params, extra: dict[str, Any]
) -> tuple[Params, Any]:
    """One update of `inner` on the subnetwork of a mask, which may change between updates."""
    hidden = {name: _hide(mask, name, value) for name, value in extra.items()}
    slots, kept = slots_to_update(inner, state, mask), apply_mask(mask, params)
    given = (_keep(mask, "grads", grads), slots, kept)
    updates, state = update_inner(inner, *given, hidden)
    updates = jax.tree.map(_or_to_zero, mask, updates, params)
    return updates, slots_after_update(inner, given, state, mask, hidden)


def _or_to_zero(m: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
    """The update where kept, else the update that sets the weight to 0: p + (−p) = 0."""
    dtype = jnp.promote_types(u.dtype, p.dtype)  # a narrower one could not hold −p
    return jnp.where(m, u.astype(dtype), -p.astype(dtype))


def _checked(mask: Mask, params: Params | None) -> Mask:
    """The mask in the containers of the parameters."""
    if params is None:
        raise ValueError("`params` must be given to `update`: pruned weights are set to 0.")
    mask = in_structure_of("mask", mask, "params", params)
    check_mask(mask, params)
    return mask


def _keep(mask: Mask, name: str, tree: Any) -> Any:
    """`apply_mask` that allows leading axes: per-example gradients have the examples first."""
    last = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), bool), tree)
    if same_structure(tree, mask):
        last = jax.tree.map(
            lambda x, m: jax.ShapeDtypeStruct(x.shape[max(x.ndim - m.ndim, 0) :], bool), last, mask
        )
    trees.check_same_structure(name, last, "mask", mask)
    return jax.tree.map(lambda m, x: jnp.where(m, x, jnp.zeros_like(x)), mask, tree)


def _hide(mask: Mask, name: str, value: Any) -> Any:
    """An extra argument of `update` restricted to the subnetwork.

    `grad` is masked. Functions of the parameters are composed with the mask: line searches, SAM and
    Sophia evaluate the loss or its gradient at other weights.
    """
    if name == "grad":
        return _keep(mask, name, value)
    partial = isinstance(value, jax.tree_util.Partial)
    if not callable(value) or not (partial or jax.tree_util.all_leaves([value])):
        return value  # an array, or a module

    def like_params(tree: Any) -> bool:
        shapes = [jnp.shape(x) for x in jax.tree.leaves(tree)]
        return same_structure(tree, mask) and shapes == [m.shape for m in jax.tree.leaves(mask)]

    def shown(out: Any) -> Any:
        if like_params(out):
            return _keep(mask, name, out)
        return tuple(shown(part) for part in out) if type(out) is tuple else out

    @functools.wraps(value)  # optax reads the signature of `value_fn`
    def hidden(*args: Any, **kwargs: Any) -> Any:
        if not args or not like_params(args[0]):
            return value(*args, **kwargs)
        return shown(value(apply_mask(mask, args[0]), *args[1:], **kwargs))

    return hidden
