"""Conversion of dtypes without loss."""

import jax.numpy as jnp
import numpy as np

from lth_jax.coding.values import DTYPES
from lth_jax.exchange.errors import ExchangeError


def is_float(array: np.ndarray) -> bool:
    """Whether the entries are floating-point numbers, those of JAX included."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


@np.errstate(over="ignore", invalid="ignore")  # found by the comparison
def convert(name: str, array: np.ndarray, dtype: str | None) -> np.ndarray:
    """The array in another dtype, if every value is kept; unchanged for None.

    Raises:
      ExchangeError: the dtype is unknown, or values would change.

    >>> convert("w", np.array([0.1]), "float32")
    Traceback (most recent call last):
    lth_jax.exchange.errors.ExchangeError: `dtype` is float32, in which values of 'w' (float64)
    change, the first from 0.1 to 0.10000000149011612; round them first if that is intended.
    """
    if dtype is None or array.dtype.name == dtype:
        return array
    if dtype not in DTYPES:
        raise ExchangeError(f"`dtype` is {dtype!r}; it must be one of {', '.join(DTYPES)}.")
    out = array.astype(DTYPES[dtype])
    back = out.astype(array.dtype)
    changed = (back != array) & ((back == back) | (array == array))  # NaN stays NaN
    if changed.any():
        first = tuple(i[0] for i in np.nonzero(changed)) if array.ndim else ()
        raise ExchangeError(
            f"`dtype` is {dtype}, in which values of '{name}' ({array.dtype.name}) change, the "
            f"first from {array[first]} to {out[first].astype('float64')}; round them first if "
            "that is intended."
        )
    return out
