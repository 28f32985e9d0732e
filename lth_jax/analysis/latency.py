"""Accuracy at equal measured latency, for networks without their dead units."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import structure as st
from lth_jax import trees
from lth_jax.analysis.arguments import AnalysisError, checked
from lth_jax.analysis.measurement import Found, Measurement, RunContext, about, named
from lth_jax.analysis.progress import note
from lth_jax.analysis.units import units
from lth_jax.coding.stored import Stored
from lth_jax.legal import whole
from lth_jax.lottery import Result, Task
from lth_jax.population.segment import evaluate
from lth_jax.schema import Named
from lth_jax.timing import alternated

Shape = tuple[int, ...]
"""The number of units that each group keeps."""


@checked(batch=whole(1, 1_000_000), repeats=whole(1, 1_000_000))
def latency(run: Result, *, batch: int = 256, repeats: int = 50) -> Measurement:
    """Measures the forward pass and test accuracy of each network, shrunk to its live units.

    Dead units are removed, which changes no output (this is checked), and each resulting shape is
    timed in alternated rounds. A structured ticket and its controls `scratch`, `reinit` and
    `random_units` have the same shape, so the same latency. An unstructured ticket has few dead
    units, so its latency hardly changes. Times are those of this machine.

    Args:
      run: a finished run.
      batch: number of examples in a forward pass.
      repeats: number of alternated rounds.

    Returns:
      Latencies, accuracies and live units of all networks that did not diverge.

    Raises:
      AnalysisError: if the run has no accuracy, all networks diverged, or a small network has other
        outputs.
    """
    packages = ("analysis.latency", "timing", "structure")
    context = RunContext(run, *packages, accuracy=True)
    settings = {"batch": batch, "repeats": repeats}
    measure = partial(_timed, context, **settings)
    context.keep({"kind": "latency"}, measure, networks=context.networks, **settings)
    return units(run)


def _timed(context: RunContext, *, batch: int, repeats: int) -> Found:
    shrinker = Shrinker(context.task, batch)
    shapes: dict[Shape, Callable[[], Any]] = {}
    networks = []
    for one in context.converged():
        units = shrinker.live(one)
        shape = shrinker.shape(units)
        if shape not in shapes:
            shapes[shape] = shrinker.shrink(one, units)
        place = list(shapes).index(shape)
        networks.append({**about(one), "accuracy": shrinker.accuracy(one), "shape": place})
        note(named(about(one)))
    if not networks:
        raise AnalysisError(f"No network of {context.run.path.name} was trained to its end.")
    times = alternated({str(shape): f for shape, f in shapes.items()}, repeats)
    arrays = {"seconds": np.array([times[str(shape)] for shape in shapes])}
    sizes = [dict(zip(shrinker.groups, shape, strict=True)) for shape in shapes]
    return arrays, {"batch": batch, "repeats": repeats, "networks": networks, "shapes": sizes}


class Weights(Protocol):
    """A network without its function, such as `Stored`: arrays by leaf name."""

    @property
    def params(self) -> Named:
        """The values of the parameters."""

    @property
    def mask(self) -> Named:
        """Bool leaves."""

    @property
    def state(self) -> Named:
        """The model's state (BatchNorm statistics and the like)."""


class Shrinker:
    """Removes the dead units of a task's networks, state included."""

    def __init__(self, task: Task, batch: int):
        self._model = task.trainer.model
        rows = np.arange(batch) % len(task.data.test.y)
        self.x = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], task.data.test.x)
        params, state = task.shapes
        self._found = st.find_groups(self.apply, {"params": params, "state": state}, self.x)
        self.groups = [group.name for group in self._found.groups]
        self._masked = jax.jit(self.apply)
        self._programs: dict[Shape, Callable[..., Any]] = {}
        self._test = jax.jit(
            lambda v: evaluate(task.trainer, v["params"], v["state"], task.data.test)
        )

    def apply(self, variables: Any, x: Any) -> Any:
        """The outputs of a network in evaluation mode."""
        return self._model.apply(variables["params"], variables["state"], x, train=False)[0]

    def variables(self, one: Weights) -> Any:
        """The network's parameters, 0 where pruned, and its state."""
        shapes = self._found.params
        params = {name: np.where(one.mask[name], p, 0) for name, p in one.params.items()}
        return {
            "params": trees.from_named(params, shapes["params"]),
            "state": trees.from_named(one.state, shapes["state"]),
        }

    def live(self, one: Weights) -> dict[str, np.ndarray]:
        """The live units of each group; the first unit of a group without any."""
        shapes = self._found.params
        whole = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), shapes["state"])
        mask = {"params": trees.from_named(one.mask, shapes["params"]), "state": whole}
        units = st.live_units(self._found, mask)
        return {n: f if f.any() else np.arange(len(f)) == 0 for n, f in units.items()}

    def accuracy(self, one: Weights) -> float:
        """The accuracy on the test set."""
        return float(self._test(self.variables(one))["accuracy"])

    def shape(self, units: dict[str, np.ndarray]) -> Shape:
        """The number of kept units of each group."""
        return tuple(int(units[name].sum()) for name in self.groups)

    def shrink(self, one: Stored, units: dict[str, np.ndarray]) -> Callable[[], Any]:
        """The forward pass of the small network.

        Raises:
          AnalysisError: the small network has other outputs.
        """
        try:
            run, small = self.compact(one, units)
        except ValueError as error:
            raise AnalysisError(f"'{one.arm}' at level {one.level}: {error}") from error
        return partial(run, jax.device_put(small), self.x)

    def compact(
        self, one: Weights, units: dict[str, np.ndarray]
    ) -> tuple[Callable[[Any, Any], Any], Any]:
        """The function and the variables of the small network, whose outputs have been compared.

        Networks of one shape share a program.

        Raises:
          ValueError: the small network has other outputs.
        """
        variables, shape = self.variables(one), self.shape(units)
        if shape not in self._programs:
            _, apply = st.compact(self._found, variables, units, inexact=True)
            self._programs[shape] = jax.jit(apply)
        small, run = st.take(self._found, variables, units), self._programs[shape]
        st.check_same(self._masked, lambda v, x: run(small, x), variables, self.x, tolerance=1e-3)
        return run, small
