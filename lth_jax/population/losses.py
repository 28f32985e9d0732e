"""Per-example losses and metrics, `(outputs, targets) -> float32[n]`, not averaged over examples.

For sequences with a target at each step, the value of an example is the mean over its steps.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import text
from lth_jax.registry import Registry

PerExample = Callable[[Any, Any], jax.Array]
"""`(outputs, targets) -> float[n]`, one value for each example."""

LOSSES: Registry[PerExample] = Registry("loss")
"""Losses by name; configs use these names."""

METRICS: Registry[PerExample] = Registry("metric")
"""Metrics by name; configs use these names."""


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The negative log-likelihood of the labels under the softmax, in nats.

    `-zᵢ[yᵢ] + log Σⱼ exp zᵢ[j]` for each example i, computed in float32.

    Args:
      logits: `(n, …, classes)`, any float dtype.
      labels: `(n, …)` integers in `[0, classes)`.

    Returns:
      float32 `(n,)`.

    Raises:
      TypeError: the labels are not integers.
      ValueError: the labels have another shape than the logits without their last axis.

    >>> [f"{loss:.4f}" for loss in cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))]
    ['1.3863', '1.3863']
    """
    check_labels(logits, labels)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return _per_example(-jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0])


def bits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`cross_entropy` in bits, `CE / log 2`; bits per character if the targets are characters.

    Arguments and errors are those of `cross_entropy`.

    >>> bits(jnp.zeros((1, 3, 4)), jnp.zeros((1, 3), int)).tolist()
    [2.0]
    """
    return cross_entropy(logits, labels) / math.log(2)


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy with distributions as targets, `−Σⱼ tᵢⱼ log softmax(zᵢ)ⱼ`, in nats.

    Args:
      logits: `(n, …, classes)`, any float dtype.
      targets: same shape; non-negative, with sum 1 over the classes.

    Returns:
      float32 `(n,)`.

    >>> f"{soft_cross_entropy(jnp.zeros((1, 4)), jnp.full((1, 4), 0.25))[0]:.4f}"
    '1.3863'
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return _per_example(-jnp.sum(targets.astype(jnp.float32) * log_p, axis=-1))


@text.with_short_repr
class DistillTargets(NamedTuple):
    """Targets of `distillation`: labels and the teachers' logits.

    Attributes:
      labels: `(n, …)` integers, or distributions `(n, …, classes)`.
      logits: logits of the teachers, `(teachers, n, …, classes)`.
      weight: `(n,)`, the weight of the teachers' term in [0, 1]; 1 for unlabelled examples.
      temperature: scalar, above 0.
    """

    labels: jax.Array
    logits: jax.Array
    weight: jax.Array
    temperature: jax.Array


def distillation(logits: jax.Array, taught: DistillTargets) -> jax.Array:
    """The distillation loss from labels and teachers (Hinton, Vinyals and Dean, 2015).

    `(1 − w) CE(y, z) + w T² KL(p_T ‖ softmax(z / T))`, where `p_T` is the mean of the teachers'
    `softmax(v / T)`. With `w = 0` it is the cross-entropy; with one teacher and T → ∞, `T² KL`
    tends to `|z̃ − ṽ|² / (2 classes)` of the logits less their means.

    Args:
      logits: `(n, …, classes)`, any float dtype.
      taught: labels, teachers' logits, weight and temperature.

    Returns:
      float32 `(n,)`.

    >>> z, v = jnp.array([[1.0, 0.0]]), jnp.array([[[0.0, 1.0]]])
    >>> weight, temperature = jnp.ones(1), jnp.float32(1.0)
    >>> targets = DistillTargets(jnp.array([0]), v, weight, temperature)
    >>> f"{distillation(z, targets)[0]:.4f}"
    '0.4621'
    """
    hard = taught.labels.ndim < logits.ndim
    base = (cross_entropy if hard else soft_cross_entropy)(logits, taught.labels)
    z = logits.astype(jnp.float32) / taught.temperature
    p = jnp.mean(jax.nn.softmax(taught.logits.astype(jnp.float32) / taught.temperature), axis=0)
    divergence = jnp.sum(-jax.scipy.special.entr(p) - p * jax.nn.log_softmax(z), axis=-1)
    softened = taught.temperature**2 * _per_example(divergence)
    return (1 - taught.weight) * base + taught.weight * softened


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Half the squared distance, `½ Σⱼ (oᵢⱼ − tᵢⱼ)²` for each example i.

    Args:
      outputs: `(n, …)`, any float dtype.
      targets: same shape.

    Returns:
      float32 `(n,)`.

    Raises:
      ValueError: outputs and targets have different shapes: `(n, 1)` and `(n,)` would broadcast.

    >>> squared_error(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))).tolist()
    [12.5]
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"`targets` have shape {targets.shape}; they must have that of the outputs, "
            f"{outputs.shape}."
        )
    difference = (outputs - targets).astype(jnp.float32)
    return 0.5 * jnp.sum(difference.reshape(len(difference), -1) ** 2, axis=-1)


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1.0 where the largest logit is the label's, else 0.0; its mean is the accuracy.

    Of equal logits the first counts as the largest; with a NaN, none does. Arguments and errors are
    those of `cross_entropy`.

    >>> correct(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    check_labels(logits, labels)
    # XLA's argmax (jax 0.10.2) takes as long on CPUs as a forward pass of a small Transformer.
    classes, labels = jnp.arange(logits.shape[-1]), labels[..., None]
    own = jnp.max(logits, axis=-1, keepdims=True, where=classes == labels, initial=-jnp.inf)
    behind = jnp.where(classes < labels, logits < own, logits <= own)
    return _per_example(jnp.all(behind, axis=-1).astype(jnp.float32))


def check_labels(logits: jax.Array, labels: jax.Array) -> None:
    """Raises unless there is one integer label for each vector of logits; reads no values."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"`labels` have dtype {labels.dtype}; they must be integers, one for each vector of "
            f"logits. For other targets give a `loss`, such as `population.squared_error`."
        )
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"`labels` have shape {labels.shape}; they must have shape {logits.shape[:-1]}, as the "
            f"logits have shape {logits.shape}."
        )


def _per_example(values: jax.Array) -> jax.Array:
    """The mean over all axes but the first."""
    return values if values.ndim == 1 else jnp.mean(values.reshape(len(values), -1), axis=-1)


LOSSES.register("cross_entropy", cross_entropy)
LOSSES.register("squared_error", squared_error)
METRICS.register("accuracy", correct)
METRICS.register("bits", bits)
