"""Keys: one function derives a separate stream of random numbers for each purpose.

A key that serves several purposes is never folded or split directly, since in JAX
`split(key, n)[i]` equals `fold_in(key, i)`, so that two purposes that count from 0 would draw the
same numbers. `stream` derives the key of a named purpose instead; that key may be folded with an
index within the purpose: a step, a batch, a leaf.

Streams are threefry2x32 whatever the key's implementation. Under `jax.vmap`, `rbg` draws for all
members of a population from the key of the first (JAX 0.10), so a member's numbers would depend on
the other members, and `fold_in` of `unsafe_rbg` commutes.
"""

import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

PURPOSES: Mapping[str, str] = MappingProxyType(
    {
        # Of an experiment's root, for each replicate and level.
        "init": "initial parameters",
        "redraw": "initial parameters of the controls that draw them anew",
        "data": "a member's data key, whose own streams are below",
        "child": "data keys of members that differ in their data alone; labelled by their number",
        "prune": "what a criterion draws for a ticket's mask",
        "control": "what a control draws; labelled by its name",
        "one_shot": "what a criterion draws for masks outside a ladder",
        "random_ticket": "random masks and initial parameters; folded with the draw",
        # Of an experiment's root, for all its members.
        "state": "the model state of a criterion or a structure",
        "score": "dropout in the loss of a criterion",
        "curvature": "dropout in the loss whose curvature is measured",
        "lanczos": "start vectors; labelled by the analysis",
        "density": "probes of a spectral density",
        "surface": "directions of a loss surface; labelled by their number",
        # Of a key made from a separate seed.
        "label_noise": "which labels are wrong",
        # Of a member's data key.
        "order": "the order of the training examples, folded with the epoch",
        "noise": "dropout in training, folded with the step",
        "shown": "augmentation of a member's batches, folded with the step",
        "method": "what a method draws for its mask",
        "average": "dropout while a mean network's state is renewed, folded with the batch",
        "line": "dropout while a state on a line is renewed, folded with the batch",
        # Of the key of what is shown at one step.
        "change": "one change of a batch; labelled by its number",
    }
)
"""The purposes of random numbers, with descriptions."""

SEEDS = 2**32
"""Seeds are below this: JAX drops the higher bits of a seed without a warning."""

_IMPLEMENTATION = "threefry2x32"
_TOP_BIT = 0x80000000


def stream(key: jax.Array, purpose: str, *labels: int | str) -> jax.Array:
    """The key of one purpose.

    `key` is folded with two words of the SHA-256 of the purpose and the labels. The first has its
    top bit set, which no index (an int32 that is not negative) has, so no stream coincides with
    `fold_in(key, i)` or `split(key, n)[i]` of the same key.

    Args:
      key: a typed key of any implementation; may be traced.
      purpose: a name in `PURPOSES`.
      labels: what distinguishes several streams of one purpose, such as a level or a name; Python
        integers and strings.

    Returns:
      A threefry2x32 key.

    Raises:
      ValueError: if the purpose is unknown.
      TypeError: if `key` is not a typed key, or a label neither an integer nor a string.

    >>> key = jax.random.key(0)
    >>> len({str(stream(key, purpose)) for purpose in PURPOSES}) == len(PURPOSES)
    True
    """
    return _folded(as_threefry(key), _words(purpose, labels))


def _words(purpose: str, labels: Sequence[int | str]) -> NDArray[np.uint32]:
    """The two words by which a key is folded for a purpose."""
    if purpose not in PURPOSES:
        raise ValueError(f"`purpose` is {purpose!r}; it must be one of {', '.join(PURPOSES)}.")
    name = json.dumps([purpose, *(x if isinstance(x, str) else operator.index(x) for x in labels)])
    digest = hashlib.sha256(name.encode()).digest()
    first, second = (int.from_bytes(digest[i : i + 4], "big") for i in (0, 4))
    return np.array([first | _TOP_BIT, second], np.uint32)


def _folded(key: jax.Array, words: Any) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])


_all_folded = jax.jit(jax.vmap(_folded, in_axes=(None, 0)))


