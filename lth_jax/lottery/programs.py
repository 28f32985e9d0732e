"""Cache of a population's compiled programs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from lth_jax.lottery.node_training import Measured, compile_measure
from lth_jax.population.placement import Plan, fitted
from lth_jax.population.segment import Trainer
from lth_jax.population.streaming import compile_serving
from lth_jax.population.train_chunks import Segment, compile_segment
from lth_jax.pruning.methods import Method


class Programs:
    """The compiled programs of one trainer, which several ladders may share.

    A plan for other devices is adapted to the available ones (see `fitted`).

    Args:
      trainer: the static part of the training.

    Attributes:
      trainer: the trainer.
      serve: yields the training data of each segment (see `compile_serving`).
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self._segments: dict[tuple[Plan, Method | None], Segment] = {}
        self._measures: dict[tuple[Plan, Method | None], Callable[..., Measured]] = {}
        self.serve = compile_serving(trainer)
        self._compiled: dict[str, Callable[..., Any]] = {}

    def segment(self, plan: Plan, method: Method | None = None) -> Segment:
        """The compiled segment of a plan (see `compile_segment`)."""
        if (plan, method) not in self._segments:
            made = compile_segment(self.trainer_of(method), _here(plan))
            self._segments[plan, method] = made
        return self._segments[plan, method]

    def measure(self, plan: Plan, method: Method | None = None) -> Callable[..., Measured]:
        """The compiled evaluation of a trained chunk (see `compile_measure`)."""
        if (plan, method) not in self._measures:
            made = compile_measure(self.trainer_of(method), _here(plan))
            self._measures[plan, method] = made
        return self._measures[plan, method]

    def trainer_of(self, method: Method | None) -> Trainer:
        """The trainer with this method."""
        return self.trainer._replace(method=method)

    def once(self, key: str, f: Callable[..., Any], args: Sequence[Any]) -> Callable[..., Any]:
        """`f` compiled for arguments of these shapes; compiled once for each key.

        Args:
          key: covers everything that `f` computes (see `lottery.identity.fingerprint`), and the
            shapes.
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

    On a CPU they take longer to compile than to run. Without LLVM's optimisations they compile
    three times faster. Without XLA's fusion emitters (jaxlib 0.10.2), initial weights compile in
    .56 to .70 of that time, with the same bits.
    """
    if jax.default_backend() != "cpu":
        return None
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    if jax.__version_info__ < (0, 11):  # unknown options are errors
        options["xla_cpu_use_fusion_emitters"] = False
    return options
