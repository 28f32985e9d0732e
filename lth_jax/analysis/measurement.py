"""What all analyses share: how a measurement is keyed, kept, listed and read back."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lth_jax import store as stores
from lth_jax.analysis.arguments import AnalysisError
from lth_jax.coding.stored import Stored, entries, read_stored
from lth_jax.lottery import Result, Table
from lth_jax.population.streaming import OnHost
from lth_jax.store.analyses import add_analysis

PACKAGES = ("data", "keys", "models", "population", "trees")
"""Packages whose code decides every measurement."""

About = dict[str, Any]


class Measurement:
    """What the store holds of one kind of analysis of a run.

    Args:
      room: the module of `lth_jax.report` that reads, tabulates and draws this kind.
      run: the run.

    Attributes:
      records: what `room.read` returns: the arrays of each network; None where there are none.
    """

    def __init__(self, room: Any, run: Result):
        self._room, self.records = room, room.read(run.store, run.path)

    def table(self) -> Table:
        """One row for each arm, level and metric: means over replicates with 95 % intervals."""
        rows = self._room.rows(self.records) if self.records else []
        return Table([{k: v for k, v in row.items() if k != "values"} for row in rows])

    def figures(self) -> dict[str, Any]:
        """The Matplotlib figures by name, as on the run's page.

        Raises:
          lth_jax.extras.MissingExtraError: Matplotlib is not installed.
        """
        return self._room.draw(self.records) if self.records else {}

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def basis(run: Result, *packages: str) -> About:
    """What decides a measurement besides its settings and its networks; a part of its key.

    Args:
      run: the run.
      *packages: those of `lth_jax` whose code decides it, besides `PACKAGES`.

    Raises:
      AnalysisError: the run was trained with another task.
    """
    check_unchanged(run)
    return {
        "data": run.data_fingerprint,
        "program": run.program,
        "environment": stores.environment(),
        "source": source(*packages),
    }


def source(*packages: str) -> str:
    """The fingerprint of the code of `PACKAGES` and of further packages of `lth_jax`."""
    return stores.source_fingerprint(*(f"lth_jax.{name}" for name in (*PACKAGES, *packages)))


def keep(run: Result, what: About, labels: About, compute: Callable[[], tuple[Any, About]]) -> str:
    """Computes a measurement unless the store has it, and lists it with the run.

    Args:
      run: the run.
      what: decides it: `basis`, settings and networks, JSON-like.
      labels: what tells it from the run's others, `"kind"` among them; part of the node's facts.
      compute: makes its arrays and further facts.

    Returns:
      The node's key.
    """

    def node(progress: stores.Partial) -> stores.Node:
        del progress  # a node takes seconds to minutes
        arrays, facts = compute()
        return stores.Node(arrays, {**labels, **facts})

    key = stores.content_key({**what, **labels})
    run.store.node(key, node)
    add_analysis(run.path, key, labels)
    return key


def levels_of(run: Result) -> list[int]:
    """The run's levels, rising."""
    return sorted({entry["level"] for entry in entries(run.path)})


def arms_of(run: Result) -> tuple[str, ...]:
    """The run's arms in the order of its levels."""
    return tuple(dict.fromkeys(arm for entry in entries(run.path) for arm in entry["arms"]))


def networks_of(run: Result) -> list[list[Any]]:
    """The nodes and rows that hold the run's networks, as a part of keys."""
    return [[entry["key"], entry["rows"]] for entry in entries(run.path)]


def converged(run: Result, arms: Sequence[str] | None = None) -> Iterator[Stored]:
    """The run's networks that did not diverge, level by level; of all arms by default."""
    chosen = arms_of(run) if arms is None else tuple(arms)
    return (o for o in read_stored(run.store, run.path, chosen) if o.diverged_at is None)


def about(one: Stored, *further: str) -> About:
    """Arm, level and replicate of a network, and further attributes."""
    return {name: getattr(one, name) for name in ("arm", "level", "replicate", *further)}


def require(run: Result, *, accuracy: bool = False, on_device: bool = False) -> None:
    """Raises `AnalysisError` unless the run's task can be analysed.

    Args:
      run: the run.
      accuracy: whether it must have an accuracy, which a regression has not.
      on_device: whether its training data must be in memory.
    """
    metrics = run.task.trainer.metrics
    if accuracy and "accuracy" not in metrics:
        raise AnalysisError(
            f"{run.path.name} has the metrics {', '.join(metrics)}; this analysis needs 'accuracy'."
        )
    if on_device and isinstance(run.task.data.train, OnHost):
        raise AnalysisError(
            "`run` has a task whose training data are on disk; this analysis needs them in memory."
        )


def check_unchanged(run: Result) -> None:
    """Raises `AnalysisError` if the run was trained with another task.

    Other versions, devices or flags may lower the same functions to other text. Under those, the
    programs cannot be compared.
    """
    identity = stores.read_identity(run.path) or {}
    if identity.get("data", run.data_fingerprint) != run.data_fingerprint:
        raise AnalysisError(f"{run.path.name} was trained on other data than those of its task.")
    if _knows_environment(run.path) and identity.get("training") != run.program:
        raise AnalysisError(
            f"{run.path.name} was trained with another network, optimizer or loss than those of "
            "its task now; restore them, or run it again."
        )


def _knows_environment(path: Path) -> bool:
    """Whether the run was trained under the versions, device and flags of this process."""
    trained = stores.read_env(path)["environments"]
    return _conditions(stores.environment()) in [_conditions(found) for found in trained]


def _conditions(environment: dict[str, Any]) -> str:
    device = {name: environment["device"][name] for name in ("platform", "kind")}
    return stores.content_key([environment["versions"], device, environment["numerics"]])
