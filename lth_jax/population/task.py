"""A task: network, data and training."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lth_jax.data import Dataset, OnDisk, from_arrays, in_order, indices
from lth_jax.data.checks import check_integer
from lth_jax.models import as_model
from lth_jax.population.losses import PerExample, correct, cross_entropy
from lth_jax.population.segment import (
    MakeModel,
    MakeOptimizer,
    Trainer,
    TransformBatch,
    take,
    unchanged,
)
from lth_jax.population.streaming import OnHost
from lth_jax.pruning.transforms import masked
from lth_jax.types import Model, Splits

PROBED = 8  # examples on which `check` compares losses
EVALUATIONS = 20  # evaluations of a training by default


class Task:
    """The training task of a population: network, data, loss, optimizer and schedule.

    Members may differ in masks, keys and the hyperparameters in `hyper`. These are traced, so one
    compiled program trains all members.

    Args:
      model: the network: a Linen module; a transformed Haiku function; a function of `rngs` that
        makes an NNX module; a function of `key` that makes an Equinox module; a Keras model; or a
        `Model`.
      data: `(x, y)`, which is split at random (72 % for training, 8 % for validation, 20 % for
        tests), `{"train": (x, y), "validation": …, "test": …}` (see `data.from_arrays`), a
        `data.Dataset`, or `Splits` of arrays on the device.
      optimizer: an optax transformation, or `hyper -> transformation`. The task adds the mask.
      batch_size: training examples per step.
      steps: steps of one training.
      loss: per-example training loss `(outputs, targets) -> (n,)`.
      metrics: per-example metrics by name, `(outputs, targets) -> (n,)`; accuracy by default if
        `loss` is `cross_entropy`. The loss is added as `"loss"`.
      hyper: hyperparameters in which members may differ, for `optimizer`, `make_model` and
        `transform_batch`; `schedule` multiplies `"learning_rate"`.
      schedule: `step -> factor` on the learning rate in `hyper`.
      eval_every: steps between evaluations on the validation data; a twentieth of `steps` by
        default.
      eval_batch_size: evaluation runs over at most this many examples at once.
      train_eval_examples: `train_*_final` are evaluated on the first training examples, at most
        this many; 0: on all.
      shuffle: whether each epoch has a new random order; else the order of the data.
      transform_batch: see `Trainer`.
      objective: see `Trainer`.
      make_model: see `Trainer`.
      eval_member: see `Trainer`.
      examples_per_replicate: see `Trainer`.
      constants: arrays for `transform_batch`, by name. They are arguments of the compiled programs,
        which tasks that differ only in these values share.

    Attributes:
      trainer: the static part of the training.
      data: the splits.
      hyper: as given.
      steps: as given.
      reads_rate: whether the optimizer may read `hyper["learning_rate"]`.

    Raises:
      TypeError, ValueError: an argument is invalid; nothing has been trained.

    >>> import flax.linen as nn, numpy as np
    >>> x, y = np.random.default_rng(0).normal(size=(100, 4)), np.arange(100) % 3
    >>> task = Task(nn.Dense(3), (x, y), optimizer=optax.adam(1e-2), batch_size=10, steps=40)
    >>> task
    Task(Dense, 72 training examples, 40 steps of 10)
    """

    trainer: Trainer
    data: Splits
    hyper: Mapping[str, float]
    steps: int
    reads_rate: bool

    def __init__(
        self,
        model: Any,
        data: Any,
        *,
        optimizer: optax.GradientTransformation | MakeOptimizer,
        batch_size: int,
        steps: int,
        loss: PerExample = cross_entropy,
        metrics: Mapping[str, PerExample] | None = None,
        hyper: Mapping[str, float] | None = None,
        schedule: Callable[[Any], Any] | None = None,
        eval_every: int | None = None,
        eval_batch_size: int = 256,
        train_eval_examples: int = 0,
        shuffle: bool = True,
        transform_batch: TransformBatch = take,
        objective: PerExample | None = None,
        make_model: MakeModel | None = None,
        eval_member: Any = unchanged,
        examples_per_replicate: int = 0,
        constants: Mapping[str, Any] | None = None,
    ):
        for name, size in (("batch_size", batch_size), ("steps", steps)):
            check_integer(name, size, 1)
        every = max(steps // EVALUATIONS, 1) if eval_every is None else min(eval_every, steps)
        check_integer("eval_every", every, 1)
        check_integer("eval_batch_size", eval_batch_size, 1)
        check_integer("train_eval_examples", train_eval_examples, 0)
        self.data, self.steps, self.name = as_splits(data), steps, type(model).__name__
        self.hyper = {"learning_rate": 1.0, **(hyper or {})}
        # A transformation has a fixed learning rate.
        self.reads_rate = not isinstance(optimizer, optax.GradientTransformation)
        self._lacks_rate = self.reads_rate and _lacks_rate(_as_function(optimizer), hyper or {})
        self._checked = False
        self._programs: dict[Hashable, Any] = {}
        size = examples_per_replicate or len(jax.tree.leaves(self.data.train.y)[0])
        for name, value in {"loss": loss, **(metrics or {})}.items():
            if not callable(value):
                what = "`loss`" if name == "loss" else f"`metrics[{name!r}]`"
                raise TypeError(
                    f"{what} is {value!r}; it must be a function `(outputs, targets) -> (n,)`, "
                    "such as `population.squared_error`."
                )
        if batch_size > size:
            raise ValueError(f"`batch_size` is {batch_size}; there are {size} training examples.")
        order = indices if shuffle else in_order
        measures = {"accuracy": correct} if metrics is None and loss is cross_entropy else metrics

        def rows(key: Any, step: Any, steps: int) -> Any:
            return order(key, step, steps=steps, batch_size=batch_size, size=size)

        self.trainer = Trainer(
            model=as_model(model),
            make_optimizer=_as_function(optimizer),
            loss=loss,
            metrics={"loss": loss, **(measures or {})},
            schedule=schedule or optax.constant_schedule(1.0),
            order=rows,
            eval_every=every,
            eval_batch_size=eval_batch_size,
            train_eval_examples=train_eval_examples,
            transform_batch=transform_batch,
            objective=objective,
            examples_per_replicate=examples_per_replicate,
            eval_member=eval_member,
            make_model=make_model,
            constants=jax.device_put(dict(constants or {})),
        )

    @classmethod
    def from_parts(
        cls, trainer: Trainer, data: Splits, hyper: Mapping[str, float], steps: int
    ) -> Self:
        """A task from a `Trainer`, splits on the device, hyperparameters and steps."""
        task = cls.__new__(cls)
        task.trainer, task.data, task.hyper, task.steps = trainer, data, dict(hyper), steps
        task.name, task.reads_rate, task._lacks_rate = "Model", True, False
        task._checked, task._programs = False, {}
        return task

    def replace(self, **parts: Any) -> Self:
        """A copy with another `trainer`, `data`, `hyper` or `steps`."""
        own = {name: getattr(self, name) for name in ("trainer", "data", "hyper", "steps")}
        task = self.from_parts(**{**own, **parts})
        task.name, task.reads_rate = self.name, self.reads_rate
        task._lacks_rate = self._lacks_rate and "hyper" not in parts
        return task

    def program(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, a program or plan of this task, made once for each key."""
        if key not in self._programs:
            self._programs[key] = make()
        return self._programs[key]

    @property
    def example(self) -> Any:
        """One training input, with a batch axis of 1."""
        return jax.tree.map(lambda leaf: leaf[:1], self.data.train.x)

    @property
    def batch_size(self) -> int:
        """Training examples per step."""
        rows = jax.eval_shape(lambda key: self.trainer.order(key, 0, 1), jax.random.key(0))
        return int(rows.shape[1])

    @property
    def shapes(self) -> Any:
        """The shapes of the network's parameters and state."""
        return jax.eval_shape(self.trainer.model.init, jax.random.key(0), self.example)

    def own_rows(self, replicate: int) -> slice:
        """The slice of training examples of a replicate: its share, or all."""
        share = self.trainer.examples_per_replicate
        first = replicate * share
        return slice(first, first + (share or len(jax.tree.leaves(self.data.train.y)[0])))

    def check_rate(self, hyper: Mapping[str, Any]) -> None:
        """Checks the members' own hyperparameters.

        Raises:
          ValueError: if `hyper` has a learning rate that the optimizer ignores, or neither `hyper`
            nor the task has the one that it reads.
        """
        if "learning_rate" not in hyper and self._lacks_rate:
            raise ValueError(
                "`hyper` lacks 'learning_rate', which the task's `optimizer` reads: give the task "
                "`hyper={'learning_rate': 1e-3}`, for example."
            )
        if "learning_rate" in hyper and not self.reads_rate:
            raise ValueError(
                "`hyper` includes 'learning_rate', which the task's `optimizer` does not read: "
                "give the task a function, such as "
                "`lambda hyper: optax.adam(hyper['learning_rate'])`."
            )

    def check(self) -> None:
        """Checks that network, data, losses and optimizer fit together, without training.

        Raises:
          ValueError: the loss or a metric does not return one value per example, or mixes examples;
            an input is not finite, a class label is out of range, or the optimizer cannot train
            under a mask.
          TypeError: class labels are not integers.
        """
        if self._checked:
            return
        params, state = self.shapes
        x, y = jax.tree.map(lambda leaf: leaf[:2], tuple(self.data.test))
        model: Model = self.trainer.model

        def logits(params: Any, state: Any, x: Any) -> Any:
            return model.apply(params, state, x, train=False)[0]

        def measured(params: Any, state: Any, x: Any, y: Any) -> Any:
            out = logits(params, state, x)
            return {name: f(out, y) for name, f in self.trainer.metrics.items()}

        n = len(jax.tree.leaves(y)[0])
        for name, value in jax.eval_shape(measured, params, state, x, y).items():
            if value.shape != (n,):
                raise ValueError(
                    f"`{'loss' if name == 'loss' else f'metrics[{name!r}]'}` must return one value "
                    f"per example, shape ({n},) for {n} examples, but returns {value.shape}."
                )
        self._check_finite()
        out = jax.eval_shape(logits, params, state, x)
        for name, f in self.trainer.metrics.items():
            if not str(getattr(f, "__module__", "")).startswith("lth_jax."):
                self._check_separate(name, f, out)
        if self.trainer.loss is cross_entropy:
            self._check_classes(out.shape[-1])
        hyper = {name: jnp.float32(value) for name, value in self.hyper.items()}
        jax.eval_shape(masked(self.trainer.make_optimizer(hyper)).init, params)
        self._checked = True

    def _check_finite(self) -> None:
        """Raises unless all inputs in memory are finite: others would make all weights NaN."""
        for name, split in self.data._asdict().items():
            for leaf in jax.tree.leaves(split.x):
                if isinstance(leaf, np.ndarray | jax.Array) and not bool(jnp.isfinite(leaf).all()):
                    raise ValueError(f"`data` has inputs in '{name}' that are NaN or infinite.")

    def _check_separate(self, name: str, f: PerExample, out: Any) -> None:
        """Raises if a value of one example depends on others, as when shapes broadcast."""
        targets = jax.tree.map(lambda leaf: jnp.asarray(leaf[:PROBED]), self.data.test.y)
        n = len(jax.tree.leaves(targets)[0])

        def drawn(shape: Any) -> jax.Array:
            return jax.random.uniform(jax.random.key(0), (n, *shape.shape[1:]), shape.dtype)

        outputs = jax.tree.map(drawn, out)

        def alone(o: Any, y: Any) -> jax.Array:
            one: jax.Array = f(*jax.tree.map(lambda leaf: leaf[None], (o, y)))[0]
            return one

        together, single = jax.jit(lambda o, y: (f(o, y), jax.vmap(alone)(o, y)))(outputs, targets)
        if not np.allclose(together, single, rtol=1e-3, atol=1e-5, equal_nan=True):
            what = "loss" if name == "loss" else f"metrics[{name!r}]"
            raise ValueError(
                f"`{what}` mixes examples: its values for {n} examples together differ from those "
                f"of each alone. Outputs have shape {out.shape[1:]} for an example and targets "
                f"{jax.tree.leaves(targets)[0].shape[1:]}."
            )

    def _check_classes(self, classes: int) -> None:
        """Raises unless all labels are in `[0, classes)`: others would make the loss NaN."""
        for name, split in self.data._asdict().items():
            if not split.y.size:
                continue
            low, high = int(np.min(split.y)), int(np.max(split.y))
            if not 0 <= low <= high < classes:
                raise ValueError(
                    f"`data` has labels from {low} to {high} in '{name}'; they must be at least 0 "
                    f"and below {classes}, the number of outputs of the network."
                )

    def __repr__(self) -> str:
        examples = len(jax.tree.leaves(self.data.train.y)[0])
        size = f"{examples:,} training examples, {self.steps:,} steps of {self.batch_size}"
        return f"Task({self.name}, {size})"


