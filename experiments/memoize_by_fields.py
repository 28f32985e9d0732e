"""Functions of a config, computed once for all configs that agree on what they read of it.

So it is found, not declared, which fields a value depends on: two configs that give one program
share it, whatever else they differ in.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from ml_collections import ConfigDict

from experiments.flags import fields

T = TypeVar("T")


class Reading(NamedTuple):
    """What was read of a config: the value of each field, by its dotted name."""

    fields: dict[str, Any]

    def agrees(self, config: ConfigDict) -> bool:
        """Whether a config would be read alike."""
        return all(repr(_field(config, name)) == repr(of) for name, of in self.fields.items())


class Recorder:
    """A config that writes down which of its fields are read.

    >>> config = ConfigDict({"train": {"steps": 3, "loss": "mse"}})
    >>> read = {}
    >>> Recorder(config, read).train.steps, read
    (3, {'train.steps': 3})
    """

    def __init__(self, config: ConfigDict, read: dict[str, Any], prefix: str = ""):
        self._config, self._read, self._prefix = config, read, prefix

    def __getattr__(self, name: str) -> Any:
        value, full = self._config[name], f"{self._prefix}{name}"
        if isinstance(value, ConfigDict):
            return Recorder(value, self._read, f"{full}.")
        self._read[full] = value
        return value

    __getitem__ = __getattr__

    def to_dict(self) -> dict[str, Any]:
        """As of `ConfigDict`; reads everything below."""
        self._note_all()
        return self._config.to_dict()

    def items(self) -> Iterator[tuple[str, Any]]:
        """As of `ConfigDict`; reads everything below."""
        self._note_all()
        return self._config.items()

    def _note_all(self) -> None:
        inside = {f"{self._prefix}{name}": value for name, value in fields(self._config)}
        # The set of names was read too: a field more or less is a difference.
        self._read |= inside | {self._prefix: sorted(inside)}


class Remembered(Generic[T]):
    """A function of a config, called once for all configs that it would read alike.

    Args:
      function: `config -> value`; must read nothing else that changes, and all that it reads
        while it is called.

    >>> rate = Remembered(lambda config: [config.rate])
    >>> a, b = ConfigDict({"rate": 1.0, "seed": 0}), ConfigDict({"rate": 1.0, "seed": 1})
    >>> rate(a)[0] is rate(b)[0], rate(a)[1].fields
    (True, {'rate': 1.0})
    """

    def __init__(self, function: Callable[[Any], T]):
        self._function = function
        self._known: list[tuple[T, Reading]] = []

    def __call__(self, config: ConfigDict) -> tuple[T, Reading]:
        """The value, and what it was made of."""
        for value, reading in self._known:
            if reading.agrees(config):
                return value, reading
        read: dict[str, Any] = {}
        value = self._function(Recorder(config, read))
        self._known.append((value, Reading(read)))
        return self._known[-1]


def _field(config: ConfigDict, name: str) -> Any:
    """A field by its dotted name; the sorted names of all below for a name that ends with a dot."""
    inside = config
    parts = name.split(".")
    for part in parts[:-1]:
        if part not in inside:
            return None
        inside = inside[part]
    if name.endswith(".") or not name:
        return sorted(f"{name}{below}" for below, _ in fields(inside))
    return inside.get(parts[-1])
