"""Shared by all analyses: the networks of a run, and how measurements are stored and read."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from lth_jax import store as stores
from lth_jax import trees
from lth_jax.analysis.arguments import AnalysisError
from lth_jax.analysis.progress import note
from lth_jax.coding.stored import Named, Stored, read_stored
from lth_jax.lottery import Result, Table
from lth_jax.lottery.stability import member_at
from lth_jax.population import Member, Plan, train_population
from lth_jax.population.streaming import OnHost
from lth_jax.report.tables import flat_rows
from lth_jax.schema import read_entries
from lth_jax.store.analyses import add_analysis
from lth_jax.types import Info

PACKAGES = ("analysis.measurement", "data", "keys", "models", "population", "schema", "trees")
"""Code that determines every measurement."""

About = dict[str, Any]
Found = tuple[Any, About]
"""Arrays and further facts of a node."""


class Measurement:
    """All stored measurements of one kind of a run.

    Args:
      reports: the module of `lth_jax.report` that reads, tabulates and plots this kind.
      run: the run.

    Attributes:
      records: the result of `reports.read`, with the arrays of each network; None before the first.
    """

    def __init__(self, reports: Any, run: Result):
        self._reports, self.records = reports, reports.read(run.store, run.path)

    def table(self) -> Table:
        """One row for each arm, level and metric: means over replicates with 95 % intervals."""
        return Table(flat_rows(self._reports.rows(self.records) if self.records else []))

    def figures(self) -> dict[str, Any]:
        """The Matplotlib figures of the run's page, by name.

        Raises:
          lth_jax.extras.MissingExtraError: if Matplotlib is not installed.
        """
        return self._reports.draw(self.records) if self.records else {}

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


class Point(NamedTuple):
    """One network at one point: parameters, state, and the mask of its support, by leaf name."""

    params: Named
    state: Named
    mask: Named


class RunContext:
    """A run under analysis.

    Args:
      run: the run.
      *packages: further modules of `lth_jax`, after `PACKAGES`, whose code determines the numbers.
      accuracy: whether the run must have an accuracy; regressions have none.
      on_device: whether the training data must be in memory.
      listed_with: the runs that list the measurement; this one by default.

    Attributes:
      task: the run's task.
      levels: the run's levels in rising order.
      arms: the run's arms in the order of its levels.
      networks: the nodes and rows of all networks, as a part of keys.

    Raises:
      AnalysisError: if the run was trained with another task, or its task lacks a requirement.
    """

    def __init__(
        self,
        run: Result,
        *packages: str,
        accuracy: bool = False,
        on_device: bool = False,
        listed_with: Sequence[Result] = (),
    ):
        self.run, self.task, self.root = run, run.task, run.replicate_seeds.root
        self._listed_with, self._shapes = listed_with or [run], run.task.shapes
        metrics = run.task.trainer.metrics
        if accuracy and "accuracy" not in metrics:
            named = ", ".join(metrics)
            raise AnalysisError(f"{run.path.name} has the metrics {named}; it needs 'accuracy'.")
        if on_device and isinstance(run.task.data.train, OnHost):
            raise AnalysisError("`run` has training data on disk; they must be in memory.")
        check_unchanged(run)
        source = stores.source_fingerprint(*(f"lth_jax.{name}" for name in (*PACKAGES, *packages)))
        basis = {"data": run.data_fingerprint, "program": run.program, "source": source}
        basis["constants"] = stores.fingerprint(run.task.trainer.constants)
        self._basis = {**basis, "environment": stores.environment()}
        listed = read_entries(run.path)
        self.levels = sorted({entry.level for entry in listed})
        self.arms = tuple(dict.fromkeys(arm for entry in listed for arm in entry.arms))
        self.networks = [[entry.key, entry.rows] for entry in listed]

    def converged(self, *arms: str, levels: Collection[int] | None = None) -> Iterator[Stored]:
        """The networks that did not diverge, level by level; of all arms and levels by default."""
        found = read_stored(self.run.store, self.run.path, arms or self.arms, levels)
        return (one for one in found if one.diverged_at is None)

    def trees(self, params: Named, state: Named, mask: Named) -> tuple[Any, Any, Any]:
        """Parameters, state and mask as trees like the task's."""
        of_params, of_state = self._shapes
        named = trees.from_named
        return named(params, of_params), named(state, of_state), named(mask, of_params)

    def member(self, point: Point, data_key: Any, replicate: int, **hyper: float) -> Member:
        """A member of the task at a point, with a new optimizer state."""
        numbers = {**self.task.hyper, **hyper}
        return member_at(self.task.trainer, numbers, *self.trees(*point), data_key, replicate)

    def train(
        self, members: Sequence[Member], chunk: int, on_segment: Any = None
    ) -> tuple[Member, Info]:
        """Trains members from the run's rewind step to its end: `chunk` at a time, 0 for all."""
        task, size = self.task, len(members)
        trained, _, history = train_population(
            task.trainer,
            trees.stack(list(members)),
            task.data.train,
            task.data.validation,
            plan=Plan(min(chunk or size, size)),
            start=self.run.rewind_step,
            stop=task.steps,
            on_segment=on_segment,
        )
        return trained, history

    def keep(self, labels: About, compute: Callable[[], Found], **what: Any) -> stores.Node:
        """Computes a measurement unless it is in the store, and lists it with the run.

        Args:
          labels: facts that distinguish it from the others, including `"kind"`.
          compute: returns arrays and further facts.
          **what: settings and networks that determine it, JSON-like.
        """

        def node(progress: stores.Partial) -> stores.Node:
            del progress  # a node takes seconds to minutes
            arrays, facts = compute()
            return stores.Node(arrays, {**labels, **facts})

        key = stores.content_key({**self._basis, **what, **labels})
        found = self.run.store.node(key, node)
        note(named(labels))
        for run in self._listed_with:
            add_analysis(run.path, key, labels)
        return found


def named(labels: About) -> str:
    """Labels as text.

    >>> named({"arm": "ticket", "level": 2})
    'arm ticket, level 2'
    """
    return ", ".join(f"{name} {value}" for name, value in labels.items())


def about(one: Stored, *further: str) -> About:
    """Arm, level and replicate of a network, and further attributes."""
    return {name: getattr(one, name) for name in ("arm", "level", "replicate", *further)}


def check_unchanged(run: Result) -> None:
    """Raises `AnalysisError` if the run was trained with another task.

    Programs are compared only under the same versions, devices and flags, because others may lower
    the same functions to different text.
    """
    identity = stores.read_identity(run.path) or {}
    if identity.get("data", run.data_fingerprint) != run.data_fingerprint:
        raise AnalysisError(f"{run.path.name} was trained on data that differ from its task's.")
    constants = stores.fingerprint(run.task.trainer.constants)
    if identity.get("constants", constants) != constants:
        raise AnalysisError(f"{run.path.name} was trained with other constants than its task.")
    trained = [_conditions(found) for found in stores.read_env(run.path)["environments"]]
    if _conditions(stores.environment()) in trained and identity.get("training") != run.program:
        raise AnalysisError(
            f"{run.path.name} was trained with another network, optimizer or loss than its "
            "task; restore them, or run it again."
        )


def _conditions(environment: dict[str, Any]) -> str:
    device = environment.get("device", {})
    kind = {name: device.get(name) for name in ("platform", "kind")}
    return stores.content_key([environment.get("versions"), kind, environment.get("numerics")])
