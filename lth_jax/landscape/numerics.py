"""Matrix products in full precision.

Accelerators multiply float32 matrices in fewer bits by default: TF32 on NVIDIA GPUs (10 bits),
bfloat16 passes on TPUs. That is enough for training, but an error of 1e-3 in each product is as
large as the default tolerance of eigenvalues, and hides when a Krylov space is exhausted. On a CPU
the request changes nothing.
"""

from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp


def full_precision() -> AbstractContextManager[None]:
    """Within it, traced products of float32 take all bits, unless they set another precision.

    >>> with full_precision():
    ...     jaxpr = jax.make_jaxpr(jnp.matmul)(jnp.ones((1, 1)), jnp.ones((1, 1)))
    >>> "HIGHEST" in str(jaxpr)
    True
    """
    return jax.default_matmul_precision("float32")


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a @ b` in full precision.

    >>> dot(jnp.ones((2, 3)), jnp.ones(3)).tolist()
    [3.0, 3.0]
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
