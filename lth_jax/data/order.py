"""The examples of a step: a pure function of a key and the step number.

There is no state between steps, so training can resume at any step, and members with the same key
get the same batches. An epoch is one pass over the data in a new order. It drops `size %
batch_size` examples, different ones in each epoch, so that all batches are full. `indices` and
`in_order` take the same arguments, so that either can be the order.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.data.checks import check_integer

_DOUBLE_ROUNDS = 6  # with 4, pairs in sets of 5 or 9 examples are measurably non-uniform


def indices(key: jax.Array, step: Any, *, steps: int, batch_size: int, size: int) -> jax.Array:
    """Batches of consecutive epochs, each a pseudo-random permutation of `range(size)`.

    Step `t` is in epoch `t // (size // batch_size)`, whose permutation depends on `fold_in(key,
    epoch)`. The permutation is a keyed bijection that is evaluated only at the required positions,
    at the cost O(steps · batch_size) for any size: a Feistel network on an a × b ≥ size lattice,
    iterated until the result is below `size` (Black and Rogaway, "Ciphers with arbitrary finite
    domains", 2002). It is statistically, not cryptographically, random.

    Args:
      key: a typed key; may be batched by `vmap`.
      step: the first step, an integer below 2³¹ − steps; may be traced.
      steps: number of steps.
      batch_size: examples per step.
      size: number of examples in the data set, below 2³¹.

    Returns:
      int32 of shape `(steps, batch_size)`: the examples of steps `step`, …, `step + steps − 1`.

    Raises:
      TypeError: if `step`, `steps`, `batch_size` or `size` is not an integer.
      ValueError: if one is not positive, or a batch is larger than the data set.

    >>> draw = jax.jit(indices, static_argnames=("steps", "batch_size", "size"))
    >>> sorted(draw(jax.random.key(0), 0, steps=3, batch_size=2, size=6).ravel().tolist())
    [0, 1, 2, 3, 4, 5]
    """
    epoch, position = _cursor(step, steps, batch_size, size)

    def row(epoch: jax.Array, position: jax.Array) -> jax.Array:
        return _permute(jax.random.fold_in(key, epoch), position, size)

    return jax.vmap(row)(epoch, position)


def in_order(key: jax.Array, step: Any, *, steps: int, batch_size: int, size: int) -> jax.Array:
    """Batches in the order of the data, the same in every epoch; `key` is not used.

    The authors of MNIST-1D train this way (Greydanus, 2020). Arguments, result and errors are those
    of `indices`.

    >>> in_order(jax.random.key(0), 1, steps=2, batch_size=2, size=5).tolist()
    [[2, 3], [0, 1]]
    """
    del key
    _, position = _cursor(step, steps, batch_size, size)
    return position


def _cursor(step: Any, steps: int, batch_size: int, size: int) -> tuple[jax.Array, jax.Array]:
    """The epoch of each step, and the positions of its batch in that epoch."""
    _check(step, steps, batch_size, size)
    step = jnp.asarray(step, jnp.int32) + jnp.arange(steps, dtype=jnp.int32)
    epoch, batch = jnp.divmod(step, jnp.int32(size // batch_size))
    start = batch[:, None] * jnp.int32(batch_size)
    return epoch, start + jnp.arange(batch_size, dtype=jnp.int32)


def _check(step: Any, steps: int, batch_size: int, size: int) -> None:
    if not jnp.issubdtype(jnp.result_type(step), jnp.integer):
        raise TypeError(f"`step` must be an integer, got {step}.")
    for name, value in (("steps", steps), ("batch_size", batch_size), ("size", size)):
        check_integer(name, value, 1)
    if batch_size > size:
        raise ValueError(f"`batch_size` must not exceed the data set's size {size}: {batch_size}.")


def _permute(key: jax.Array, position: jax.Array, size: int) -> jax.Array:
    """Maps each position by a keyed bijection of `range(size)`."""
    b = math.isqrt(size - 1) + 1
    a = -(-size // b)
    round_keys = jax.random.bits(key, (_DOUBLE_ROUNDS, 2), jnp.uint32)

    def walk(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, outside = state
        x = jnp.where(outside, _feistel(round_keys, x, a, b), x)
        return x, x >= jnp.uint32(size)

    start = position.astype(jnp.uint32), jnp.ones_like(position, dtype=bool)
    inside, _ = jax.lax.while_loop(lambda state: state[1].any(), walk, start)
    return inside.astype(jnp.int32)


def _feistel(round_keys: jax.Array, x: jax.Array, a: int, b: int) -> jax.Array:
    """A keyed bijection of `range(a · b)`: two coordinates alternately shift each other."""

    def double_round(
        halves: tuple[jax.Array, jax.Array], key: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        left, right = halves
        left = _shift(left, _mix(right ^ key[0]), a)
        right = _shift(right, _mix(left ^ key[1]), b)
        return (left, right), None

    halves = jnp.divmod(x, jnp.uint32(b))
    (left, right), _ = jax.lax.scan(double_round, halves, round_keys)
    return left * jnp.uint32(b) + right


def _shift(x: jax.Array, by: jax.Array, modulus: int) -> jax.Array:
    """`(x + by) mod modulus` for x below the modulus, without overflow."""
    m = jnp.uint32(modulus)
    return (x + by % m) % m


def _mix(x: jax.Array) -> jax.Array:
    """Scrambles 32 bits: the finalizer of MurmurHash3 (Appleby, 2011), a bijection."""
    x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> jnp.uint32(16))
