"""What studies measure with: ladders, retrained populations and anything else, through the store.

Everything finished is kept and found again, so a study that was cut off goes on, and studies that
ask for the same networks share them.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import build, checks, teachers
from experiments.flags import UserError
from experiments.studies.results import LAST, Cost, Results, Tuned
from experiments.studies.starts import Start, fingerprint, train_starts
from experiments.sweep import train_cells
from lth_jax import data as datasets
from lth_jax import keys, trees
from lth_jax import store as stores
from lth_jax.coding.stored import Stored, read_stored, rewound
from lth_jax.lottery import Programs, Seeds, Task, circumstances, training_program
from lth_jax.population import Plan, cheapest, chunks, read_plan
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.report.sweeps import read_sweep
from lth_jax.schema import from_node
from lth_jax.store.sweeps import read_sweep_config
from lth_jax.types import DENSE, TICKET


def vary(config: ConfigDict, **changes: Any) -> ConfigDict:
    """A copy of a config with fields of `experiment` set; `__` stands for the dot.

    >>> from experiments.configs import base
    >>> vary(base.ladder(), train__steps=7, seed=3).experiment.train.steps
    7
    """
    varied = copy.deepcopy(config)
    varied.experiment.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changes.items()}
    )
    return varied


def dense_only(config: ConfigDict, **changes: Any) -> ConfigDict:
    """A copy of a ladder's config that trains its dense networks alone, with `vary`'s changes."""
    return vary(config, prune__levels=0, controls=(), control_levels=(), **changes)


def dense_beside(config: ConfigDict, small: Sequence[int], rate: float) -> dict[str, ConfigDict]:
    """Dense networks as small as a ladder's tickets, and others trained as long as all its levels.

    Args:
      config: the ladder's.
      small: widths of an MLP with as many weights as a ticket.
      rate: the learning rate of both.

    Returns:
      `"small"` and `"dense+"`.
    """
    dense = dense_only(config, optimizer__learning_rate=rate)
    longer = config.experiment.train.steps * (1 + config.experiment.prune.levels)
    return {
        "small": vary(dense, model__options__features=tuple(small)),
        "dense+": vary(dense, train__steps=longer),
    }


def program(task: Task, numbers: Iterable[str] = ()) -> str:
    """The fingerprint of how networks begin, train and are evaluated.

    Args:
      task: what they train with.
      numbers: the names of further scalars, which the task does not have.
    """
    names = sorted({*task.hyper, *numbers})
    return training_program(task.trainer, task.data, names, keys.from_seed(0))


class StudyRunner:
    """Trains and keeps what studies ask for.

    Args:
      machine: as of a config.
      command: how the atlas was called.
      pilot: whether all that is trained only serves to set up something else.

    Attributes:
      store: where everything lies.
    """

    def __init__(self, machine: ConfigDict, command: Sequence[str] = (), *, pilot: bool = False):
        self.machine, self.command, self.pilot = machine, list(command), pilot
        self.store = stores.Store(machine.workdir)
        self._datasets: dict[str, datasets.Dataset] = {}
        self._plans: dict[tuple[str, str], dict[str, Any]] = {}
        self._runs: dict[str, Path] = {}

    def ladders(
        self, name: str, cells: Mapping[str, ConfigDict], *, pilot: bool = False
    ) -> Results:
        """Trains the ladders of all cells, as populations, or finds them.

        Args:
          name: of the study.
          cells: configs by name; `experiment.name` is set to the study's.
          pilot: whether they only serve to choose a setting; `lth ls` leaves them out.
        """
        planned = [({"cell": cell}, self._named(name, config)) for cell, config in cells.items()]
        for _, config in planned:
            checks.check(config.experiment)
        whole = pilot or self.pilot
        sweep = train_cells(self.machine, name, planned, self.command, pilot=whole)
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
        pilot: ConfigDict,
        rates: Sequence[float],
        arms: Sequence[str],
    ) -> Tuned:
        """The ladders of a config, each arm at the learning rate that validation likes best.

        Args:
          name: of the study.
          config: the experiment.
          pilot: the same on seeds and data that are used for nothing else.
          rates: candidates.
          arms: `"dense"`, `"ticket"` and controls that the ladder has.
        """
        chosen = self.tune(name, pilot, rates, arms)
        cells = {
            f"{rate:g}": vary(config, optimizer__learning_rate=rate)
            for rate in sorted(set(chosen.values()))
        }
        return Tuned(chosen, self.ladders(name, cells))

    def networks(
        self, name: str, config: ConfigDict, arms: tuple[str, ...] = (DENSE, TICKET)
    ) -> list[Stored]:
        """The trained networks of a cell that `ladders` trained: level by level, seed by seed."""
        return list(read_stored(self.store, self._run(name, config), arms))

    def logits(
        self, name: str, config: ConfigDict, networks: Sequence[Stored], x: NDArray
    ) -> NDArray[np.float32]:
        """What stored networks of a config answer: `(networks, n, classes)`.

        Args:
          name: of the study.
          config: what they are networks of.
          networks: from `networks`.
          x: inputs.
        """
        return teachers.ask(build.model(config.experiment), networks, x, name)

    def origins(self, name: str, config: ConfigDict) -> list[Start]:
        """Where the replicates of a cell that `ladders` trained began, unpruned: to be changed.

        Retrained as they are they give the dense networks again.
        """
        info, root = self.info(name, config), keys.from_seed(config.experiment.seed)

        def origin(one: Stored) -> Start:
            params, state = rewound(self.store, info, one)
            key = keys.derive(root, one.replicate, "data")
            return Start(params, one.mask, state, key, replicate=one.replicate)

        dense = self.networks(name, config, (DENSE,))
        return [origin(one) for one in sorted(dense, key=lambda one: one.replicate)]

    def own_logits(self, config: ConfigDict, networks: Sequence[Stored]) -> NDArray[np.float32]:
        """What each network says of what its replicate sees: `(networks, n, classes)`."""
        network, x = build.model(config.experiment), self.dataset(config).train.x
        like = jax.eval_shape(network.init, jax.random.key(0), x[:1])

        @jax.jit
        def answers(point: Any, seen: Any) -> jax.Array:
            return network.apply(*point, seen, train=False)[0]

        def asked(one: Stored) -> jax.Array:
            point = tuple(map(trees.from_named, (one.params, one.state), like))
            return answers(point, x[self.own_rows(config, one.replicate)])

        return np.stack([np.asarray(asked(one)) for one in networks])

    def own_rows(self, config: ConfigDict, replicate: int) -> slice:
        """Which training examples a replicate sees: its share, or all."""
        share = config.experiment.train.share
        first = replicate * share
        return slice(first, first + (share or len(self.dataset(config).train.y)))

    def starts(
        self, name: str, config: ConfigDict, arms: Sequence[str], level: int = LAST
    ) -> dict[str, list[Start]]:
        """Where a ladder's networks began: the rewound dense network under each arm's mask.

        All arms of a replicate see its examples in the same order, that of the ticket.

        Args:
          name: of the study.
          config: of a cell that `ladders` trained, rewound to weights of the dense networks.
          arms: `"dense"`, `"ticket"`, and controls that keep the ticket's weights.
          level: of the ladder; the last by default.
        """
        root, info = keys.from_seed(config.experiment.seed), self.info(name, config)
        last = config.experiment.prune.levels if level == LAST else level
        networks = sorted(self.networks(name, config, (DENSE, *arms)), key=lambda n: n.replicate)
        origin = {n.replicate: rewound(self.store, info, n) for n in networks if n.arm == DENSE}

        def start(one: Stored) -> Start:
            params, state = origin[one.replicate]
            params = {leaf: value * one.mask[leaf] for leaf, value in params.items()}
            key = keys.derive(root, one.replicate, "data", last)
            return Start(params, one.mask, state, key, replicate=one.replicate)

        def of(arm: str) -> list[Start]:
            at = 0 if arm == DENSE else last
            return [start(n) for n in networks if (n.arm, n.level) == (arm, at)]

        return {arm: of(arm) for arm in arms}

    def info(self, name: str, config: ConfigDict) -> stores.RunInfo:
        """The run of a cell."""
        return stores.find_run(self.machine.workdir, str(self._run(name, config)))

    def dataset(self, config: ConfigDict) -> datasets.Dataset:
        """The data of a config, loaded once."""
        experiment = config.experiment
        key = stores.content_key([experiment.data.to_dict(), experiment.train.batch_size])
        if key not in self._datasets:
            whole = ConfigDict({"experiment": experiment, "machine": self.machine})
            self._datasets[key] = build.dataset(whole)
        return self._datasets[key]

    def seeds(self, config: ConfigDict) -> Seeds:
        """The seeds of a cell."""
        return build.seeds(config.experiment)

    def task(self, config: ConfigDict) -> Task:
        """What a config trains with."""
        return build.task(config.experiment, self.dataset(config))

    def retrain(
        self,
        name: str,
        config: ConfigDict,
        starts: Sequence[Start],
        *,
        task: Task | None = None,
    ) -> dict[str, Any]:
        """Trains networks from points and masks of one's own making, as one population.

        Args:
          name: of the study, which trained ladders of such networks: what was measured then says
            how these are trained the fastest.
          config: network, data and training.
          starts: where each begins.
          task: trains otherwise than the config says, with an objective of one's own, say.

        Returns:
          `{"results": {metric: [n]}, "params": {leaf: [n, …]}, "state": …}`, host arrays.
        """
        task, plan = task or self.task(config), self._plan(name, config, len(starts))
        names = {name for start in starts for name in start.hyper}
        common = {
            "kind": "retrained",
            "numbers": dict(task.hyper),
            "program": program(task, names),
            "constants": stores.fingerprint(task.trainer.constants),
            "data": self.dataset(config).fingerprint,
            "steps": config.experiment.train.steps,
            "plan": plan._asdict(),
        }
        programs = Programs(task.trainer)
        found = []
        for rows in chunks(len(starts), plan.chunk):
            chunk = [starts[row] for row in dict.fromkeys(rows.tolist())]
            what = common | {"starts": [fingerprint(start) for start in chunk]}
            train = partial(train_starts, task, programs, plan, chunk, self.machine.save_seconds)
            found.append(from_node(self.node(what, train)))
        parts = [{"results": one.results, **one.points["end"]._asdict()} for one in found]
        wanted = [{k: part[k] for k in ("results", "params", "state")} for part in parts]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *wanted)

    def node(self, what: Mapping[str, Any], compute: Callable[[Any], Any]) -> stores.Node:
        """Anything else worth keeping: computed once, read ever after.

        Args:
          what: JSON-like; all that decides the result besides the sources, versions, kind of
            device and numeric flags.
          compute: `partial -> Node`; a host `{"name": array}` tree and facts.
        """
        source = stores.source_fingerprint("lth_jax", "experiments.studies")
        whole = {"what": dict(what), "source": source, "environment": circumstances()}
        key = stores.content_key(whole)
        return self.store.node(key, compute)

    def tune(
        self,
        name: str,
        config: ConfigDict,
        rates: Sequence[float],
        arms: Sequence[str],
        *,
        metric: str = "validation_loss_best",
        level: int = LAST,
    ) -> dict[str, float]:
        """The learning rate of each arm that has the best validation, on pilot seeds.

        Args:
          name: of the study.
          config: with pilot seeds, which the study must not use again.
          rates: candidates.
          arms: `"dense"`, `"ticket"`, controls.
          metric: `validation_loss_best` (smaller is better) or `validation_accuracy_final`.
          level: of the ladder.
        """
        cells = {f"{rate:g}": vary(config, optimizer__learning_rate=rate) for rate in rates}
        found = self.ladders(f"{name}-pilot", cells, pilot=True)
        sign = -1.0 if "accuracy" in metric else 1.0

        def score(arm: str, rate: float) -> float:
            return float(np.mean(sign * found.of(f"{rate:g}", arm, metric, level)))

        def best(arm: str) -> float:
            scores = {rate: score(arm, rate) for rate in rates}
            finite = {rate: value for rate, value in scores.items() if np.isfinite(value)}
            if not finite:
                raise UserError(f"every learning rate of {name}'s pilot diverged for '{arm}'.")
            return min(finite, key=lambda rate: finite[rate])

        return {arm: best(arm) for arm in arms}

    def _named(self, name: str, config: ConfigDict) -> ConfigDict:
        named = copy.deepcopy(config)
        named.experiment.name = name
        named.machine = self.machine
        return named

    def _cost(self, config: ConfigDict) -> Cost:
        experiment = config.experiment
        example = jax.tree.map(lambda leaf: leaf[:1], self.dataset(config).train.x)
        params, _ = jax.eval_shape(build.model(experiment).init, jax.random.key(0), example)
        prunable = jax.tree.leaves(prunable_leaves(params))
        sizes = [leaf.size for leaf in jax.tree.leaves(params)]
        weights = sum(size for size, may in zip(sizes, prunable, strict=True) if may)
        return Cost(experiment.train.steps, experiment.train.batch_size, weights)

    def _key(self, name: str, config: ConfigDict) -> str:
        return stores.content_key(self._named(name, config).experiment.to_dict())

    def _run(self, name: str, config: ConfigDict) -> Path:
        """The folder of a cell that `ladders` trained."""
        return self._runs[self._key(name, config)]

    def _plan(self, name: str, config: ConfigDict, size: int) -> Plan:
        """The plan of a population, by what was measured for the study's ladders."""
        plan = self._plans[name, config.experiment.model.name]
        return cheapest(plan["evidence"], [size]) if plan["evidence"] else read_plan(plan)
