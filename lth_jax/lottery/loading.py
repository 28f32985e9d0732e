"""Runs, sweeps and atlases from their folders, as tables."""

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lth_jax.legal import nearest
from lth_jax.lottery.result import Result
from lth_jax.lottery.table import SHORT_ROWS, Table, cut
from lth_jax.report import answers, sweep_page, sweeps
from lth_jax.report.display import quantity
from lth_jax.report.tables import flat_rows
from lth_jax.store import RunInfo, Store, StoreError, files, find_run
from lth_jax.store.sweeps import find_sweep

VERDICT = ("claim", "title", "verdict", "estimate", "low", "high", "delta", "unit", "seeds")
"""The fields of `atlas.json` that `Atlas.table` shows."""


def load_run(run: str | Path | RunInfo, *, root: str | Path = "runs") -> Result:
    """Loads a run from its folder: tables with intervals, figures, and tickets.

    The folder does not hold the task. Analyses and retraining need it, so load the run by
    `lottery.Result.open(path, task)` for them. Trees of parameters are nested dictionaries. Of an
    unfinished run, only the finished levels are loaded.

    Args:
      run: its folder, its name, or a unique beginning or end of its name.
      root: the folder of all runs, where names are looked up.

    Raises:
      store.StoreError: there is no such run; the message lists names.

    >>> import tempfile
    >>> load_run("demo", root=tempfile.mkdtemp())
    Traceback (most recent call last):
    lth_jax.store.errors.StoreError: unknown run 'demo': ... holds no runs.
    """
    info = run if isinstance(run, RunInfo) else find_run(root, str(run))
    return Result(Store(Path(info.path).resolve().parent), Path(info.path))


def load_sweep(sweep: str | Path, *, root: str | Path = "runs") -> "SweepResult":
    """Loads a sweep from its folder: the finished cells as tables.

    Args:
      sweep: its folder, its name, or a unique beginning or end of a name in `root/sweeps`.
      root: the folder of all runs.

    Raises:
      store.StoreError: there is no such sweep; the message lists names.
      store.CorruptError: a file of it is damaged.

    >>> import tempfile
    >>> load_sweep("demo", root=tempfile.mkdtemp())
    Traceback (most recent call last):
    lth_jax.store.errors.StoreError: unknown sweep 'demo': ... holds no sweeps.
    """
    path = find_sweep(root, str(sweep))
    return SweepResult(Store(path.resolve().parents[1]), path)


def load_atlas(path: str | Path = "runs/atlas/laptop") -> "Atlas":
    """Loads an atlas from its folder: verdicts, and the numbers of all seeds.

    Args:
      path: its folder, whose last part is the size of the studies.

    Raises:
      store.StoreError: there is no atlas.

    >>> load_atlas("runs/atlas/none")
    Traceback (most recent call last):
    lth_jax.store.errors.StoreError: no atlas in runs/atlas/none; `python -m experiments.atlas`
    makes one.
    """
    if not (Path(path) / "atlas.json").exists():
        there = sorted(found.parent.name for found in Path(path).parent.glob("*/atlas.json"))
        sizes = f"; there are {', '.join(there)}" if there else ""
        raise StoreError(f"no atlas in {path}{sizes}; `python -m experiments.atlas` makes one.")
    return Atlas(Path(path))


