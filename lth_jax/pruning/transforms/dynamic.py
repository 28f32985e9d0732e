"""Masks that change during training: gradual pruning, SET, RigL, straight-through.

The work of an event is done only at events, also under `jax.vmap`, where `lax.cond` would run it at
every step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lth_jax import trees
from lth_jax.keys import as_threefry
from lth_jax.layouts import Layouts, map_layers, resolve
from lth_jax.pruning import scores
from lth_jax.pruning.checks import check_fraction, check_prunable
from lth_jax.pruning.events import when
from lth_jax.pruning.masks import ones_like
from lth_jax.pruning.prune import Pruner
from lth_jax.pruning.topk import largest
from lth_jax.pruning.transforms.subnetwork import (
    EACH_UPDATE,
    Events,
    Revision,
    SparseState,
    Start,
    Transform,
    check_events,
    extended,
    in_structure_of,
    init_inner,
    owning,
    update_inner,
)
from lth_jax.types import Count, Info, Key, Mask, Params, Prunable


def gradual(
    inner: optax.GradientTransformation,
    pruner: Pruner,
    counts: Count,
    events: Events,
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
) -> Transform:
    """Gradual pruning during training (Zhu & Gupta, 2017, "To prune, or not to prune").

    Event i prunes to `counts[i]`; then the step is taken under the new mask. There are as many
    events as counts, or fewer if `events` end earlier.

    Args:
      inner: any optimizer.
      pruner: from `prune`, with a criterion that needs neither data nor a key.
      counts: the counts of all events, stacked along a first axis: `trees.stack` of
        `scope.counts(params, schedule(i), prunable=prunable)` for i = 1, 2, ….
      events: the updates with an event.
      prunable: static tree of Python booleans.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), as `pruner` needs it.

    Raises:
      ValueError: `events` is out of range.
      TypeError: `inner` is not an optimizer.

    >>> from lth_jax.pruning import prune, scopes, schedules
    >>> params, prunable, scope = {"w": jnp.array([[3.0, 1.0]])}, {"w": True}, scopes.globally()
    >>> pruner = prune.prune(lambda params, mask, **_: jax.tree.map(jnp.abs, params), scope)
    >>> to = schedules.cubic(1, final=0.5)
    >>> counts = trees.stack([scope.counts(params, to(1), prunable=prunable)])
    >>> tx = gradual(optax.sgd(0.1), pruner, counts, Events(every=10), prunable=prunable)
    >>> _, state = tx.update({"w": jnp.ones((1, 2))}, tx.init(params), params)
    >>> optax.tree.get(state, "mask")["w"].tolist()
    [[True, False]]
    """
    check_events(events)
    last = events.begin + events.every * jax.tree.leaves(counts)[0].shape[0]
    events = events._replace(end=min(events.end, last))

    def revise(
        mask: Mask, step: jax.Array, key: Key, grads: Params, params: Params, counts: Count
    ) -> Revision:
        number = (step - events.begin) // events.every
        count = trees.index(counts, number)
        new, info = pruner.with_info(params, mask, count, prunable=prunable, layouts=layouts)
        return new, scores.is_bad(info)

    counts = jax.tree.map(jnp.asarray, counts)
    inside = _in_the_callers_structure(prunable, revise)
    return owning(inner, ones_like, events, inside, None, counts)


def sparse_evolution(
    inner: optax.GradientTransformation,
    start: Start,
    events: Events,
    *,
    key: Key,
    fraction: float = 0.3,
    prunable: Prunable,
    layouts: Layouts | None = None,
) -> Transform:
    """SET (Mocanu et al., 2018): each event drops the smallest weights and grows random ones.

    In every prunable layer `fraction` of the kept weights, those of smallest magnitude, are
    dropped, and as many others are grown at random with value 0, so that the count of each layer is
    constant. The step is then taken under the new mask.

    Args:
      inner: any optimizer.
      start: `params -> mask`, usually random by ERK.
      events: the updates with an event.
      key: typed key; it becomes a leaf of the state, one per member.
      fraction: fraction of the kept weights that each event drops, in (0, 1].
      prunable: static tree of Python booleans.
      layouts: declares stacked layers (`lth_jax.layouts`).

    Raises:
      ValueError: `fraction` or `events` is out of range.
      TypeError: an argument has the wrong type.

    >>> start = lambda params: {"w": jnp.array([[True, True], [False, False]])}
    >>> tx = sparse_evolution(optax.sgd(0.1), start, Events(every=5), key=jax.random.key(0),
    ...                       fraction=0.5, prunable={"w": True})
    >>> params = {"w": jnp.array([[3.0, 1.0], [0.0, 0.0]])}
    >>> _, state = tx.update({"w": jnp.ones((2, 2))}, tx.init(params), params)
    >>> optax.tree.get(state, "mask")["w"].sum().item()
    2
    """
    fraction = check_fraction("fraction", fraction)

    def revise(mask: Mask, step: jax.Array, key: Key, grads: Params, params: Params) -> Revision:
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        draws = [jax.random.uniform(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
        growth = jax.tree.unflatten(structure, draws)
        return _drop_and_grow(mask, params, growth, jnp.float32(fraction), prunable, layouts)

    # Other key implementations draw other numbers under vmap than for a single member.
    key = as_threefry(key)
    return owning(inner, start, events, _in_the_callers_structure(prunable, revise), key)


def rigl(
    inner: optax.GradientTransformation,
    start: Start,
    events: Events,
    *,
    fraction: float = 0.3,
    prunable: Prunable,
    layouts: Layouts | None = None,
) -> Transform:
    """RigL (Evci et al., 2020): drops the smallest weights, grows where the gradient is largest.

    At update t, in every prunable layer, the fraction `fraction/2·(1 + cos(π·t/end))` of the kept
    weights is dropped by magnitude, and as many of the others are grown, by magnitude of the
    gradient, with value 0; the counts are constant. Pass the dense gradient (of the loss at the
    masked weights) to `update`. The step is then taken under the new mask; in the paper, weights
    are not updated at an event.

    Args:
      inner: any optimizer.
      start: `params -> mask`, usually random by ERK.
      events: the updates with an event, with an `end`, usually three quarters of training. Without
        an `end` the cosine does not decay: every event drops `fraction` of the kept weights.
      fraction: fraction of the kept weights that an event at update 0 drops, in (0, 1].
      prunable: static tree of Python booleans.
      layouts: declares stacked layers (`lth_jax.layouts`).

    Raises:
      ValueError: `fraction` or `events` is out of range.
      TypeError: an argument has the wrong type.

    >>> start = lambda params: {"w": jnp.array([[True, True], [False, False]])}
    >>> tx = rigl(optax.sgd(0.1), start, Events(every=5, end=100), fraction=0.5,
    ...           prunable={"w": True})
    >>> params, grads = {"w": jnp.array([[3.0, 1.0], [0.0, 0.0]])}, {"w": jnp.eye(2)}
    >>> _, state = tx.update(grads, tx.init(params), params)
    >>> optax.tree.get(state, "mask")["w"].tolist()
    [[True, False], [False, True]]
    """
    fraction = check_fraction("fraction", fraction)

    def revise(mask: Mask, step: jax.Array, key: Key, grads: Params, params: Params) -> Revision:
        trees.check_same_structure("grads", grads, "params", params)  # not one per example
        done = step.astype(jnp.float32) / events.end
        now = fraction / 2 * (1 + jnp.cos(jnp.pi * done))
        return _drop_and_grow(mask, params, jax.tree.map(jnp.abs, grads), now, prunable, layouts)

    return owning(inner, start, events, _in_the_callers_structure(prunable, revise))


def straight_through(
    inner: optax.GradientTransformation,
    pruner: Pruner,
    count: Count,
    events: Events = EACH_UPDATE,
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
) -> Transform:
    """Trains dense latent weights by straight-through gradients; the network uses the best of them.

    The parameters are latent: compute loss and gradient at `effective_params(params, state)` and
    pass that gradient to `update`, which applies it to all latent weights, so that pruned weights
    can return (Bengio et al., 2013; for pruning, Lin et al., 2020, "Dynamic model pruning with
    feedback"). After the updates of `events`, counted from 1, a new mask is selected from the
    latent weights.

    Args:
      inner: any optimizer.
      pruner: from `prune`, with a criterion that needs neither data nor a key.
      count: number of weights that the network keeps, as the pruner's scope counts.
      events: after which updates the mask is revised; after each by default.
      prunable: static tree of Python booleans.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), as `pruner` needs it.

    Raises:
      ValueError: `events` is out of range; from `init`, the scores are invalid.

    >>> from lth_jax.pruning import prune, scopes
    >>> from lth_jax.pruning.transforms import effective_params
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
    inner = extended(inner)
    check_events(events)

    def best(params: Params, count: Count) -> tuple[Mask, Info]:
        latent = in_structure_of("params", params, "prunable", prunable)
        mask, info = pruner.with_info(
            latent, ones_like(latent), count, prunable=prunable, layouts=layouts
        )
        return in_structure_of("mask", mask, "params", params), info

    def init(params: Params) -> SparseState:
        state = init_inner(inner, params, latent=True)
        mask, info = best(params, count)
        scores.check(info, pruner.criterion, count, prunable)
        undecided = scores.is_bad(info).astype(jnp.int32)
        return SparseState(mask, jnp.zeros((), jnp.int32), None, state, undecided)

    def update(
        grads: Params, state: SparseState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, SparseState]:
        if params is None:
            raise ValueError("`params` must be given to `update`: the mask is selected from them.")
        updates, inner_state = update_inner(inner, grads, state.inner, params, extra)
        step = state.step + 1
        latent = optax.apply_updates(params, updates)

        def renewed(
            held: tuple[Mask, jax.Array], latent: Params, count: Count
        ) -> tuple[Mask, jax.Array]:
            new, info = best(latent, count)
            return scores.unless_bad(info, new, held[0]), held[1] + scores.is_bad(info)

        held = (state.mask, state.undecided)
        mask, undecided = when(events.at(step), renewed, held, latent, count)
        return updates, SparseState(mask, step, None, inner_state, undecided)

    return Transform(init, update)


