"""Per-example losses and metrics, `(outputs, targets) -> float32[n]`; callers take the means."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The negative log-likelihood of the labels under the softmax, in nats.

    `-zᵢ[yᵢ] + log Σⱼ exp zᵢ[j]` for each example i, computed in float32.

    Args:
      logits: `(n, classes)`, any float dtype.
      labels: `(n,)` integers in `[0, classes)`.

    Returns:
      float32 `(n,)`.

    >>> [f"{loss:.4f}" for loss in cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))]
    ['1.3863', '1.3863']
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Half the squared distance, `½ Σⱼ (oᵢⱼ − tᵢⱼ)²` for each example i.

    >>> squared_error(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))).tolist()
    [12.5]
    """
    difference = (outputs - targets).astype(jnp.float32)
    return 0.5 * jnp.sum(difference.reshape(len(difference), -1) ** 2, axis=-1)


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1.0 where the largest logit is the label's, else 0.0; its mean is the accuracy.

    >>> correct(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