def as_splits(data: Any) -> Splits:
    """Converts a data set to splits on the device; training data on disk stay on the host.

    Args:
      data: `Splits`, a `data.Dataset`, or an argument of `data.from_arrays`.

    >>> [len(split.y) for split in as_splits((np.zeros((100, 4)), np.arange(100) % 2))]
    [72, 8, 20]
    """
    if isinstance(data, Splits):
        return data
    if not isinstance(data, Dataset):
        return from_arrays(data)
    validation, test = jax.tree.map(jnp.asarray, (data.validation, data.test))
    if isinstance(data.train.x, OnDisk):
        return Splits(OnHost(*data.train), validation, test)
    return Splits(jax.tree.map(jnp.asarray, data.train), validation, test)


def _lacks_rate(make_optimizer: MakeOptimizer, hyper: Mapping[str, float]) -> bool:
    """Whether an optimizer reads a learning rate that `hyper` lacks."""
    try:
        make_optimizer({name: jnp.float32(value) for name, value in hyper.items()})
    except KeyError as error:
        return error.args == ("learning_rate",)
    return False


def _as_function(optimizer: Any) -> MakeOptimizer:
    if isinstance(optimizer, optax.GradientTransformation):
        return lambda hyper: optimizer
    if not callable(optimizer):
        raise TypeError(
            f"`optimizer` is {optimizer!r}; it must be an optax transformation, or a function from "
            "a member's `hyper` to one."
        )
    found: MakeOptimizer = optimizer
    return found