def _in_the_callers_structure(prunable: Prunable, revise: Callable[..., Revision]) -> Any:
    """`revise` on trees in the containers of `prunable`; its mask in those of the old one.

    The caller's counts, groups and layouts have the containers of `prunable`. The parameters may
    have others: `nnx.Optimizer` replaces variables by arrays.
    """

    def inside(
        mask: Mask, step: Any, key: Any, grads: Params, params: Params, *operands: Any
    ) -> Revision:
        trees_ = {"mask": mask, "grads": grads, "params": params}
        theirs = {
            name: in_structure_of(name, tree, "prunable", prunable) for name, tree in trees_.items()
        }
        new, undecided = revise(
            theirs["mask"], step, key, theirs["grads"], theirs["params"], *operands
        )
        return in_structure_of("mask", new, "params", mask), undecided

    return inside


def _drop_and_grow(
    mask: Mask,
    params: Params,
    growth: Params,
    fraction: jax.Array,
    prunable: Prunable,
    layouts: Layouts | None,
) -> Revision:
    """Layer by layer, swaps a fraction of the kept weights for the others of largest `growth`.

    A layer whose magnitudes or growth scores are invalid keeps its mask.
    """

    def revise(m: jax.Array, p: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        kept = jnp.sum(m, dtype=jnp.int32)
        swapped = (fraction * kept.astype(jnp.float32)).astype(jnp.int32)
        survivors = largest([jnp.abs(p)], [m], kept - swapped)[0]
        new = survivors | largest([g], [~survivors], swapped)[0]
        dropped = scores.inspect(jnp.abs(p), m, kept - swapped, prunable=True)
        grown = scores.inspect(g, ~survivors, swapped, prunable=True)
        bad = scores.is_bad(dropped) | scores.is_bad(grown)
        return jnp.where(bad, m, new), bad

    check_prunable(prunable, mask)
    known, undecided = resolve(mask, layouts), list[jax.Array]()

    def leaf(name: str, use: bool, m: jax.Array, p: jax.Array, g: jax.Array) -> Any:
        if not use:
            return m
        revised: Revision = map_layers(revise, known.get(name), m, p, g)
        undecided.append(jnp.any(revised[1]))
        return revised[0]

    new = trees.map_named(leaf, prunable, mask, params, growth)
    return new, jnp.any(jnp.stack(undecided))
