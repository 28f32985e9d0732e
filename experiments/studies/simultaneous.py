"""Maps of claims that hold sometimes: an effect in every cell, with intervals for all at once."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.intervals import Interval
from lth_jax.measures.verdicts import simultaneous


def at_once(cells: Mapping[str, NDArray[np.float64]]) -> dict[str, Interval]:
    """The mean effect of every cell, with intervals that hold together (max-T over seeds).

    Args:
      cells: one value per seed, the same seeds in each.
    """
    table = np.stack(list(cells.values()), axis=1)
    held = simultaneous(table, rng=np.random.default_rng(0))
    return dict(zip(cells, held, strict=True))


def described(cells: Mapping[str, NDArray[np.float64]]) -> str:
    """The same in words.

    >>> described({"here": np.array([1.0, 2.0, 3.0] * 8), "there": np.zeros(24)})
    'here +2.00 [+1.65, +2.35]; there +0.00 [+0.00, +0.00]'
    """
    return "; ".join(
        f"{cell} {one.estimate:+.2f} [{one.low:+.2f}, {one.high:+.2f}]".replace("-", "−")
        for cell, one in at_once(cells).items()
    )
