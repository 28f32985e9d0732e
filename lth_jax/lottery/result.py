"""The result of a run: tables with intervals, figures, and tickets as files."""

import importlib.util
import tempfile
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from lth_jax import coding, keys, trees
from lth_jax.coding.stored import (
    REWOUND,
    TRAINED,
    Stored,
    encode_stored,
    find_stored,
    read_stored,
    rewound,
)
from lth_jax.data.datasets import fingerprint as data_fingerprint
from lth_jax.legal import nearest
from lth_jax.lottery.identity import training_program
from lth_jax.lottery.spec import Experiment, Seeds
from lth_jax.lottery.starts import Start, starts_of
from lth_jax.lottery.table import Table, cut
from lth_jax.population.task import Task
from lth_jax.pruning.masks import apply_mask
from lth_jax.report import RunRecord, read_run, write_report
from lth_jax.report import tables as rows_of
from lth_jax.report.display import headline_metric, left_out, level_table
from lth_jax.store import RunInfo, Store, StoreError, files, find_run, read_config
from lth_jax.store.leaves import nest
from lth_jax.types import DENSE, TICKET, Mask, Params, Prunable

Folder = tempfile.TemporaryDirectory[str] | None
ENDINGS = ("", "_final", "_early_stop")


class StoredTicket:
    """One network of a run: mask, initial weights and trained weights.

    Attributes:
      arm: `"ticket"`, `"dense"`, or the name of a control.
      level: its pruning level.
      replicate: the index of its seed.
      density: fraction of prunable weights kept.
      mask: boolean tree like the parameters.
      prunable: tree of Python booleans.
      trained: weights after training, 0 where the mask is False.
      state: the model's state after training (BatchNorm statistics and the like); a `.ticket` file
        does not hold it.
    """

    def __init__(self, result: "Result", stored: Stored):
        self._result, self.stored = result, stored  # keeps a temporary store alive
        tree = result.as_tree
        self.arm, self.level, self.replicate = stored.arm, stored.level, stored.replicate
        self.density = stored.density
        self.mask: Mask = tree(stored.mask)
        self.prunable: Prunable = tree(stored.prunable)
        self.trained: Params = tree(stored.params)
        self.state: Any = result.as_tree(stored.state, state=True)

    @property
    def initial(self) -> Params:
        """The initial weights: those of the dense network at the rewind step, masked.

        Raises:
          store.StoreError: the network is a control, which may start from other weights.
        """
        [(values, _)] = rewound(self._result.store, self._result.info, [self.stored])
        return apply_mask(self.mask, trees.from_named(values, self.mask))

    def save(
        self, path: str | Path, *, values: str = REWOUND, precision: coding.Precision | None = None
    ) -> None:
        """Writes the ticket to a file; `lth_jax.load_ticket` reads it.

        Args:
          path: the file, usually `NAME.ticket`.
          values: `"rewound"`, the initial weights of the ticket, or `"trained"`.
          precision: precision of the stored values; exact by default.

        Raises:
          ValueError: `values` is neither.
          store.StoreError: `values` is `"rewound"` for a control, which may start from other
            weights.

        Warns:
          UserWarning: the network has a state, which trained values need and the file lacks.
        """
        if values == TRAINED and self.stored.state:
            warnings.warn(
                f"the file holds parameters; the model's state ({len(self.stored.state)} arrays), "
                "which trained values need, is left out. `StoredTicket.state` has it.",
                stacklevel=2,
            )
        origin = self._result.store, self._result.info
        data = encode_stored(*origin, self.stored, values=values, precision=precision)
        files.write(Path(path), data, make_folder=False)

    def __repr__(self) -> str:
        place = f"level {self.level}, replicate {self.replicate}"
        return f"Ticket({self.arm}, {place}, density {self.density:.3g})"


