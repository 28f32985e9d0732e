"""Matrix products in full precision.

Accelerators multiply float32 matrices in fewer bits by default: TF32 on NVIDIA GPUs (10 bits),
bfloat16 passes on TPUs. That is enough for training, but an error of 1e-3 in each product equals
the default tolerance of eigenvalues, and masks the exhaustion of a Krylov space. On a CPU there is
no difference.
"""

from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp


def full_precision() -> AbstractContextManager[None]:
    """A context in which traced float32 products use full precision, unless they set another.

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
