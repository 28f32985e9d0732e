"""Trains ladders and populations for studies, and stores the results.

Finished results are stored and reused: an interrupted study continues, and studies share networks.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import build, checks
from experiments.studies.common import RATE, vary
from experiments.sweep import train_cells
from lth_jax import data as datasets
from lth_jax import store as stores
from lth_jax.analysis.random_tickets import random_tickets
from lth_jax.coding.stored import Stored, read_stored
from lth_jax.lottery import Retrained, Seeds, Start, Task, circumstances, retrain, starts_of
from lth_jax.lottery.stability import error_barriers
from lth_jax.population import Plan, cheapest, narrowed, read_plan
from lth_jax.population.placement import fitted
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.report import RunRecord, read_run
from lth_jax.report.cells import LAST, Cost, Results, Tuned, cell_name
from lth_jax.report.sweeps import read_sweep
from lth_jax.schema import read_entries
from lth_jax.store.sweeps import read_sweep_config
from lth_jax.types import DENSE

Arm = TypeVar("Arm")


class StudyRunner:
    """Trains networks for studies and stores them.

    The methods take the name of a study and the config of one of its cells, as `ladders` got them.

    Args:
      machine: the `machine` part of a config.
      command: the command line, for reports.
      pilot: whether all runs are pilots.

    Attributes:
      store: holds all results.
    """

    def __init__(self, machine: ConfigDict, command: Sequence[str] = (), *, pilot: bool = False):
        self.machine, self.command, self.pilot = machine, list(command), pilot
        self.store = stores.Store(machine.workdir)
        self._datasets: dict[str, datasets.Dataset] = {}
        self._plans: dict[tuple[str, str], dict[str, Any]] = {}
        self._runs: dict[str, Path] = {}

    def ladders(self, name: str, cells: Mapping[str, ConfigDict]) -> Results:
        """Trains the ladders of all cells, configs by name, as populations, or reads them."""
        planned = [({"cell": cell}, self._named(name, config)) for cell, config in cells.items()]
        for _, config in planned:
            checks.check(config.experiment)
        sweep = train_cells(self.machine, name, planned, self.command, pilot=self.pilot)
        trained = read_sweep_config(sweep.path)["cells"]
        for config, found in zip(cells.values(), trained, strict=True):
            run = self.store.root / found["run"]
            self._runs[self._key(name, config)] = run
            plan = stores.read_env(run)["plan"]
            assert plan is not None, f"{run} is finished and has no plan"
            self._plans[name, config.experiment.model.name] = plan
        costs = {cell: self._cost(config) for cell, config in cells.items()}
        return Results(read_sweep(self.store, sweep.path).rows, costs)

    def tuned(
        self,
        name: str,
        config: ConfigDict,
        *,
        beside: Mapping[str, ConfigDict] = MappingProxyType({}),
        rates: Sequence[float] = (),
        by: str = "test_accuracy_final",
    ) -> Tuned:
        """The ladders of a config at every learning rate, cross-fitted between halves of the seeds.

        Args:
          name: of the study.
          config: the experiment; its `study` has `rates`.
          beside: further experiments, each an arm of its own by its dense network.
          rates: candidates; those of the study by default.
          by: the metric of the choice.
        """
        grid = list(rates or config.study.rates)
        cells = {
            cell_name(variant, rate): vary(one, optimizer__learning_rate=rate)
            for variant, one in {"": config, **beside}.items()
            for rate in grid
        }
        return Tuned(self.ladders(name, cells), grid, by)

    def networks(
        self, name: str, config: ConfigDict, arm: str, level: int | None = None
    ) -> list[Stored]:
        """The trained networks of an arm, by level and replicate; by default of all levels."""
        run = self._run(name, config)
        if level == LAST:
            level = max(entry.level for entry in read_entries(run) if arm in entry.arms)
        found = read_stored(self.store, run, (arm,), None if level is None else (level,))
        return sorted(found, key=lambda one: (one.level, one.replicate))

    def networks_at(
        self, name: str, config: ConfigDict, arm: str, rates: NDArray[np.float64], level: int = LAST
    ) -> list[Stored]:
        """The network of each replicate at its own learning rate, such as `Tuned.chosen`."""
        at = {rate: vary(config, **{RATE: float(rate)}) for rate in np.unique(rates)}
        found = {rate: self.networks(name, cell, arm, level) for rate, cell in at.items()}
        return [found[rate][i] for i, rate in enumerate(rates)]

    def record(self, name: str, config: ConfigDict) -> RunRecord:
        """The record of a cell that `ladders` trained, with its training curves."""
        return read_run(self.store, self._run(name, config))

    def run_name(self, name: str, config: ConfigDict) -> str:
        """The name of the run of a cell that `ladders` trained."""
        return self._run(name, config).name

    def origins(self, name: str, config: ConfigDict) -> list[Start]:
        """The dense starts of the replicates of a cell that `ladders` trained."""
        return self.starts(name, config, (DENSE,), level=0)[DENSE]

    def starts(
        self, name: str, config: ConfigDict, arms: Sequence[str], level: int = LAST
    ) -> dict[str, list[Start]]:
        """`lottery.starts_of` a cell that `ladders` trained, at the last level by default."""
        at = config.experiment.prune.levels if level == LAST else level
        return starts_of(self.store, self._run(name, config), self.seeds(config), arms, at)

    def dataset(self, config: ConfigDict) -> datasets.Dataset:
        """The data set of a config, loaded once."""
        experiment = config.experiment
        train = experiment.train
        key = stores.content_key(
            [experiment.data.to_dict(), train.batch_size, train.distill.to_dict()]
        )
        if key not in self._datasets:
            whole = ConfigDict({"experiment": experiment, "machine": self.machine})
            self._datasets[key] = build.dataset(whole)
        return self._datasets[key]

    def seeds(self, config: ConfigDict) -> Seeds:
        """The seeds of a cell."""
        return build.seeds(config.experiment)

    def task(self, config: ConfigDict) -> Task:
        """The task of a config."""
        return build.task(config.experiment, self.dataset(config))

    def retrain(
        self, name: str, config: ConfigDict, starts: Sequence[Start], *, task: Task | None = None
    ) -> Retrained:
        """`lottery.retrain` by the plan of the study's ladders; `task` replaces the config's."""
        return retrain(
            task or self.task(config),
            starts,
            plan=self._plan(name, config, len(starts)),
            store=self.store,
            data=self.dataset(config).fingerprint,
            save_seconds=self.machine.save_seconds,
        )

    def retrain_arms(
        self,
        name: str,
        config: ConfigDict,
        arms: Mapping[Arm, Sequence[Start]],
        *,
        task: Task | None = None,
    ) -> dict[Arm, Retrained]:
        """`retrain` for the starts of several arms together; the networks by arm."""
        starts = [start for group in arms.values() for start in group]
        found = self.retrain(name, config, starts, task=task)
        ends = np.cumsum([len(group) for group in arms.values()])
        return {
            arm: found.at(slice(end - len(group), end))
            for (arm, group), end in zip(arms.items(), ends, strict=True)
        }

    def barriers(
        self, name: str, config: ConfigDict, starts: Sequence[Start], points: int
    ) -> NDArray[np.float64]:
        """The error barriers between two children of each start (Frankle et al., 2020), in points.

        The children have other data orders; `points` lie on the line between them.
        """
        root = self.seeds(config).root
        families = [one.reordered(root, order) for one in starts for order in (0, 1)]
        found = self.retrain(name, config, families)
        return 100 * error_barriers(self.task(config), found.params, found.state, points)

    def random_tickets(self, config: ConfigDict, models: Sequence[Start]) -> NDArray[np.float64]:
        """`analysis.random_tickets` of given tickets: `[tickets, draws]`.

        The config's `study` has `draws`, `block`, and `chunk`, the members that train at a time.
        """
        study = config.study
        return random_tickets(
            self.task(config),
            models,
            study.draws,
            root=self.seeds(config).root,
            plan=fitted(Plan(study.chunk, devices=2), jax.local_device_count()),
            block=study.block,
            store=self.store,
            data=self.dataset(config).fingerprint,
        )

    def node(self, what: Mapping[str, Any], compute: Callable[[Any], Any]) -> stores.Node:
        """A stored result of another kind: computed once, then read.

        Args:
          what: JSON-like; everything that determines the result, except sources, versions, kind of
            device and numeric flags.
          compute: `partial -> Node`; a host `{"name": array}` tree and facts.
        """
        source = stores.source_fingerprint("lth_jax", "experiments.studies")
        whole = {"what": dict(what), "source": source, "environment": circumstances()}
        key = stores.content_key(whole)
        return self.store.node(key, compute)

    def _named(self, name: str, config: ConfigDict) -> ConfigDict:
        named = copy.deepcopy(config)
        named.experiment.name = name
        named.machine = self.machine
        return named

    def _cost(self, config: ConfigDict) -> Cost:
        example = jax.tree.map(lambda leaf: leaf[:1], self.dataset(config).train.x)
        init = build.model(config.experiment).init
        params, _ = jax.eval_shape(init, jax.random.key(0), example)
        sizes = jax.tree.map(lambda leaf, may: may * leaf.size, params, prunable_leaves(params))
        train = config.experiment.train
        return Cost(train.steps, train.batch_size, sum(jax.tree.leaves(sizes)))

    def _key(self, name: str, config: ConfigDict) -> str:
        return stores.content_key(self._named(name, config).experiment.to_dict())

    def _run(self, name: str, config: ConfigDict) -> Path:
        """The folder of a cell that `ladders` trained."""
        return self._runs[self._key(name, config)]

    def _plan(self, name: str, config: ConfigDict, size: int) -> Plan:
        """The plan of a population, from the measurements for the study's ladders.

        The ladders may have run where there were more devices.
        """
        plan = self._plans[name, config.experiment.model.name]
        best = cheapest(plan["evidence"], [size]) if plan["evidence"] else read_plan(plan)
        return fitted(narrowed(best, size), jax.local_device_count())
