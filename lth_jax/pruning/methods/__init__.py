"""How a mask lives in training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from lth_jax.types import Count, Key, Mask, Params


class Inputs(NamedTuple):
    mask: Mask
    count: Count
    key: Key


class Method(NamedTuple):
    name: str
    transform: Callable[[optax.GradientTransformation, Inputs], Any]
    effective: Callable[[Params, Any], Params]
    final: Callable[[Params, Any], tuple[Params, Mask]]
    starts_dense: bool


METHODS: dict = {}
STATIC = "static"
