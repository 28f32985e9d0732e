"""`run`: trains the levels of a spec on a task and returns the result."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lth_jax import keys
from lth_jax import store as stores
from lth_jax.legal import shown
from lth_jax.lottery.controls import Control, described
from lth_jax.lottery.identity import make_experiment
from lth_jax.lottery.programs import Programs
from lth_jax.lottery.result import Result
from lth_jax.lottery.running import recorded_plans, run_identity, train_run
from lth_jax.lottery.spec import Experiment, Seeds, check_ladder, level_sizes
from lth_jax.lottery.specs import Spec, check_types, make_ladder
from lth_jax.population.placement import Plan
from lth_jax.population.planning import AUTO, plans_for
from lth_jax.population.task import Task
from lth_jax.pruning.criteria._inputs import name_of
from lth_jax.store import SAVE_SECONDS


def run(
    task: Task,
    spec: Spec,
    *,
    replicates: int = 5,
    seed: int = 0,
    controls: Iterable[str] | Mapping[str, Control] = (),
    control_levels: Iterable[int] | None = None,
    shared_order: bool = False,
    store: str | Path | None = None,
    name: str = "run",
    plan: Plan | str = AUTO,
    progress: bool = True,
    save_seconds: float = SAVE_SECONDS,
) -> Result:
    """Trains the levels of a spec on a task: dense networks, tickets and controls.

    All members of a level train as one population. The run's key covers everything that determines
    its numbers: the programs with every array that they close over, the data, seeds and versions.
    The same call therefore continues an interrupted run or reads a finished one, and a changed
    function starts a new run.

    Args:
      task: network, data and training.
      spec: the pruning levels, from `imp`, `one_shot` or `sparse_training`. Criteria, controls and
        measures are traced; they use `jax.numpy`, not NumPy.
      replicates: the number of independent seeds.
      seed: seed of all random numbers, in [0, 2³²).
      controls: the controls trained for each ticket: names in `lottery.CONTROLS`, or a mapping of
        names to controls.
      control_levels: the levels at which controls are trained; None for all.
      shared_order: whether all replicates use the same batches.
      store: the folder for the run; by default a temporary one, removed with the result.
      name: name of the run in the store and in the report.
      plan: how the population runs: a `population.Plan`, or `"auto"` to measure candidates.
      progress: whether to show a progress bar.
      save_seconds: seconds of training that a kill may repeat.

    Returns:
      The result, with tables, figures and tickets.

    Raises:
      ValueError, TypeError: an argument is invalid; nothing has been trained.
      store.StoreError: another process holds the run, or the store is damaged.
      KeyboardInterrupt, store.Interrupted: after Ctrl-C or SIGTERM. Progress is saved, and the same
        call continues.

    >>> import flax.linen as nn, numpy as np, optax
    >>> from lth_jax.lottery import imp
    >>> x = np.random.default_rng(0).normal(size=(60, 4))
    >>> data = (x, (x[:, 0] > 0).astype(int))
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=10)
    >>> result = run(task, imp(levels=1), replicates=2, plan=Plan(2), progress=False)
    >>> [(row["arm"], row["density"]) for row in result.table("test_accuracy")]
    [('dense', 1.0), ('ticket', 0.75)]
    """
    check_types(task, spec)
    if store is not None and not isinstance(store, str | os.PathLike):
        raise TypeError(
            f"`store` is {shown(store)}; it must be a folder, a string or a `Path`, or None for a "
            "temporary one."
        )
    task.check()
    task.check_rate({})
    keys.check_seed(seed)
    seeds = Seeds(keys.from_seed(seed), replicates, shared_order)
    ladder = make_ladder(task, spec, controls, control_levels)
    check_ladder(seeds, ladder)
    experiment = make_experiment(task, seeds, ladder)
    candidates = plans_for(plan, level_sizes(seeds, ladder))
    temporary = None
    if store is None:
        temporary = tempfile.TemporaryDirectory(prefix="lth-")
        store = temporary.name
    team = stores.everyone()
    try:
        with stores.open_run(
            store,
            name=name,
            config=_described(experiment, spec, seed),
            env=stores.environment() | described(ladder.controls),
            identity=run_identity(experiment),
            team=team,
        ) as held:
            shelf = stores.Store(store, team)
            if not held.is_complete(shelf):
                programs = Programs(task.trainer)
                plans = recorded_plans(
                    experiment,
                    held,
                    candidates,
                    Path(store) / "plans",
                    narrow=plan == AUTO,
                    programs=programs,
                    progress=progress,
                )
                train_run(
                    experiment,
                    held,
                    shelf,
                    plans,
                    programs=programs,
                    progress=progress,
                    save_seconds=save_seconds,
                )
            return Result.of(shelf, held.path, experiment, temporary)
    except stores.Interrupted as stopped:
        if stopped.signal == "SIGINT":  # as Ctrl-C does in any notebook or script
            raise KeyboardInterrupt(stopped.code) from None
        raise


def _described(experiment: Experiment, spec: Spec, seed: int) -> dict[str, Any]:
    """The description of an experiment for the report; not part of the run's identity."""
    task, ladder = experiment.task, experiment.ladder
    methods = {str(level): method.name for level, method in ladder.methods.items()}
    described: dict[str, Any] = {
        "task": repr(task),
        "hyper": dict(task.hyper),
        "seed": seed,
        "replicates": experiment.seeds.replicates,
        "train": {"steps": ladder.stop, "shared_order": experiment.seeds.shared_order},
        "prune": {
            "criterion": name_of(spec.criterion),
            "scope": spec.scope.name,
            "granularity": spec.granularity.name,
            "densities": [d if isinstance(d, float | int) else str(d) for d in spec.densities],
            "score_step": ladder.score_step,
        },
        "rewind": ladder.rewind._asdict(),
        "controls": list(ladder.controls),
        "control_levels": sorted(ladder.control_levels or ()),
    }
    if spec.reconstruct is not None:
        described["prune"] |= {"reconstruct": spec.reconstruct.name}
    return described | ({"methods": methods} if methods else {})
