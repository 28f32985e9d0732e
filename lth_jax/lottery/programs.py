"""The programs of a population: each compiled once, whoever asks for it."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from lth_jax.lottery.level import compile_measure
from lth_jax.training.placement import Plan, fitted
from lth_jax.training.population import compile_segment
from lth_jax.training.segment import Trainer, init_member, init_record, train_segment
from lth_jax.training.streaming import compile_serving
from lth_jax.types import Batch


class Programs:
    """What is compiled for one trainer; several climbs with it may share them.

    Args:
      trainer: the static part of the training.

    Attributes:
      trainer: the same.
      segment: `plan -> segment`, of any chunk (see `compile_segment`).
      measure: `plan -> results` of a trained chunk (see `compile_measure`).
      serve: what each segment is given of the training data (see `compile_serving`).

    A plan that was made for other devices than are there runs on these (see `fitted`).
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.segment = functools.cache(lambda plan: compile_segment(trainer, _here(plan)))
        self.measure = functools.cache(lambda plan: compile_measure(trainer, _here(plan)))
        self.serve = compile_serving(trainer)
        self._compiled: dict[str, Callable[..., Any]] = {}

    def same(self, f: Callable[..., Any], args: Sequence[Any]) -> Callable[..., Any]:
        """`f` compiled for arguments like these, or what was compiled of a function equal to it.

        Functions are equal if they lower to one text, constants included.
        """
        lowered = jax.jit(f).lower(*args)
        text = digest(lowered)
        if text not in self._compiled:
            self._compiled[text] = lowered.compile(compiler_options=quick_to_compile())
        return self._compiled[text]


def _here(plan: Plan) -> Plan:
    return fitted(plan, jax.device_count(), jax.process_count())


def training_program(trainer: Trainer, data: Any, hyper: Iterable[str]) -> str:
    """The SHA-256 of how a member begins and what a segment of its training does.

    Trainers whose programs are equal may train in one population: all in which their members
    differ are arrays. Nothing is compiled.

    Args:
      trainer: the static part of the training.
      data: train, validation and test, as arrays or shapes.
      hyper: the names of the members' scalars.
    """

    def start(key: Any, hyper: Any, example: Any) -> Any:
        member = init_member(trainer, key, key, hyper, example)
        return member, init_record(member)

    def segment(*args: Any) -> Any:
        return train_segment(trainer, *args)

    example = jax.eval_shape(lambda x: jax.tree.map(lambda a: a[:1], x), data.train.x)
    scalars = dict.fromkeys(hyper, jax.ShapeDtypeStruct((), "float32"))
    begins = jax.jit(start).lower(jax.eval_shape(jax.random.key, 0), scalars, example)
    step = jax.ShapeDtypeStruct((), "int32")
    train = Batch(*(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in data.train))
    trains = jax.jit(segment).lower(*begins.out_info, train, data.validation, step, step)
    return hashlib.sha256(f"{digest(begins)}{digest(trains)}".encode()).hexdigest()


def digest(lowered: jax.stages.Lowered) -> str:
    """The SHA-256 of a lowered program's text."""
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()


def quick_to_compile() -> dict[str, Any] | None:
    """Compiler options for programs that run once a level.

    On a CPU compiling them costs more than running them, so LLVM is asked not to optimise: three
    times faster to compile.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
