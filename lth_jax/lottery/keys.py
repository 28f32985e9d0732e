"""Where each random number of an experiment comes from.

`fold_in(root, replicate) → fold_in(purpose) → fold_in(level)` and never `split(n)` by the size of
a population, so that a member draws the same numbers whoever trains beside it.
"""

import zlib

import jax

from lth_jax.types import Key


def derive(root: Key, replicate: int, purpose: str, level: int = 0) -> Key:
    """The key of one replicate for one purpose at one level.

    Args:
      root: the experiment's key.
      replicate: which independent seed of the whole experiment.
      purpose: what it is for: `"init"`, `"data"`, `"prune"`, or the name of a control.
      level: the round of train-prune-rewind; 0 for what all levels share.

    >>> import jax
    >>> a = derive(jax.random.key(0), 0, "init")
    >>> b = derive(jax.random.key(0), 0, "data")
    >>> bool((jax.random.key_data(a) == jax.random.key_data(b)).all())
    False
    """
    key = jax.random.fold_in(root, replicate)
    key = jax.random.fold_in(key, zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, level)