class SweepResult:
    """The finished cells of a sweep, as `load_sweep` returns them.

    Attributes:
      path: the sweep's folder.
      store: holds the nodes of the cells.
    """

    def __init__(self, store: Store, path: Path):
        self.store, self.path = store, path

    @cached_property
    def record(self) -> sweeps.SweepRecord:
        """The settings of all cells, and the rows of the finished ones."""
        return sweeps.read_sweep(self.store, self.path)

    def cells(self) -> Table:
        """One row for each cell: its run, whether it is finished, and the fields that it sets."""
        finished = {row["run"] for row in self.record.rows}
        settings = self.record.settings.items()
        rows = [{"run": run, "finished": run in finished} | fields for run, fields in settings]
        return Table(uniform(rows))

    def table(self, metric: str | None = None) -> Table:
        """Means over replicates with 95 % intervals, by cell, arm, level and metric.

        Args:
          metric: such as `"test_accuracy_final"`; all by default.

        Raises:
          ValueError: there is no such metric.
        """
        rows = sweeps.cell_rows(self.record)
        metrics = dict.fromkeys(row["metric"] for row in rows)
        if metric is not None and metric not in metrics:
            raise ValueError(nearest("`metric`", metric, list(metrics)))
        chosen = [row for row in rows if metric in (None, row["metric"])]
        return Table(uniform(flat_rows(chosen)))

    def seeds(self) -> Table:
        """One row for each network and metric: the cell's fields, arm, level, replicate, value."""
        return Table(uniform(self.record.rows))

    def run(self, name: str) -> Result:
        """The run of a cell, by its name or a unique beginning or end of it."""
        return load_run(name, root=self.store.root)

    def to_pandas(self) -> Any:
        """`seeds()` as a `pandas.DataFrame`."""
        return self.seeds().to_pandas()

    def to_arrow(self) -> Any:
        """`seeds()` as a `pyarrow.Table`."""
        return self.seeds().to_arrow()

    def report(self) -> Path:
        """Writes the sweep's page, pictures and tables; returns the page's path."""
        return sweep_page.write_sweep_report(self.store, self.path)

    def __repr__(self) -> str:
        metric = self.record.metric
        finished = len({row["run"] for row in self.record.rows})
        about = f", {quantity(metric).title}" if metric else ""
        head = f"{self.path.name}: {finished} of {len(self.record.settings)} cells{about}"
        shown = dict(itertools.islice(self.record.settings.items(), SHORT_ROWS))
        few = self.record._replace(
            settings=shown, rows=[row for row in self.record.rows if row["run"] in shown]
        )
        hidden = len(self.record.settings) - len(shown)
        return f"{head}\n{cut(str(sweeps.sweep_table(few)), hidden)}"


class Atlas:
    """The results of studies, as `load_atlas` returns them.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def studies(self) -> list[dict[str, Any]]:
        """The studies in `atlas.json`."""
        found: list[dict[str, Any]] = files.read_json(self.path / "atlas.json")["studies"]
        return found

    def table(self) -> Table:
        """One row for each study: verdict, deciding effect with its interval, δ and seeds."""
        return Table([{name: study.get(name) for name in VERDICT} for study in self.studies])

    def seeds(self) -> Table:
        """One row for each study, round, seed and number: the study's fields, metric and value."""
        rows = []
        for study in self.studies:
            folder, size = self.path / study["claim"], self.path.resolve().name
            for name, answer in answers.read_rounds(folder, size).items():
                found = answers.read_rows(folder / name, answer)
                rows += [{"claim": study["claim"], "round": name} | row for row in found]
        return Table(uniform(rows))

    def to_pandas(self) -> Any:
        """`seeds()` as a `pandas.DataFrame`."""
        return self.seeds().to_pandas()

    def to_arrow(self) -> Any:
        """`seeds()` as a `pyarrow.Table`."""
        return self.seeds().to_arrow()

    def __repr__(self) -> str:
        return repr(self.table())


def uniform(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the same keys, each column of one type: None for what is missing, else text.

    >>> uniform([{"rate": 0.1}, {"rate": [1, 2], "seed": 0}])
    [{'rate': '0.1', 'seed': None}, {'rate': '[1, 2]', 'seed': 0}]
    """
    names = dict.fromkeys(name for row in rows for name in row)
    kinds: dict[str, set[type]] = {name: set() for name in names}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                kinds[name].add(float if type(value) is int else type(value))
    text = {n for n, kind in kinds.items() if len(kind) > 1 or kind & {list, tuple, dict}}
    return [
        {n: str(v) if n in text and (v := row.get(n)) is not None else row.get(n) for n in names}
        for row in rows
    ]
