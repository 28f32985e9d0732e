"""Shared parts of methods: events, intermediate counts, and the state of learned masks."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lth_jax.pruning.checks import same_structure
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.methods.method import Inputs, Method
from lth_jax.pruning.transforms import Events, Transform
from lth_jax.pruning.transforms.subnetwork import in_structure_of
from lth_jax.types import Count, Mask, Params, Prunable

Build = Callable[[optax.GradientTransformation, Inputs], Transform]


class LearnedState(NamedTuple):
    """The state of a method that learns mask scores or thresholds.

    Attributes:
      mask: True = used by the network.
      scores: mask scores or thresholds, in the structure of the parameters.
      step: number of updates so far (int32).
      inner: the state of the inner optimizer, or of those of weights and scores.
      undecided: number of times that scores were invalid (int32).
    """

    mask: Mask
    scores: Any
    step: jax.Array
    inner: Any
    undecided: jax.Array


def on_subnetwork(name: str, build: Build, *, starts_dense: bool) -> Method:
    """A method whose parameters are exactly 0 outside the mask.

    Args:
      name: name of the method.
      build: `(inner, inputs) -> transformation` whose state has `mask` and `step`.
      starts_dense: as in `Method`.
    """
    return Method(name, _scheduled(build), lambda params, state: params, masked, starts_dense)


def on_latent(name: str, build: Build) -> Method:
    """A method with latent parameters: the network uses those in the mask."""
    return learned(name, build, lambda params, state: masked(params, state)[0], masked)


def learned(
    name: str,
    build: Build,
    effective: Callable[[Params, Any], Params],
    final: Callable[[Params, Any], tuple[Params, Mask]],
    *,
    exact: bool = True,
) -> Method:
    """A method with its own functions `effective` and `final`."""
    return Method(name, _scheduled(build), effective, final, True, exact)


def masked(params: Params, state: Any) -> tuple[Params, Mask]:
    """The parameters under the state's mask, and the mask; both in the parameters' containers."""
    mask = in_structure_of("mask", state.mask, "params", params)
    return apply_mask(mask, params), mask


def require_params(params: Params | None) -> Params:
    """`params`, or a `ValueError` that `update` needs them."""
    if params is None:
        raise ValueError("`params` must be given to `update`: methods read the weights.")
    return params


def zeros_like(params: Params) -> Params:
    """Mask scores of 0: in at least float32, so that small steps are not lost."""
    return jax.tree.map(
        lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params
    )


def events_in(
    steps: int, events: Events | Sequence[int] | None, *, every: int = 100, until: float = 0.75
) -> Events:
    """The events of a training run: those given, or default ones.

    Args:
      steps: updates of the training.
      events: `Events`, or its numbers `every`, `begin` and `end`; None for the defaults. The end is
        limited to `steps`.
      every: the default spacing and first event; at most a twentieth of the training.
      until: the fraction of the training after which the default has no event.

    Raises:
      ValueError: `steps` is not an integer of at least 1, `events` are not three integers, or no
        event lies in the training.

    >>> events_in(1000, None), events_in(1000, (100, 0, 2000))
    (Events(every=50, begin=50, end=750), Events(every=100, begin=0, end=1000))
    """
    if isinstance(steps, bool) or not isinstance(steps, numbers.Integral) or steps < 1:
        raise ValueError(f"`steps` must be a whole number of at least 1, but is {steps!r}.")
    steps = int(steps)
    if events is None:
        every = max(1, min(every, steps // 20))
        begin = min(every, steps - 1)
        events = Events(every, begin, max(begin + 1, int(until * steps)))
    events = as_events(events)
    if not 0 <= events.begin < min(events.end, steps):
        raise ValueError(f"`events` is {events}, but none lies in the {steps} steps of training.")
    return events._replace(end=min(events.end, steps))


def as_events(events: Sequence[int]) -> Events:
    """`Events`, or its numbers `every`, `begin` and `end`, checked.

    Raises:
      ValueError: they are not three integers, or give no event.

    >>> as_events((100, 0, 750))
    Events(every=100, begin=0, end=750)
    """
    numbered = isinstance(events, tuple | list) and len(events) == len(Events._fields)
    if not (numbered and all(isinstance(one, numbers.Integral) for one in events)):
        raise ValueError(
            f"`events` is {events!r}; it must be `Events`, or its three integers every,begin,end: "
            "100,100,750 are the updates 100, 200, … before 750."
        )
    found = Events(*map(int, events))
    found.check()
    return found


def cubic_count(
    count: Count, params: Params, prunable: Prunable, step: jax.Array, events: Events
) -> Count:
    """The number of weights kept after an event of cubic pruning; the last event keeps `count`.

    Event i of N keeps `count + (all − count)·(1 − (i+1)/N)³`, rounded half up (Zhu & Gupta, 2017,
    equation 1, from sparsity 0). After the last event it is `count`.

    Args:
      count: the final count: one number for all prunable weights, or a tree with one per leaf (per
        layer of a stack); may be traced. Leaves that are not prunable have their size as count.
      params: the parameters, for the number of weights.
      prunable: static tree of Python booleans.
      step: the update at which the event occurs.
      events: the schedule, with an end.

    >>> params, prunable = {"w": jnp.zeros(10)}, {"w": True}
    >>> [int(cubic_count(jnp.int32(2), params, prunable, i, Events(1, 0, 2))) for i in range(3)]
    [3, 2, 2]
    """
    number = -(-(events.end - events.begin) // events.every)
    done = jnp.clip((step - events.begin) // events.every + 1, 0, number)
    left = ((number - done).astype(jnp.float32) / number) ** 3

    def between(size: int, k: Any) -> jax.Array:
        k = jnp.asarray(k, jnp.int32)
        rest = (size // max(1, k.size) - k).astype(jnp.float32) * left
        now: jax.Array = k + jnp.floor(rest + 0.5).astype(jnp.int32)
        return now

    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    if same_structure(count, 0):
        used = zip(sizes, jax.tree.leaves(prunable), strict=True)
        return between(sum(size for size, use in used if use), count)
    counts, structure = jax.tree.flatten(count)
    now = [between(*at) for at in zip(sizes, counts, strict=True)]
    return jax.tree.unflatten(structure, now)


def _scheduled(build: Build) -> Build:
    """`build` whose `update` also takes the number of the step."""

    def transform(inner: optax.GradientTransformation, inputs: Inputs) -> Transform:
        tx = build(inner, inputs)

        def update(
            grads: Params,
            state: Any,
            params: Params | None = None,
            *,
            step: Any = None,
            **extra: Any,
        ) -> tuple[Params, Any]:
            if step is not None:
                state = state._replace(step=jnp.asarray(step, jnp.int32))
            updates, state = tx.update(grads, state, params, **extra)
            return updates, state

        return Transform(tx.init, update)

    return transform