class Result:
    """A run, as `lottery.run` and `lth_jax.load_run` return it.

    Attributes:
      path: the run's folder.
      store: holds the run's nodes.
    """

    def __init__(
        self,
        store: Store,
        path: Path,
        task: Task | None = None,
        temporary: Folder = None,
        *,
        data: str | None = None,
        program: str | None = None,
    ):
        self.path, self.store, self._task = Path(path), store, task
        self._temporary = temporary  # keeps a temporary folder alive
        self._data, self._program = data, program

    @classmethod
    def of(cls, store: Store, path: Path, experiment: Experiment, temporary: Folder = None) -> Self:
        """The result of an experiment's finished run."""
        data, program = experiment.identity.data, experiment.identity.training
        return cls(store, path, experiment.task, temporary, data=data, program=program)

    @classmethod
    def open(cls, path: str | Path, task: Task, *, data: str | None = None) -> Self:
        """The result of a finished run of `lottery.run`.

        Args:
          path: the run's folder, `Result.path`.
          task: the task of the run; the shapes of the network's parameters are checked.
          data: the fingerprint of the task's data; computed when needed by default.

        Raises:
          store.StoreError: the run does not exist, is not finished, or is damaged.
          ValueError: the task has another network.
        """
        info = find_run(Path(path).parent, str(path))
        if info.status != "finished":
            raise StoreError(f"{info.run} is {info.status}; only a finished run has a result.")
        found = cls(Store(Path(path).resolve().parent), Path(path), task, data=data)
        shapes = {name: leaf.shape for name, leaf in trees.to_named(task.shapes[0]).items()}
        one = next(read_stored(found.store, found.path, (DENSE,)))
        stored = {name: leaf.shape for name, leaf in one.params.items()}
        if stored != shapes:
            raise ValueError(
                f"`task` has parameters of shapes {shapes}; those of {info.run} are {stored}."
            )
        return found

    @property
    def task(self) -> Task:
        """The task that the run trained.

        Raises:
          ValueError: the result was loaded without its task.
        """
        if self._task is None:
            raise ValueError(
                f"{self.path.name} was loaded without its task; "
                "`lottery.Result.open(path, task)` opens it with one."
            )
        return self._task

    def as_tree(self, named: dict[str, Any], *, state: bool = False) -> Any:
        """Leaves by name in the tree of the task's parameters; without a task, in dictionaries.

        Args:
          named: name -> leaf.
          state: whether they are the leaves of the model's state.
        """
        if self._task is None:
            return nest([(tuple(name.split("/")), leaf) for name, leaf in named.items()])
        return trees.from_named(named, self._task.shapes[state])

    @property
    def info(self) -> RunInfo:
        """The run's name, status and folder."""
        return find_run(self.path.parent, str(self.path))

    @cached_property
    def replicate_seeds(self) -> Seeds:
        """The run's independent seeds."""
        config = read_config(self.path)
        shared = config["train"].get("shared_order", False)
        return Seeds(keys.from_seed(config["seed"]), config["replicates"], shared)

    @cached_property
    def rewind_step(self) -> int:
        """The step to which the ladder rewinds."""
        return int(read_config(self.path)["rewind"]["step"])

    @cached_property
    def data_fingerprint(self) -> str:
        """The SHA-256 of the task's data."""
        return self._data or data_fingerprint(*self.task.data)

    @cached_property
    def program(self) -> str:
        """The fingerprint of the task's training program."""
        task, root = self.task, self.replicate_seeds.root
        return self._program or training_program(task.trainer, task.data, task.hyper, root)

    @cached_property
    def record(self) -> RunRecord:
        """The record of the run, from which tables and figures are made."""
        return read_run(self.store, self.path)

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics."""
        return list(dict.fromkeys(m for level in self.record.levels for m in level.results))

    def table(self, metric: str | None = None) -> Table:
        """Means over replicates with 95 % intervals, by arm, level and metric.

        Args:
          metric: one of `metrics`, or its beginning, such as `"test_accuracy"`; all by default.

        Raises:
          ValueError: there is no such metric.
        """
        rows = rows_of.summary_rows(self.record)
        if metric is not None:
            chosen = self._metric(metric)
            rows = [row for row in rows if row["metric"] == chosen]
        return Table(rows_of.flat_rows(rows), " ".join(left_out(self.record)))

    def seeds(self) -> Table:
        """One row for each network and metric: arm, level, replicate, density and value."""
        return Table(rows_of.seed_rows(self.record))

    def history(self) -> Table:
        """The training curves: one row for each network, step and metric."""
        return Table(rows_of.curve_rows(self.record))

    def differences(self, metric: str | None = None) -> Table:
        """Ticket minus dense, and ticket minus each control, paired by replicate, with intervals.

        Args:
          metric: as in `table`; the test accuracy by default.

        Raises:
          ValueError: there is no such metric.
        """
        chosen = self._metric(metric) if metric else headline_metric(self.record)
        return Table(rows_of.difference_rows(self.record, chosen) if chosen else [])

    def to_pandas(self) -> Any:
        """`seeds()` as a `pandas.DataFrame`."""
        return self.seeds().to_pandas()

    def to_arrow(self) -> Any:
        """`seeds()` as a `pyarrow.Table`."""
        return self.seeds().to_arrow()

    def figure(self, metric: str | None = None) -> Any:
        """A metric against density, all arms, as a Matplotlib figure.

        Args:
          metric: as in `table`; the test accuracy by default.

        Raises:
          ValueError: there is no such metric, or no level is finished.
          lth_jax.extras.MissingExtraError: Matplotlib is not installed.
        """
        from lth_jax.report import figures

        chosen = self._metric(metric) if metric else headline_metric(self.record)
        if chosen is None:
            raise ValueError("no level of the run is finished, so there is nothing to draw.")
        return figures.against_density(self.record, chosen)

    def report(self) -> Path:
        """Writes the run's report page, figures and tables; returns the path of the page."""
        return write_report(self.store, self.info)

    def ticket(self, level: int, replicate: int = 0, *, arm: str = TICKET) -> StoredTicket:
        """One network.

        Args:
          level: its level; 0 for the dense network (`arm="dense"`).
          replicate: the index of its seed.
          arm: `"ticket"`, `"dense"`, or the name of a control.

        Raises:
          store.StoreError: the network does not exist, or it diverged.
        """
        one = find_stored(self.store, self.info, arm=arm, level=level, replicate=replicate)
        return StoredTicket(self, one)

    def tickets(self, level: int, *, arm: str = TICKET) -> list[StoredTicket]:
        """All networks of an arm at a level that did not diverge, in the order of replicates."""
        found = read_stored(self.store, self.path, (arm,), levels=(level,))
        chosen = [one for one in found if one.diverged_at is None]
        by_replicate = sorted(chosen, key=lambda one: one.replicate)
        return [StoredTicket(self, one) for one in by_replicate]

    def starts(self, level: int, *, arm: str = TICKET) -> list[Start]:
        """The starts of an arm's networks, in the order of replicates, for `retrain`.

        Args:
          level: pruning level; 0 for `arm="dense"`.
          arm: `"ticket"`, `"dense"`, or a control that keeps the ticket's weights.
        """
        return starts_of(self.store, self.path, self.replicate_seeds, (arm,), level)[arm]

    def _metric(self, name: str) -> str:
        for ending in ENDINGS:
            if name + ending in self.metrics:
                return name + ending
        short = dict.fromkeys(metric.removesuffix("_final") for metric in self.metrics)
        raise ValueError(nearest("`metric`", name, list(short)))

    def __repr__(self) -> str:
        return cut(str(level_table(self.record)))

    def _repr_html_(self) -> str:
        metric = headline_metric(self.record)
        picture = ""
        if metric is not None and importlib.util.find_spec("matplotlib"):
            from lth_jax.report import plotting

            picture = plotting.image(self.figure(metric), "svg").decode()
        return (self.table(metric) if metric else self.table())._repr_html_() + picture
