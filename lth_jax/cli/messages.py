"""Translates error messages of the library from arguments to the names of a command."""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping

from lth_jax.cli.programs import UserError
from lth_jax.store import StoreError


def by_fields(
    message: str,
    names: Mapping[str, str],
    *,
    options: Collection[str] = (),
    under: str = "",
) -> str:
    r"""A message of the library on one line, with field names instead of argument names.

    Args:
      message: with arguments in backticks.
      names: argument -> field.
      options: further arguments.
      under: the field that holds them.

    >>> by_fields("`score_step` is 31; it must\nlie between.", {"score_step": "prune.score_step"})
    '`prune.score_step` is 31; it must lie between.'
    >>> by_fields("`train` is 0.", {}, options=["train"], under="data.options")
    '`data.options.train` is 0.'
    """
    known = {**names, **{option: f"{under}.{option}" for option in options}}
    one_line = " ".join(message.split())
    return re.sub(r"`(\w+)`", lambda found: f"`{known.get(found[1], found[1])}`", one_line)


@contextlib.contextmanager
def user_errors(
    names: Mapping[str, str],
    *,
    options: Collection[str] = (),
    under: str = "",
    prefix: str = "",
) -> Iterator[None]:
    """Context in which an error of the library about arguments becomes a `UserError` with a prefix.

    The other arguments are those of `by_fields`.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{prefix}{error}") from error
    except (StoreError, ImportError, OSError, OverflowError, TypeError, ValueError) as error:
        message = by_fields(str(error), names, options=options, under=under)
        raise UserError(f"{prefix}{message}") from error
