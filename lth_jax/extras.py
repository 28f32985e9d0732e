"""Imports packages of optional extras on first use; the error for a missing one names the extra."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any


class MissingExtraError(ImportError):
    """A package that an extra of lth-jax installs is missing."""


@contextlib.contextmanager
def needed_by(what: str, extra: str = "experiments") -> Iterator[None]:
    """Turns a `ModuleNotFoundError` inside a `with` block into an error that names the extra.

    Args:
      what: what needs the package, as the start of a sentence.
      extra: the extra of lth-jax that installs it.

    Raises:
      MissingExtraError: if an import inside the block finds no module.

    >>> with needed_by("`read_table`"):
    ...     import a_package_that_is_not_installed
    Traceback (most recent call last):
    lth_jax.extras.MissingExtraError: `read_table` needs `a_package_that_is_not_installed`; install
    it with `pip install "lth-jax[experiments]"`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        raise MissingExtraError(
            f'{what} needs `{package}`; install it with `pip install "lth-jax[{extra}]"`.'
        ) from error


def lazy(module: str, what: str, extra: str = "experiments") -> Any:
    """A stand-in for a module, which is imported when one of its attributes is first read.

    Args:
      module: the module's full name.
      what: what needs it, as the start of a sentence.
      extra: the extra of lth-jax that installs it.

    Raises:
      MissingExtraError: from reading an attribute, if the module is not installed.

    >>> mathematics = lazy("math", "`area`")
    >>> mathematics.floor(2.5)
    2
    """
    return _LazyModule(module, what, extra)


class _LazyModule:
    def __init__(self, module: str, what: str, extra: str):
        self._module, self._what, self._extra = module, what, extra

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # tools that inspect a module must not import another
            raise AttributeError(name)
        with needed_by(self._what, self._extra):
            module = importlib.import_module(self._module)
        return getattr(module, name)
