"""A task: a network, its data, and how it is trained."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax

from lth_jax.population.segment import Trainer
from lth_jax.types import Batch


class Splits(NamedTuple):
    """The three parts of a data set, resident on the device."""

    train: Batch
    validation: Batch
    test: Batch


class Task:
    """A."""

    trainer: Trainer
    data: Splits
    hyper: Mapping[str, float]

    @classmethod
    def from_parts(cls, trainer: Trainer, data: Splits, hyper: Mapping[str, float]) -> Self:
        """A task of a trainer, its data on the device, and the numbers that are traced."""
        task = cls.__new__(cls)
        task.trainer, task.data, task.hyper = trainer, data, dict(hyper)
        return task

    @property
    def example(self) -> Any:
        """One training input, with a batch axis of 1."""
        return jax.tree.map(lambda leaf: leaf[:1], self.data.train.x)

    @property
    def shapes(self) -> Any:
        """The shapes of the network's parameters and state."""
        return jax.eval_shape(self.trainer.model.init, jax.random.key(0), self.example)

    def replace(self, **parts: Any) -> Self:
        """A copy with another `trainer`, `data` or `hyper`."""
        own = {"trainer": self.trainer, "data": self.data, "hyper": self.hyper}
        return self.from_parts(**{**own, **parts})
