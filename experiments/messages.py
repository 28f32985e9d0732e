"""Translates error messages of the library from arguments to config fields."""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping

from lth_jax.cli.programs import UserError
from lth_jax.store import StoreError

LIBRARY: Mapping[str, str] = {
    "steps": "train.steps",
    "score_step": "prune.score_step",
    "rate": "prune.rate",
    "final": "prune.final",
    "levels": "prune.levels",
    "minimum": "prune.minimum",
    "multiple": "prune.unit_multiple",
    "rules": "prune.layer_rates",
    "patterns": "prune.groups",
    "params": "model.options",
    "vocabulary": "model.options.vocabulary",
    "chunk": "machine.chunk",
    "devices": "machine.devices",
    "driver": "machine.driver",
    "share": "train.share",
}
"""Arguments of the library and the corresponding fields."""
DATA: Mapping[str, str] = {
    "name": "data.name",
    "seed": "data.seed",
    "validation": "data.validation",
    "train_examples": "data.train_examples",
    "unlabelled": "data.unlabelled",
    "data_dir": "machine.data_dir",
    "manual_dir": "machine.manual_dir",
}
"""Arguments of `data.load`, likewise."""


def by_fields(
    message: str,
    names: Mapping[str, str] = LIBRARY,
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

    >>> by_fields("`score_step` is 31; it must\nlie between.")
    '`prune.score_step` is 31; it must lie between.'
    >>> by_fields("`train` is 0.", DATA, options=["train"], under="data.options")
    '`data.options.train` is 0.'
    """
    known = {**names, **{option: f"{under}.{option}" for option in options}}
    one_line = " ".join(message.split())
    return re.sub(r"`(\w+)`", lambda found: f"`{known.get(found[1], found[1])}`", one_line)


@contextlib.contextmanager
def user_errors(
    names: Mapping[str, str] = LIBRARY,
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
