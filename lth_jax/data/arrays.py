"""Splits a user's arrays into training, validation and test data."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.data.checks import check_real
from lth_jax.keys import check_seed
from lth_jax.types import Batch, Splits

NAMES = ("train", "validation", "test")


def from_arrays(data: Any, *, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> Splits:
    """Splits inputs and targets into training, validation and test data on the device.

    Args:
      data: `(x, y)`, which is split at random, or `{"train": (x, y), "test": (x, y)}`. Without a
        `"validation"` split, validation examples are taken from the training examples. `x` and `y`
        are arrays or pytrees of arrays with the examples along the first axis.
      validation: fraction of the training examples that is held out for validation.
      test: fraction of all examples that is held out for testing; only for `(x, y)`.
      seed: seed of the split, in [0, 2³²).

    Returns:
      The splits; floats as float32 and integers as int32, unless JAX is in x64 mode.

    Raises:
      ValueError: if a split is empty, has parts of different lengths or values that are not finite,
        or has an unknown name.
      TypeError: if `data` is neither a pair nor a mapping of pairs, or contains anything but arrays
        of numbers.

    >>> x, y = np.zeros((100, 4)), np.arange(100) % 2
    >>> [len(split.y) for split in from_arrays((x, y))]
    [72, 8, 20]
    >>> [len(split.y) for split in from_arrays({"train": (x, y), "test": (x[:10], y[:10])})]
    [90, 10, 10]
    """
    check_real("validation", validation, 0.0, 1.0)
    parts = train_and_test(data, test=test, seed=seed)
    if "validation" not in parts:
        parts["train"], parts["validation"] = _split(parts["train"], validation, seed, "validation")
    return Splits(**{name: jax.tree.map(jnp.asarray, parts[name]) for name in NAMES})


def train_and_test(data: Any, *, test: float = 0.2, seed: int = 0) -> dict[str, Batch]:
    """Training and test data on the host, by name; arguments and errors as in `from_arrays`.

    Floats become float32, integers int32.
    """
    check_real("test", test, 0.0, 1.0)
    check_seed(seed)
    if not isinstance(data, Mapping):
        rest, held_out = _split(_pair("data", data), test, seed, "test")
        return {"train": rest, "test": held_out}
    unknown = [name for name in data if name not in NAMES]
    missing = [name for name in ("train", "test") if name not in data]
    if unknown or missing:
        raise ValueError(
            f"`data` has the splits {sorted(map(str, data))}; it must have 'train' and 'test', and "
            "may have 'validation'."
        )
    return {name: _pair(name, pair) for name, pair in data.items()}


def _pair(name: str, pair: Any) -> Batch:
    """Checks that inputs and targets have one length."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        kind = type(pair).__name__
        raise TypeError(f"`{name}` must be a pair `(x, y)` of arrays, got the type {kind}.")
    batch = Batch(*(jax.tree.map(partial(_array, name), part) for part in pair))
    lengths = {len(leaf) for leaf in jax.tree.leaves(batch)}
    if len(lengths) != 1 or 0 in lengths:
        shapes = [leaf.shape for leaf in jax.tree.leaves(batch)]
        raise ValueError(
            f"`{name}` has arrays of shapes {shapes}; all must have the same number of examples, "
            "at least 1, along their first axis."
        )
    for what, part in zip(("inputs", "targets"), batch, strict=True):
        for leaf in jax.tree.leaves(part):
            _check_finite(f"`{name}` has {what}", leaf)
    return batch


def _check_finite(which: str, array: np.ndarray) -> None:
    """Raises `ValueError` for the first NaN or infinite value."""
    finite = np.isfinite(array) if array.dtype.kind in "fcV" else np.ones(1, bool)
    if not finite.all():
        example, *inside = np.unravel_index(np.argmin(finite), finite.shape)
        place = f"example {example}" + (f" at {tuple(map(int, inside))}" if inside else "")
        raise ValueError(
            f"{which} that are NaN or infinite, the first in {place}; all must be finite numbers "
            f"of {array.dtype}."
        )


def _split(batch: Batch, fraction: float, seed: int, name: str) -> tuple[Batch, Batch]:
    """Splits the examples at random: the others first, then a fraction of them."""
    size = len(jax.tree.leaves(batch)[0])
    held_out = int(size * fraction)
    if not 0 < held_out < size:
        raise ValueError(
            f"`{name}` is {fraction:g}, which holds out {held_out} of {size} examples; at least 1 "
            "must be held out and 1 must remain."
        )
    order = np.random.default_rng([seed, NAMES.index(name)]).permutation(size)
    rows = np.sort(order[held_out:]), np.sort(order[:held_out])
    rest, part = (Batch(*jax.tree.map(lambda leaf, r=r: leaf[r], tuple(batch))) for r in rows)
    return rest, part


def _array(name: str, leaf: Any) -> np.ndarray:
    """The array with JAX's dtype for it."""
    array = np.asarray(leaf)
    if not array.ndim:
        raise TypeError(
            f"`{name}` holds {leaf!r:.40}; it must hold arrays with the examples along their first "
            "axis. Convert lists with `np.asarray`."
        )
    if array.dtype.kind not in "biufcV" or array.dtype.names:
        raise TypeError(
            f"`{name}` holds an array of dtype {array.dtype}; it must hold numbers. Number classes "
            "from 0, for instance with `np.unique(y, return_inverse=True)[1]`."
        )
    narrow = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))
    if array.dtype.kind in "iu" and narrow != array.dtype and array.size:
        most, least = np.iinfo(narrow).max, np.iinfo(narrow).min
        if array.max() > most or array.min() < least:
            raise ValueError(
                f"`{name}` holds integers from {array.min()} to {array.max()}; those of {narrow} "
                f"lie between {least} and {most}. Make them floats, or number classes from 0."
            )
    return array.astype(narrow)
