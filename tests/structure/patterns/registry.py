"""The patterns of large models: each is a small function, its groups, and what it keeps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TOKENS = jnp.array([[1, 3, 0, 2], [2, 2, 6, 5]])


class Pattern(NamedTuple):
    """A network, and what can be removed from it.

    `groups`: kind of unit → (name of the group, units). `blocks`: names of the residual blocks.
    `kept`: what stays → its axes `(leaf, axis)`; axes that inputs, results, vocabularies and
    windows need are not listed.
    """

    apply: Callable[..., Any]
    params: dict[str, Any]
    args: tuple[Any, ...]
    groups: dict[str, tuple[str, int]]
    blocks: tuple[str, ...]
    kept: dict[str, list[tuple[str, int]]]


PATTERNS: dict[str, Pattern] = {}


def pattern(name, params, *args, groups, blocks=(), kept=None):
    """Registers a network under the name that the table of the documentation shows."""

    def add(apply):
        PATTERNS[name] = Pattern(apply, params, args, groups, blocks, kept or {})
        return apply

    return add


def weights(**shapes):
    """Normal arrays, of the scale that keeps activations of order 1."""
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1]))), "float32")
        for name, shape in shapes.items()
    }


def data(*shape, seed=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), "float32")


def rms_norm(x, scale):
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-3) * scale


def layer_norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    var = (x * x).mean(-1, keepdims=True) - mean * mean
    return (x - mean) * (lax.rsqrt(var + 1e-3) * scale) + bias


def attend(q, k, v, cap=None, mask=None):
    """Attention of `[batch, time, heads, features]`; a cap is a soft one on the logits."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    if cap:
        logits = cap * jnp.tanh(logits / cap)
    if mask is not None:
        logits = jnp.where(mask, logits, -1e9)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)


def heads(x, w, n):
    """The projection of `[batch, time, width]` to `n` heads."""
    return (x @ w).reshape(*x.shape[:2], n, -1)


def joined(x):
    return x.reshape(*x.shape[:2], -1)


def conv(x, w, stride=1, groups=1, padding="SAME"):
    layouts = {3: ("NWC", "WIO", "NWC"), 4: ("NHWC", "HWIO", "NHWC")}
    return lax.conv_general_dilated(
        x, w, (stride,) * (x.ndim - 2), padding, dimension_numbers=layouts[x.ndim],
        feature_group_count=groups,
    )  # fmt: skip
