"""The programs of a population: each compiled once."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from lth_jax.lottery.node_training import compile_measure
from lth_jax.population.placement import Plan, fitted
from lth_jax.population.segment import Trainer
from lth_jax.population.streaming import compile_serving
from lth_jax.population.train_chunks import compile_segment
from lth_jax.pruning.methods import Method


class Programs:
    """The compiled programs of one trainer; several ladders with it may share them.

    Args:
      trainer: the static part of the training.

    Attributes:
      trainer: the same.
      segment: `(plan, method) -> segment`, of any chunk (see `compile_segment`).
      measure: `(plan, method) -> results` of a trained chunk (see `compile_measure`).
      serve: the training data of each segment (see `compile_serving`).

    A plan that was made for other devices than are there runs on these (see `fitted`).
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.segment = functools.cache(
            lambda plan, method=None: compile_segment(self.trainer_of(method), _here(plan))
        )
        self.measure = functools.cache(
            lambda plan, method=None: compile_measure(self.trainer_of(method), _here(plan))
        )
        self.serve = compile_serving(trainer)
        self._compiled: dict[str, Callable[..., Any]] = {}

    def trainer_of(self, method: Method | None) -> Trainer:
        """The trainer of the levels with this method."""
        return self.trainer._replace(method=method)

    def once(self, key: str, f: Callable[..., Any], args: Sequence[Any]) -> Callable[..., Any]:
        """`f` compiled for arguments like these; compiled once for each key.

        Args:
          key: of all that `f` computes (see `lottery.identity.fingerprint`), shapes included.
          f: the function.
          args: its arguments.
        """
        if key not in self._compiled:
            options = quick_to_compile()
            self._compiled[key] = jax.jit(f).lower(*args).compile(compiler_options=options)
        return self._compiled[key]


def _here(plan: Plan) -> Plan:
    return fitted(plan, jax.device_count(), jax.process_count())


def quick_to_compile() -> dict[str, Any] | None:
    """Compiler options for programs that run once a level.

    On a CPU compiling them costs more than running them, so LLVM does not optimise them: three
    times faster to compile.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
