"""Accuracy at equal measured latency: a finished run's networks, shrunk to their live units.

    python -m experiments.latency RUN [--batch 256] [--repeats 50]

Dead units of every network are removed, which changes no output (it is checked), and each shape
that comes out is timed in alternated rounds. A structured ticket, its `scratch` (the same shape
newly drawn), its `reinit` and its `random_units` have one shape and so one latency; an unstructured
ticket has few dead units, so its latency hardly moves. Rows and pictures go into the run's report.
What is measured is kept in the store, and holds for this machine.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.finished import (
    Finished,
    exit_code,
    machine_of,
    open_finished,
    parser_for,
    require_accuracy,
)
from experiments.flags import UserError
from experiments.legal import whole
from experiments.live_units import describe
from experiments.timing import alternated
from lth_jax import store as stores
from lth_jax import structure as st
from lth_jax import trees
from lth_jax.coding.stored import Stored, read_stored
from lth_jax.lottery import Task
from lth_jax.population.segment import evaluate
from lth_jax.report import write_report
from lth_jax.schema import read_entries
from lth_jax.store.analyses import add_analysis

SOURCES = (
    *(f"lth_jax.{room}" for room in ("structure", "models", "population", "data", "trees")),
    "experiments.latency",
    "experiments.timing",
)

Shape = tuple[int, ...]
"""How many units each group keeps, group after group."""


class Settings(NamedTuple):
    """How latency is measured.

    Attributes:
      batch: examples in one forward pass.
      repeats: alternated rounds.
    """

    batch: int = 256
    repeats: int = 50


class Shrinker:
    """Removes the dead units of a run's networks, state included."""

    def __init__(self, task: Task, batch: int):
        self._model = task.trainer.model
        rows = np.arange(batch) % len(task.data.test.y)
        self.x = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], task.data.test.x)
        params, state = task.shapes
        self._found = st.find_groups(self._apply, {"params": params, "state": state}, self.x)
        self.groups = [group.name for group in self._found.groups]
        self._masked = jax.jit(self._apply)
        self._test = jax.jit(
            lambda v: evaluate(task.trainer, v["params"], v["state"], task.data.test)
        )

    def _apply(self, variables: Any, x: Any) -> Any:
        return self._model.apply(variables["params"], variables["state"], x, train=False)[0]

    def variables(self, one: Stored) -> Any:
        """The network's parameters, 0 where pruned, and its state."""
        shapes = self._found.params
        params = {name: np.where(one.mask[name], p, 0) for name, p in one.params.items()}
        return {
            "params": trees.from_named(params, shapes["params"]),
            "state": trees.from_named(one.state, shapes["state"]),
        }

    def live(self, one: Stored) -> dict[str, np.ndarray]:
        """The live units of each group; the first one of a group that has collapsed."""
        shapes = self._found.params
        whole = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), shapes["state"])
        mask = {"params": trees.from_named(one.mask, shapes["params"]), "state": whole}
        units = st.live_units(self._found, mask)
        return {n: f if f.any() else np.arange(len(f)) == 0 for n, f in units.items()}

    def accuracy(self, one: Stored) -> float:
        """On the test set."""
        return float(self._test(self.variables(one))["accuracy"])

    def shrink(self, one: Stored, units: dict[str, np.ndarray]) -> Callable[[], Any]:
        """The forward pass of the small network, after its results were compared.

        Raises:
          UserError: if the small network computes something else.
        """
        variables = self.variables(one)
        small, apply = st.compact(self._found, variables, units, inexact=True)
        run = jax.jit(apply)
        try:
            st.check_same(
                self._masked, lambda v, x: run(small, x), variables, self.x, tolerance=1e-3
            )
        except ValueError as error:
            raise UserError(f"'{one.arm}' at level {one.level}: {error}") from error
        return partial(run, jax.device_put(small), self.x)


def _test(task: Task, variables: Any) -> Any:
    return evaluate(task.trainer, variables["params"], variables["state"], task.data.test)


def measure(run: Finished, settings: Settings) -> str:
    """Times a run's networks, or finds their times in the store, and draws the report anew.

    Args:
      run: the run.
      settings: how to measure.

    Returns:
      The path of the report's page.

    Raises:
      UserError: if the run has no accuracy, no network converged, or a small one computes something
        else.
      StoreError: if something in the store is damaged.
    """
    require_accuracy(run, "accuracy at equal latency")
    what = {
        "what": "latency",
        **settings._asdict(),
        "networks": [[entry.key, entry.rows] for entry in read_entries(run.info.path)],
        **run.basis,
        "source": stores.source_fingerprint(*SOURCES),
    }
    key = stores.content_key(what)
    run.store.node(key, partial(_timed, run, settings))
    add_analysis(run.info.path, key, {"kind": "latency"})
    describe(run.store, run.info.path, run.task)
    return str(write_report(run.store, run.info))


def _timed(run: Finished, settings: Settings, progress: stores.Partial) -> stores.Node:
    del progress  # rounds that were interrupted are worth nothing
    shrinker = Shrinker(run.task, settings.batch)
    shapes: dict[Shape, Callable[[], Any]] = {}
    networks = []
    for one, units in _converged(run, shrinker):
        shape = tuple(int(units[name].sum()) for name in shrinker.groups)
        if shape not in shapes:
            shapes[shape] = shrinker.shrink(one, units)
        facts = {name: getattr(one, name) for name in ("arm", "level", "replicate")}
        place = list(shapes).index(shape)
        networks.append({**facts, "accuracy": shrinker.accuracy(one), "shape": place})
    if not networks:
        raise UserError("the run has no latency, since all of its networks diverged.")
    times = alternated({str(shape): f for shape, f in shapes.items()}, settings.repeats)
    arrays = {"seconds": np.array([times[str(shape)] for shape in shapes])}
    sizes = [dict(zip(shrinker.groups, shape, strict=True)) for shape in shapes]
    meta = {"kind": "latency", **settings._asdict(), "networks": networks, "shapes": sizes}
    return stores.Node(arrays, meta)


def _converged(run: Finished, shrinker: Shrinker) -> Iterator[tuple[Stored, dict[str, np.ndarray]]]:
    """The networks that converged, the dense ones first, and their live units."""
    arms = tuple({arm for entry in read_entries(run.info.path) for arm in entry.arms})
    for one in read_stored(run.store, run.info.path, arms):
        if one.diverged_at is None:
            yield one, shrinker.live(one)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    parser = parser_for("experiments.latency", str(__doc__))
    parser.option("batch", whole(1, 1_000_000), Settings().batch, "examples in a forward pass")
    parser.option("repeats", whole(1, 1_000_000), Settings().repeats, "alternated rounds")

    def work() -> str:
        arguments = parser.parse_args(argv)
        settings = Settings(arguments.batch, arguments.repeats)
        return measure(open_finished(machine_of(arguments), arguments.run), settings)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
