"""Registries: the parts of one kind by name, and the import of the modules that register them."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Part = TypeVar("Part")


class Registry(dict[str, Part]):
    """The parts of one kind by name: a dictionary with `register`.

    Args:
      kind: name of a part in messages.
      check: `(name, part)`; raises if the part is invalid.

    >>> colours: Registry[int] = Registry("colour")
    >>> colours.register("red", 0xFF0000)
    >>> colours["red"]
    16711680
    """

    def __init__(self, kind: str, check: Callable[[str, Any], None] | None = None):
        super().__init__()
        self._kind, self._check = kind, check

    def register(self, name: str, part: Part) -> None:
        """Adds a part; `del registry[name]` removes it.

        Args:
          name: letters, digits and `_`.
          part: as the registry's own documentation describes it.

        Raises:
          ValueError: the name is taken or invalid. The registry's `check` may raise other errors.

        >>> colours = Registry("colour")
        >>> colours.register("red", 1)
        >>> colours.register("red", 2)
        Traceback (most recent call last):
          ...
        ValueError: the colour 'red' is already registered; taken names: red.
        """
        if not isinstance(name, str) or not re.fullmatch(r"\w+", name, re.ASCII):
            raise ValueError(
                f"`name` of a {self._kind} is {name!r}; it must hold letters, digits and '_' only."
            )
        if name in self:
            raise ValueError(
                f"the {self._kind} {name!r} is already registered; taken names: "
                f"{', '.join(sorted(self))}."
            )
        if self._check is not None:
            self._check(name, part)
        self[name] = part


def import_modules(package: str, path: Iterable[str]) -> None:
    """Imports all modules of a package, so that a new file registers its parts without a list.

    Args:
      package: its `__name__`.
      path: its `__path__`.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
