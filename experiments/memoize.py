"""Memoised functions of some fields of a config."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from ml_collections import ConfigDict

from experiments.flags import fields

T = TypeVar("T")


class Memoized(Generic[T]):
    """A function of some fields of a config, called once for each of their values.

    The function gets a config without the other fields; reading one raises `AttributeError`.

    Args:
      function: `(config, *given) -> value`.
      names: dotted names of fields, or of parts with all their fields.
      traced: names of numbers that are traced in the compiled programs. The function gets 0 or 1
        instead: it may depend on whether they are 0, not on their value.

    >>> half = Memoized(lambda config: [config.train.steps // 2], ["train.steps"])
    >>> a, b = (ConfigDict({"train": {"steps": 6, "loss": loss}}) for loss in ("mse", "l1"))
    >>> half(a), half(a) is half(b)
    ([3], True)
    """

    def __init__(
        self, function: Callable[..., T], names: Sequence[str], traced: Sequence[str] = ()
    ):
        self._function, self._names, self._traced = function, names, frozenset(traced)
        self._known: dict[str, T] = {}

    def __call__(self, config: ConfigDict, *given: str) -> T:
        """The value for a config; `given` are further arguments, part of the key."""
        values = self.values(config)
        key = repr((values, given))  # distinguishes 1, 1.0 and True
        if key not in self._known:
            self._known[key] = self._function(self._part(config, values), *given)
        return self._known[key]

    def values(self, config: ConfigDict) -> dict[str, Any]:
        """The fields that the function gets, by their dotted names."""
        found: dict[str, Any] = {}
        for name in self._names:
            value = operator.attrgetter(name)(config)
            found |= fields(value, f"{name}.") if isinstance(value, ConfigDict) else {name: value}
        return {
            name: type(value)(bool(value)) if name in self._traced else value
            for name, value in found.items()
        }

    def _part(self, config: ConfigDict, values: dict[str, Any]) -> ConfigDict:
        nested: dict[str, Any] = {}
        for name in self._names:
            *above, last = name.split(".")
            inside = functools.reduce(lambda part, key: part.setdefault(key, {}), above, nested)
            value = operator.attrgetter(name)(config)
            inside[last] = value.to_dict() if isinstance(value, ConfigDict) else value
        part = ConfigDict(nested)
        part.update_from_flattened_dict({k: v for k, v in values.items() if k in self._traced})
        return part
