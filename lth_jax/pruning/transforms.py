"""Sparse training as optax transformations.

Two kinds. `mask_updates` and `masked` take the mask as an argument of each update: the mask belongs
to the caller. The others own their mask, as `SparseState.mask` in the optimizer's state
(`optax.tree.get(state, "mask")`), and revise it at events: `static_sparse` (never), `gradual`,
`sparse_evolution`, `rigl`, and `straight_through`. An event's work is done at the events only, also
for a population under `jax.vmap`, where an ordinary conditional would run it at every step.

The weights and the optimizer's per-weight slots of what is pruned are exactly 0 (for inner
optimizers whose slots stay 0 under zero gradients: SGD, momentum, Adam, AdamW, Lion, RMSProp, LAMB;
for any other the weights are). `straight_through` is the exception: its weights are latent, and
`effective_params` are what the network computes with.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from lth_jax import trees
from lth_jax.pruning import scores
from lth_jax.pruning.checks import check_mask, check_prunable
from lth_jax.pruning.events import when
from lth_jax.pruning.masks import apply_mask, ones_like
from lth_jax.pruning.prune import Pruner
from lth_jax.pruning.topk import largest
from lth_jax.types import Count, Key, Mask, Params, Prunable

Transform: TypeAlias = optax.GradientTransformationExtraArgs
Start = Callable[[Params], Mask]
"""`params -> mask`: the mask to begin with; called by `init` only."""


class SparseState(NamedTuple):
    """The state of a transformation that owns its mask.

    Attributes:
      mask: True = kept.
      step: how many updates there have been (int32).
      key: of the transformations that draw at random, else None.
      inner: the inner optimizer's state.
    """

    mask: Mask
    step: jax.Array
    key: Key | None
    inner: Any


class Events(NamedTuple):
    """At which updates the mask is revised: `begin`, `begin + every`, … before `end`."""

    every: int
    begin: int = 0
    end: int = 2**31 - 1

    def at(self, step: jax.Array) -> jax.Array:
        """Whether there is an event at this step (boolean scalar).

        >>> [bool(Events(every=2, begin=1, end=5).at(step)) for step in range(6)]
        [False, True, False, True, False, False]
        """
        since = step - self.begin
        return (since >= 0) & (step < self.end) & (since % self.every == 0)


def mask_updates() -> Transform:
    """Sets the updates of pruned weights to 0; the mask is an argument of `update`.

    Chain it before whatever mixes weights (clipping) and at the end, or use `masked`.

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
        return apply_mask(mask, updates), state

    return Transform(lambda params: optax.EmptyState(), update)


def masked(inner: optax.GradientTransformation) -> Transform:
    """`inner` on a subnetwork: gradients are masked before it and updates after it.

    So global-norm clipping sees the subnetwork's gradient, slots of pruned weights stay 0, and
    weight decay or noise cannot revive a weight. Start from `apply_mask(mask, params)`; when the
    mask shrinks during training, mask the weights and, with `mask_slots`, the state again.

    >>> tx = masked(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)))
    >>> params, mask = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([True, False])}
    >>> updates, _ = tx.update({"w": jnp.ones(2)}, tx.init(params), params, mask=mask)
    >>> optax.apply_updates(params, updates)["w"][1].item()
    0.0
    """
    return optax.chain(mask_updates(), inner, mask_updates())


def mask_slots(inner: optax.GradientTransformation, state: Any, mask: Mask) -> Any:
    """Sets the per-weight slots of pruned weights in an optimizer's state to 0.

    Slots are found as `optax.tree.map_params` finds them; those of another shape than their weights
    (the factors of Adafactor) are left alone.

    >>> inner = optax.trace(0.9)
    >>> state = optax.TraceState(trace={"w": jnp.array([1.0, 2.0])})
    >>> mask_slots(inner, state, {"w": jnp.array([True, False])}).trace["w"].tolist()
    [1.0, 0.0]
    """

    def only_kept(slot: jax.Array, keep: jax.Array) -> jax.Array:
        if jnp.shape(slot) != keep.shape:
            return slot
        return jnp.where(keep, slot, jnp.zeros_like(slot))

    return optax.tree.map_params(inner, only_kept, state, mask)