def derive(
    root: jax.Array, replicate: int, purpose: str, level: int = 0, *labels: int | str
) -> jax.Array:
    """The key of one replicate for one purpose at one level.

    The key depends on these arguments only, not on the size of a population: a member draws the
    same numbers whichever members are trained with it.

    Args:
      root: the experiment's key, typed, of any implementation.
      replicate: which independent seed of the whole experiment.
      purpose: a name in `PURPOSES`.
      level: the round of train-prune-rewind; 0 for what all levels share.
      labels: as in `stream`.

    Raises:
      ValueError, TypeError: as in `stream`.

    >>> a = derive(jax.random.key(0), 0, "init")
    >>> b = derive(jax.random.key(0), 0, "data")
    >>> bool((jax.random.key_data(a) == jax.random.key_data(b)).all())
    False
    """
    return stream(root, purpose, replicate, level, *labels)


def derive_all(
    root: jax.Array, replicates: Sequence[int], purpose: str, level: int = 0, *labels: int | str
) -> jax.Array:
    """`derive` for several replicates, stacked; one program for all.

    >>> root = jax.random.key(0)
    >>> bool(derive_all(root, [3, 7], "init")[1] == derive(root, 7, "init"))
    True
    """
    words = [_words(purpose, (replicate, level, *labels)) for replicate in replicates]
    return _all_folded(as_threefry(root), np.stack(words))


def as_threefry(key: jax.Array, name: str = "key") -> jax.Array:
    """The key itself if it is threefry2x32, otherwise a threefry2x32 key made of its data.

    Args:
      key: typed keys of any implementation and shape; may be traced.
      name: the argument's name, for the message.

    Raises:
      TypeError: if `key` is not a typed key.

    >>> as_threefry(jax.random.key(0, impl="rbg")).dtype
    key<fry>
    """
    check_key(key, name)
    if jax.random.key_impl(key) == _IMPLEMENTATION:
        return key
    data = jax.random.key_data(key)
    first, rest = data[..., :2], data[..., 2:]
    found = jax.random.wrap_key_data(first, impl=_IMPLEMENTATION)
    fold = jax.random.fold_in
    for _ in found.shape:
        fold = jax.vmap(fold)
    for i in range(rest.shape[-1]):
        found = fold(found, rest[..., i])
    return found


def to_data(tree: Any) -> Any:
    """A tree with the data of its keys in their place, for files and for the host.

    >>> to_data({"key": jax.random.key(1), "w": 2.0})["key"].tolist()
    [0, 1]
    """
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def from_data(tree: Any, like: Any) -> Any:
    """The inverse of `to_data`; `like` has keys, or their shapes, where the tree had keys.

    >>> key = jax.random.key(1)
    >>> from_data(to_data([key]), [key])[0].dtype
    key<fry>
    """

    def one(leaf: Any, target: Any) -> Any:
        if not _is_key(target):
            return leaf
        impl = jax.random.key_impl(jax.numpy.empty((0,), target.dtype))
        return jax.random.wrap_key_data(jax.numpy.asarray(leaf), impl=impl)

    return jax.tree.map(one, tree, like)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", None) or float, jax.dtypes.prng_key)


def check_key(key: Any, name: str = "key") -> None:
    """Raises `TypeError` unless `key` is a typed key.

    >>> check_key(jax.random.PRNGKey(0), "root")
    Traceback (most recent call last):
    TypeError: `root` must be a typed key (jax.random.key), not uint32[2]; \
jax.random.wrap_key_data makes one of raw key data.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        given = type(key).__name__ if dtype is None else f"{dtype}{list(key.shape)}"
        raise TypeError(
            f"`{name}` must be a typed key (jax.random.key), not {given}; "
            "jax.random.wrap_key_data makes one of raw key data."
        )


def from_seed(seed: int, name: str = "seed") -> jax.Array:
    """The key of a seed: threefry2x32 whatever JAX's default implementation is.

    Args:
      seed: an integer in [0, 2³²).
      name: the argument's name, for the message.

    Raises:
      TypeError, ValueError: as `check_seed`.

    >>> from_seed(2**32)
    Traceback (most recent call last):
    ValueError: `seed` is 4294967296; a seed lies in [0, 4294967296).
    """
    check_seed(seed, name)
    return jax.random.key(operator.index(seed), impl=_IMPLEMENTATION)


def check_seed(seed: Any, name: str = "seed") -> None:
    """Raises unless `seed` is an integer in [0, 2³²).

    Raises:
      TypeError: if it is a boolean or not an integer.
      ValueError: if it is out of range.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = None
    if number is None or isinstance(seed, bool):
        raise TypeError(f"`{name}` must be an integer, got {seed!r}.")
    if not 0 <= number < SEEDS:
        raise ValueError(f"`{name}` is {seed}; a seed lies in [0, {SEEDS}).")
