"""Parts of an experiment by name: built-in, or user-defined as `package.module:name`.

Modules are imported from the current folder or the Python path. The key of a run covers what their
functions compute, so a changed function starts a new run.
"""

import contextlib
import inspect
import pkgutil
import re
import traceback
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lth_jax.cli.programs import UserError, one_line
from lth_jax.legal import Legal, listed, nearest

PATTERN = r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*"


def is_own(name: Any) -> bool:
    """Whether a name is that of a user-defined part.

    >>> is_own("my_package.nets:MyNet"), is_own("mlp")
    (True, False)
    """
    return isinstance(name, str) and bool(re.fullmatch(PATTERN, name, re.ASCII))


def part_of(names: Collection[str]) -> Legal:
    """A built-in name, or `package.module:name`."""

    def holds(value: Any) -> bool:
        return is_own(value) or (isinstance(value, str) and value in names)

    return Legal(f"package.module:name, or one of: {listed(names)}", holds, names)


def load(field: str, name: str) -> Any:
    """Imports a user-defined part.

    Args:
      field: field of the config, for messages.
      name: `package.module:name`.

    Raises:
      UserError: it cannot be imported, or its module raises an exception.

    >>> load("train.loss", "math:sqrt")(4.0)
    2.0
    """
    with failing(field, name, name.partition(":")[0]):
        try:
            return pkgutil.resolve_name(name)
        except (ImportError, AttributeError) as error:
            raise UserError(f"`{field}` is '{name}', which cannot be imported: {error}.") from error


@contextlib.contextmanager
def failing(field: str, name: str, module: str) -> Iterator[None]:
    """Context in which an exception becomes a `UserError` with its type, text and place.

    Args:
      field: field of the config.
      name: its value.
      module: the user's module, whose innermost line in the traceback is the place.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the user's code: any type
        raise UserError(f"`{field}` is '{name}', {_failure(error, module)}") from error


@contextlib.contextmanager
def failing_parts(fields: Mapping[str, Any]) -> Iterator[None]:
    """Context in which an exception from the code of a user-defined part names its field.

    Args:
      fields: the values of a config by field: names of parts, tuples of them, or others.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the user's code, or passed on
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        passed = {_place(f.f_globals.get("__name__", ""), f.f_code.co_qualname) for f in frames}
        for field, value in fields.items():
            for name in value if isinstance(value, tuple) else (value,):
                found = load(field, name) if is_own(name) else None
                module, own = (getattr(found, f"__{what}__", "") for what in ("module", "qualname"))
                if _place(module, own) in passed:
                    raise UserError(f"`{field}` is '{name}', {_failure(error, module)}") from error
        raise


def _place(module: str, qualified: str) -> tuple[str, str]:
    """The location of code: its module, and the outermost class or function."""
    return module, qualified.partition(".")[0]


def _failure(error: Exception, module: str) -> str:
    """The type and text of an exception, with the last line in a module or its package."""
    place, package = "", module.partition(".")[0]
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__"))
        if name == module or (place and name.partition(".")[0] == package):
            place = f" ({frame.f_code.co_filename}, line {line})"
    return f"which fails: {type(error).__name__}: {one_line(error).rstrip('.')}{place}."


def choose(field: str, name: str, table: Mapping[str, Any]) -> Any:
    """The built-in or user-defined part of a name."""
    return load(field, name) if is_own(name) else table[name]


def made(field: str, name: str, kind: type, table: Mapping[str, Any], **given: Any) -> Any:
    """A part of a given type: the part of this name, or the result of calling it as `call` does.

    Raises:
      UserError: the result has another type.
    """
    found = choose(field, name, table)
    if isinstance(found, type) or not isinstance(found, kind):
        found = call(field, name, found, **given)
    if not isinstance(found, kind):
        raise UserError(
            f"`{field}` is '{name}', which makes {type(found).__name__}; a {kind.__name__} is "
            "needed."
        )
    return found


def check_options(
    field: str, options: Collection[str], function: Any, without: Collection[str] = ()
) -> None:
    """Raises `UserError` unless a function takes all options; names in `without` are not options.

    >>> check_options("data.options", ["seed"], lambda seed=0: None)
    """
    taken = _taken(function, options)
    for option in options:
        if option not in taken or option in without:
            known = [name for name in inspect.signature(function).parameters if name not in without]
            raise UserError(nearest(f"an option of `{field}`", option, known))


def _taken(function: Any, names: Collection[str]) -> list[str]:
    """Those of some names that are arguments of a function."""
    parameters = inspect.signature(function).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return [name for name in names if every or name in parameters]


def call(field: str, name: str, function: Any, **given: Any) -> Any:
    """Calls a function with those of the given arguments that it takes.

    Raises:
      UserError: the function cannot be called with these, or raises an exception.
    """
    with failing(field, name, getattr(function, "__module__", "")):
        return function(**{key: given[key] for key in _taken(function, given)})