def static_sparse(inner: optax.GradientTransformation, start: Start) -> Transform:
    """Trains inside one mask for ever; the baseline of dynamic sparse training.

    Args:
      inner: any optimizer.
      start: `params -> mask`; a random one drawn layerwise by ERK is the usual choice.

    >>> tx = static_sparse(optax.sgd(1.0), lambda params: {"w": jnp.array([True, False])})
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> updates, _ = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [0.0, 0.0]
    """
    never = Events(every=1, begin=0, end=0)
    return _owning(inner, start, never, lambda mask, step, key, grads, params: mask, None)


def gradual(
    inner: optax.GradientTransformation,
    pruner: Pruner,
    counts: Count,
    *,
    every: int,
    begin: int = 0,
    prunable: Prunable,
) -> Transform:
    """Gradual pruning during training (Zhu & Gupta, 2017, "To prune, or not to prune").

    Event i, at update `begin + i·every`, prunes to `counts[i]`; then the step is taken under the
    new mask.

    Args:
      inner: any optimizer.
      pruner: from `prune`, with a criterion that needs neither data nor a key.
      counts: the counts of all events, stacked along a first axis: `trees.stack` of
        `scope.counts(params, schedule(i), prunable=prunable)` for i = 1, 2, ….
      every: updates between events.
      begin: the update of the first event.
      prunable: static tree of Python booleans.

    >>> from lth_jax.pruning import prune, scopes, schedules
    >>> params, prunable, scope = {"w": jnp.array([[3.0, 1.0]])}, {"w": True}, scopes.globally()
    >>> pruner = prune.prune(lambda params, mask, **_: jax.tree.map(jnp.abs, params), scope)
    >>> to = schedules.cubic(1, final=0.5)
    >>> counts = trees.stack([scope.counts(params, to(1), prunable=prunable)])
    >>> tx = gradual(optax.sgd(0.1), pruner, counts, every=10, prunable=prunable)
    >>> _, state = tx.update({"w": jnp.ones((1, 2))}, tx.init(params), params)
    >>> optax.tree.get(state, "mask")["w"].tolist()
    [[True, False]]
    """
    number = jax.tree.leaves(counts)[0].shape[0]
    events = Events(every, begin, begin + every * number)

    def revise(mask: Mask, step: jax.Array, key: Key, grads: Params, params: Params) -> Mask:
        count = trees.index(jax.tree.map(jnp.asarray, counts), (step - begin) // every)
        return pruner(params, mask, count, prunable=prunable)

    return _owning(inner, ones_like, events, revise, None)


def sparse_evolution(
    inner: optax.GradientTransformation,
    start: Start,
    events: Events,
    *,
    key: Key,
    fraction: float = 0.3,
    prunable: Prunable,
) -> Transform:
    """SET (Mocanu et al., 2018): each event drops the smallest weights and grows random ones.

    In every prunable leaf `fraction` of the kept weights, those of smallest magnitude, are dropped
    and as many others are grown at random with value 0: the counts of all leaves stay as they
    started. Then the step is taken under the new mask.

    Args:
      inner: any optimizer.
      start: `params -> mask`, usually random by ERK.
      events: at which updates.
      key: typed key; it becomes a leaf of the state, one per member.
      fraction: of the kept weights, dropped at each event.
      prunable: static tree of Python booleans.

    >>> start = lambda params: {"w": jnp.array([[True, True], [False, False]])}
    >>> tx = sparse_evolution(optax.sgd(0.1), start, Events(every=5), key=jax.random.key(0),
    ...                       fraction=0.5, prunable={"w": True})
    >>> params = {"w": jnp.array([[3.0, 1.0], [0.0, 0.0]])}
    >>> _, state = tx.update({"w": jnp.ones((2, 2))}, tx.init(params), params)
    >>> optax.tree.get(state, "mask")["w"].sum().item()
    2
    """

    def revise(mask: Mask, step: jax.Array, key: Key, grads: Params, params: Params) -> Mask:
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        draws = [jax.random.uniform(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
        growth = jax.tree.unflatten(structure, draws)
        return _drop_and_grow(mask, params, growth, jnp.float32(fraction), prunable)

    return _owning(inner, start, events, revise, key)


def rigl(
    inner: optax.GradientTransformation,
    start: Start,
    events: Events,
    *,
    fraction: float = 0.3,
    prunable: Prunable,
) -> Transform:
    """RigL (Evci et al., 2020): drops the smallest weights, grows where the gradient is largest.

    At update t, in every prunable leaf, the fraction `fraction/2·(1 + cos(π·t/end))` of the kept
    weights is dropped by magnitude, and as many of the others are grown, by magnitude of the
    gradient, with value 0: counts stay as they started. `update` must get the dense gradient (of
    the loss at the masked weights). The step is then taken under the new mask, where the paper
    leaves the weights alone at an event.

    Args:
      inner: any optimizer.
      start: `params -> mask`, usually random by ERK.
      events: at which updates; with an `end`, usually three quarters of training.
      fraction: of the kept weights, dropped at first.
      prunable: static tree of Python booleans.

    >>> start = lambda params: {"w": jnp.array([[True, True], [False, False]])}
    >>> tx = rigl(optax.sgd(0.1), start, Events(every=5, end=100), fraction=0.5,
    ...           prunable={"w": True})
    >>> params, grads = {"w": jnp.array([[3.0, 1.0], [0.0, 0.0]])}, {"w": jnp.eye(2)}
    >>> _, state = tx.update(grads, tx.init(params), params)
    >>> optax.tree.get(state, "mask")["w"].tolist()
    [[True, False], [False, True]]
    """

    def revise(mask: Mask, step: jax.Array, key: Key, grads: Params, params: Params) -> Mask:
        done = step.astype(jnp.float32) / events.end
        now = fraction / 2 * (1 + jnp.cos(jnp.pi * done))
        return _drop_and_grow(mask, params, jax.tree.map(jnp.abs, grads), now, prunable)

    return _owning(inner, start, events, revise, None)


def straight_through(
    inner: optax.GradientTransformation,
    pruner: Pruner,
    count: Count,
    *,
    every: int = 1,
    prunable: Prunable,
) -> Transform:
    """Dense latent weights, a network of their best; gradients pass straight through the mask.

    The parameters are latent: compute loss and gradient at `effective_params(params, state)` and
    give that gradient to `update`, which applies it to all latent weights, so that a pruned weight
    can come back (Bengio et al., 2013; for pruning, Lin et al., 2020, "Dynamic model pruning with
    feedback"). Every `every` updates the latent weights compete anew.

    Args:
      inner: any optimizer.
      pruner: from `prune`, with a criterion that needs neither data nor a key.
      count: how many weights the network keeps, as the pruner's scope counts.
      every: updates between revisions of the mask.
      prunable: static tree of Python booleans.

    >>> from lth_jax.pruning import prune, scopes
    >>> pruner = prune.prune(lambda params, mask, **_: params, scopes.globally())
    >>> tx = straight_through(optax.sgd(1.0), pruner, jnp.int32(1), prunable={"w": True})
    >>> params = {"w": jnp.array([[2.0, 1.0]])}
    >>> state = tx.init(params)
    >>> effective_params(params, state)["w"].tolist()
    [[2.0, 0.0]]
    >>> updates, state = tx.update({"w": jnp.array([[3.0, 0.0]])}, state, params)
    >>> effective_params(optax.apply_updates(params, updates), state)["w"].tolist()
    [[0.0, 1.0]]
    """
    inner = optax.with_extra_args_support(inner)

    def best(params: Params) -> Mask:
        return pruner(params, ones_like(params), count, prunable=prunable)

    def init(params: Params) -> SparseState:
        return SparseState(best(params), jnp.zeros((), jnp.int32), None, inner.init(params))

    def update(
        grads: Params, state: SparseState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, SparseState]:
        updates, inner_state = inner.update(grads, state.inner, params, **extra)
        step = state.step + 1
        latent = optax.apply_updates(params, updates)

        def renewed(mask: Mask, latent: Params) -> Mask:
            everything = ones_like(latent)
            new, info = pruner.with_info(latent, everything, count, prunable=prunable)
            return scores.unless_bad(info, new, mask)

        mask = when(Events(every).at(step), renewed, state.mask, latent)
        return updates, SparseState(mask, step, None, inner_state)

    return Transform(init, update)


def effective_params(params: Params, state: Any) -> Params:
    """The weights the network computes with: `params` under the mask in an optimizer's state.

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
        raise ValueError("`state` holds no mask; the optimizer must be one that owns its mask.")
    return apply_mask(mask, params)


def _owning(
    inner: optax.GradientTransformation,
    start: Start,
    events: Events,
    revise: Callable[..., Mask],
    key: Key | None,
) -> Transform:
    """`masked(inner)` whose mask `revise(mask, step, key, grads, params)` renews at events."""
    on_subnetwork = masked(inner)

    def init(params: Params) -> SparseState:
        mask = start(params)
        check_mask(mask, params)
        return SparseState(mask, jnp.zeros((), jnp.int32), key, on_subnetwork.init(params))

    def event(kept: tuple[Mask, Any], step, key, grads, params) -> tuple[Mask, Any]:
        mask = revise(kept[0], step, key, grads, apply_mask(kept[0], params))
        return mask, mask_slots(on_subnetwork, kept[1], mask)

    def update(
        grads: Params, state: SparseState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, SparseState]:
        if params is None:
            raise ValueError("`params` must be given to `update`: pruned weights are set to 0.")
        step = state.step
        now = None if state.key is None else jax.random.fold_in(state.key, step)
        kept = (state.mask, state.inner)
        mask, slots = when(events.at(step), event, kept, step, now, grads, params)
        updates, slots = on_subnetwork.update(grads, slots, params, mask=mask, **extra)
        # p + (−p) = 0: what was just dropped, or was never masked, becomes exactly 0.
        updates = jax.tree.map(lambda m, u, p: jnp.where(m, u, -p), mask, updates, params)
        return updates, SparseState(mask, step + 1, state.key, slots)

    return Transform(init, update)


def _drop_and_grow(
    mask: Mask, params: Params, growth: Params, fraction: jax.Array, prunable: Prunable
) -> Mask:
    """Leaf by leaf, swaps a fraction of the kept weights for the others of largest `growth`.

    A leaf whose magnitudes or growth cannot decide keeps its mask.
    """

    def revise(use: bool, m: jax.Array, p: jax.Array, g: jax.Array) -> jax.Array:
        if not use:
            return m
        kept = jnp.sum(m, dtype=jnp.int32)
        swapped = (fraction * kept.astype(jnp.float32)).astype(jnp.int32)
        survivors = largest([jnp.abs(p)], [m], kept - swapped)[0]
        new = survivors | largest([g], [~survivors], swapped)[0]
        dropped = scores.inspect(jnp.abs(p), m, kept - swapped, prunable=True)
        grown = scores.inspect(g, ~survivors, swapped, prunable=True)
        return scores.unless_bad(dropped, scores.unless_bad(grown, new, m), m)

    check_prunable(prunable, mask)
    return jax.tree.map(revise, prunable, mask, params, growth)
