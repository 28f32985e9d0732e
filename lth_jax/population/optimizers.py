"""Optimizers and learning-rate schedules by name; configs use these names."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from lth_jax.registry import Registry

OPTIMIZERS: Registry[Callable[[Mapping[str, Any]], optax.GradientTransformation]] = Registry(
    "optimizer"
)
"""`hyper -> optax transformation`, called inside the trace, before any mask.

`hyper` holds a member's hyperparameters, which may be traced: `learning_rate` (with the schedule
applied), `weight_decay` and `momentum`.
"""

LR_SCHEDULES: Registry[Callable[[int], optax.Schedule]] = Registry("learning-rate schedule")
"""`steps -> schedule`; the schedule maps a step to a factor of the peak learning rate."""

OPTIMIZERS.register(
    "sgd",
    lambda h: optax.chain(
        optax.add_decayed_weights(h["weight_decay"]), optax.sgd(h["learning_rate"], h["momentum"])
    ),
)
OPTIMIZERS.register(
    "nesterov",
    lambda h: optax.chain(
        optax.add_decayed_weights(h["weight_decay"]),
        optax.sgd(h["learning_rate"], h["momentum"], nesterov=True),
    ),
)
OPTIMIZERS.register("adam", lambda h: optax.adam(h["learning_rate"]))
OPTIMIZERS.register(
    "adamw", lambda h: optax.adamw(h["learning_rate"], weight_decay=h["weight_decay"])
)
OPTIMIZERS.register(
    "lion", lambda h: optax.lion(h["learning_rate"], weight_decay=h["weight_decay"])
)
OPTIMIZERS.register(
    "lamb", lambda h: optax.lamb(h["learning_rate"], weight_decay=h["weight_decay"])
)
OPTIMIZERS.register("rmsprop", lambda h: optax.rmsprop(h["learning_rate"]))


def constant_cosine(steps: int) -> optax.Schedule:
    """1 for a quarter of the steps, then linear warm-up in a tenth of the rest, then a cosine.

    For rewinding to the end of the first quarter, as in the code of github.com/cs-giung/
    lottery-ticket-imagenet (2023).

    >>> rate = constant_cosine(400)
    >>> [round(float(rate(step)), 3) for step in (0, 99, 100, 115, 130, 265, 400)]
    [1.0, 1.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    """
    first = steps // 4
    warmup = (steps - first) // 10
    parts = [
        optax.constant_schedule(1.0),
        optax.linear_schedule(0.0, 1.0, warmup),
        optax.cosine_decay_schedule(1.0, steps - first - warmup),
    ]
    return optax.join_schedules(parts, [first, first + warmup])


LR_SCHEDULES.register("constant_cosine", constant_cosine)
LR_SCHEDULES.register("constant", lambda steps: optax.constant_schedule(1.0))
LR_SCHEDULES.register("cosine", lambda steps: optax.cosine_decay_schedule(1.0, steps))
LR_SCHEDULES.register("linear", lambda steps: optax.linear_schedule(1.0, 0.0, steps))
LR_SCHEDULES.register(
    "step",
    lambda steps: optax.piecewise_constant_schedule(1.0, {steps // 2: 0.1, 3 * steps // 4: 0.1}),
)
