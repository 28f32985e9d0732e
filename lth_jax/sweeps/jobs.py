"""Jobs, and their groups: jobs of equal programs, constants, data and steps train together."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax

from lth_jax import text
from lth_jax.grid import Setting
from lth_jax.lottery import Experiment, MemberTable, timeline
from lth_jax.lottery.running import run_identity
from lth_jax.population import Plan
from lth_jax.store import content_key, run_folder
from lth_jax.sweeps.estimate import Estimate

COLUMNS = ("run", "arm", "level", "replicate", "density", "metric", "value")
"""The columns of a sweep's table beside those of its settings."""


@text.with_short_repr
class Job(NamedTuple):
    """An experiment that becomes a run.

    Attributes:
      setting: what distinguishes it from the other jobs, by name.
      name: first part of the name of its run's folder.
      config: JSON-like; a record of how it was made.
      experiment: the experiment, from `lottery.make_experiment`.
      estimate: a lower bound of its memory and disk space, for `together`.
    """

    setting: Setting
    name: str
    config: dict[str, Any]
    experiment: Experiment
    estimate: Estimate | None = None

    @property
    def run(self) -> str:
        """The name of its run's folder."""
        return run_folder(self.name, self.config, run_identity(self.experiment))


@text.with_short_repr
class Group(NamedTuple):
    """Jobs that train as one population.

    Attributes:
      key: covers everything that its members share.
      program: the key of their training program, which groups may share.
      jobs: the jobs.
      members: their members; the keys are those of an arbitrary plan.
    """

    key: str
    program: str
    jobs: list[Job]
    members: MemberTable

    @property
    def name(self) -> str:
        """A short name, for files and messages."""
        return f"group-{self.key[:8]}"

    @property
    def sizes(self) -> list[int]:
        """The number of members of each level."""
        return [len(level) for level in self.members.levels]

    @property
    def lengths(self) -> list[int]:
        """The training steps of each level."""
        trunk, above = timeline(self.jobs[0].experiment.ladder)
        rest = len(self.members.levels) - 1
        return [trunk.stop - trunk.start] + [above.stop - above.start] * rest

    @property
    def member_steps(self) -> list[int]:
        """The steps of all members together, by level."""
        return [size * length for size, length in zip(self.sizes, self.lengths, strict=True)]


def groups(jobs: Iterable[Job]) -> list[Group]:
    """Groups jobs of equal programs, constants, data and steps into populations.

    Args:
      jobs: the jobs.

    Returns:
      The groups in the order of their first jobs; each keeps the order of its jobs.

    >>> import flax.linen as nn, numpy as np, optax
    >>> from lth_jax.lottery import Seeds, Task, imp, make_experiment, make_ladder
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> ladder, jobs = make_ladder(task, imp(levels=0)), []
    >>> for seed in range(2):
    ...     experiment = make_experiment(task, Seeds(jax.random.key(seed), 2), ladder)
    ...     jobs.append(Job({"seed": seed}, "demo", {"seed": seed}, experiment))
    >>> [(len(group.jobs), group.sizes, group.lengths) for group in groups(jobs)]
    [(2, [4], [20])]
    """
    found: dict[str, tuple[str, list[Job]]] = {}
    for job in jobs:
        identity, ladder = job.experiment.identity, job.experiment.ladder
        prunable = jax.tree.leaves(ladder.prunable)
        programs = [identity.training, identity.methods_training]
        data = [identity.data, identity.constants]
        key = content_key([*programs, *data, timeline(ladder), prunable])
        found.setdefault(key, (identity.training, []))[1].append(job)
    # The members are the same under any plan; only their keys differ.
    any_plan = [(0, Plan(1))]
    return [
        Group(key, program, jobs, MemberTable([job.experiment for job in jobs], any_plan))
        for key, (program, jobs) in found.items()
    ]


def together(groups: Sequence[Group]) -> Estimate:
    """The lower bounds of all jobs, which run one after the other; each needs its `estimate`.

    Memory is that of the largest job; disk space is that of all members, shared members counted
    once.

    Args:
      groups: from `groups`.

    Returns:
      The estimate of the job that needs the most memory, with the number of all members and the
      bytes of all in the store.

    Raises:
      ValueError: no job has an estimate.

    >>> import flax.linen as nn, numpy as np, optax
    >>> from lth_jax.lottery import Seeds, Task, imp, make_experiment, make_ladder
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> ladder = make_ladder(task, imp(levels=0))
    >>> experiment = make_experiment(task, Seeds(jax.random.key(0), 2), ladder)
    >>> one = Estimate(2, widest=2, chunk=1, member=40, training=120, store=80, stored=(40.0,))
    >>> jobs = [Job({"copy": i}, "demo", {"copy": i}, experiment, one) for i in range(3)]
    >>> found = together(groups(jobs))  # the three jobs share their two members
    >>> found.members, found.store
    (2, 80)
    """
    members, stored = 0, 0.0
    for group in groups:
        estimates = [job.estimate for job in group.jobs]
        for level, specs in enumerate(group.members.levels):
            members += len(specs)
            owners = (estimates[spec.experiments[0]] for spec in specs.values())
            stored += sum(own.stored[level] for own in owners if own)
    known = [job.estimate for group in groups for job in group.jobs if job.estimate]
    largest = max(known, key=lambda one: one.device)
    return largest._replace(members=members, store=math.floor(stored))


def shown(setting: Setting) -> str:
    """A setting as text: the last part of each name, and its value.

    >>> shown({"experiment.optimizer.learning_rate": 0.1, "experiment.seed": 2})
    'learning_rate=0.1, seed=2'
    """
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in setting.items())
