"""Random resized crops of images, made on the device as a step of `population.augment.chain`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.types import Batch, Key

ATTEMPTS = 10
RATIO = 4 / 3
"""The largest ratio of the sides of a box."""


def random_resized_crop(smallest: float = 0.08) -> Callable[..., Batch]:
    """A step that resizes a random box of each image to the size of the image.

    The area of the box is uniform on `[smallest, 1]` of the image's, the logarithm of its ratio of
    width to height uniform on `[log 3/4, log 4/3]`, its place uniform (Szegedy et al., 2015, "Going
    deeper with convolutions"). Of ten draws, the first whose box lies in the image counts; if none
    does, the whole image is kept. See `resized_box` for the resizing.

    Args:
      smallest: smallest area of a box, as a fraction of the image's, in (0, 1].

    Returns:
      A step of `population.augment.chain`, for images `(n, height, width, channels)`.

    Raises:
      ValueError: `smallest` is outside (0, 1].

    >>> images = Batch(jnp.zeros((2, 8, 8, 3), jnp.uint8), jnp.arange(2))
    >>> batch = random_resized_crop()(jax.random.key(0), images, jnp.arange(2), None, {})
    >>> batch.x.shape, batch.x.dtype.name
    ((2, 8, 8, 3), 'uint8')
    """
    if not 0 < smallest <= 1:
        raise ValueError(f"`smallest` is {smallest}; it must lie in (0, 1].")

    def one(key: Key, image: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        return resized_box(image, random_box(key, height, width, smallest))

    def step(key: Key, batch: Batch, rows: jax.Array, member: Any, constants: Any) -> Batch:
        each = jax.random.split(key, len(batch.x))
        return batch._replace(x=jax.vmap(one)(each, batch.x))

    return step


def random_box(key: Key, height: int, width: int, smallest: float) -> jax.Array:
    """`(top, left, height, width)` of a random box in pixels, int32; see `random_resized_crop`."""
    by_area, by_ratio, by_place = jax.random.split(key, 3)
    area = jax.random.uniform(by_area, (ATTEMPTS,), minval=smallest, maxval=1.0) * height * width
    bound = jnp.log(RATIO)
    ratio = jnp.exp(jax.random.uniform(by_ratio, (ATTEMPTS,), minval=-bound, maxval=bound))
    drawn = jnp.round(jnp.sqrt(jnp.stack([area / ratio, area * ratio], axis=1)))
    whole = jnp.array([height, width], jnp.int32)
    sides = jnp.maximum(drawn.astype(jnp.int32), 1)
    fits = jnp.all(sides <= whole, axis=1)
    side = jnp.where(jnp.any(fits), sides[jnp.argmax(fits)], whole)
    return jnp.concatenate([jax.random.randint(by_place, (2,), 0, whole - side + 1), side])


def resized_box(image: jax.Array, box: jax.Array) -> jax.Array:
    """A box of an image, resized to the size of the image.

    Equal to `jax.image.resize(image[box], image.shape, "bilinear")`, which is antialiased, but the
    box may be traced.

    Args:
      image: `(height, width, channels)`; integers are rounded back to their dtype.
      box: `(top, left, height, width)` in pixels, inside the image.
    """
    dtype = image.dtype if jnp.issubdtype(image.dtype, jnp.floating) else jnp.float32
    rows, columns = (
        _weights(size, box[axis], box[axis + 2]).astype(dtype)
        for axis, size in enumerate(image.shape[:2])
    )
    precision = jax.lax.Precision.HIGHEST
    found = jnp.einsum("iy,jx,yxc->ijc", rows, columns, image.astype(dtype), precision=precision)
    return (found if dtype == image.dtype else jnp.round(found)).astype(image.dtype)


def _weights(size: int, first: jax.Array, length: jax.Array) -> jax.Array:
    """`(new pixels, pixels)` of one axis: linear interpolation between the pixels of a box."""
    pixels = jnp.arange(size, dtype=jnp.int32)
    scale = length / size  # at most 1, so that no antialiasing is needed
    at = jnp.clip((jnp.arange(size) + 0.5) * scale - 0.5, 0, length - 1) + first
    inside = (pixels >= first) & (pixels < first + length)
    return jnp.maximum(1 - jnp.abs(at[:, None] - pixels), 0) * inside
