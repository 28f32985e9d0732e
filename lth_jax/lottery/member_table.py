"""The members of a population of experiments, and the key of each.

Experiments whose members train under one program run as one population. A member's key covers
everything that determines its bits, including its parents and the plan (which sets the vectorised
width). It does not depend on the experiment or on the other members of its chunk, so a member that
several experiments or runs share is trained once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax import trees
from lth_jax.lottery.spec import Experiment, Label, Ladder, check_ladder, labels
from lth_jax.population.placement import Plan
from lth_jax.store import content_key
from lth_jax.types import DENSE, TICKET


class StepRange(NamedTuple):
    """The steps that a level trains, and the states that it keeps.

    Attributes:
      start: the step at which the level starts.
      stop: the step to train to.
      snapshots: names and steps of the states to keep.
      optimizer: the names of the states that include the optimizer's state.
    """

    start: int
    stop: int
    snapshots: dict[str, int]
    optimizer: list[str]


class MemberSpec(NamedTuple):
    """A member of a level: its key, its label, and its experiments; the first one builds it."""

    key: str
    label: Label
    experiments: list[int]


def step_range(ladder: Ladder, level: int) -> StepRange:
    """The steps that a level trains."""
    rewind = ladder.rewind
    snapshots = {"end": ladder.stop}
    if level == 0:
        snapshots["rewound"] = rewind.step
    if ladder.score_step != ladder.stop:
        snapshots["scored"] = ladder.score_step
    wanted = {"end": "keep", "rewound": "rewind"}
    return StepRange(
        start=0 if level == 0 else rewind.step,
        stop=ladder.stop,
        snapshots=snapshots,
        optimizer=[name for name, use in wanted.items() if rewind.optimizer == use],
    )


Plans = Sequence[tuple[int, Plan]]
"""`(level, the plan from that level on)`, the first for level 0; later entries replace earlier."""


def plan_at(plans: Plans, level: int) -> Plan:
    """The plan of a level.

    >>> plan_at([(0, Plan(4)), (2, Plan(8))], 1)
    Plan(chunk=4, driver='scan', devices=1, vmapped=None)
    """
    return [plan for first, plan in plans if first <= level][-1]


def what_is_kept(ladder: Ladder, level: int) -> dict[str, Any]:
    """The number of weights that a level keeps, and its prunable leaves, in JSON types."""
    count = trees.to_named(ladder.counts[level - 1])
    return {
        "count": jax.tree.map(lambda k: np.asarray(k).tolist(), count),
        "prunable": jax.tree.map(bool, trees.to_named(ladder.prunable)),
    }


def member_keys(experiment: Experiment, plans: Plans) -> list[dict[Label, str]]:
    """The key of each member of an experiment, level by level."""
    identity, ladder = experiment.identity, experiment.ladder
    keys: list[dict[Label, str]] = []
    for level in range(len(ladder.counts) + 1):
        plan = plan_at(plans, level)
        what: dict[str, Any] = {"trunk": identity.trunk, "plan": plan._asdict()}
        what |= step_range(ladder, level)._asdict()
        arms = identity.arms_at(level)
        if level:
            what |= what_is_kept(ladder, level) | {
                "ticket": arms[TICKET],
                "batches": identity.batches,
                "level": level,
                "rewind": ladder.rewind._asdict(),
            }
            if level in ladder.methods:
                what["method"] = identity.methods[str(level)]["training"]
        shared, parent = content_key(what), DENSE if level == 1 else TICKET

        def descent(label: Label, level: int = level, parent: str = parent) -> list[str]:
            if level == 0:
                return []
            dense, last = Label(DENSE, label.replicate), Label(parent, label.replicate)
            return [keys[0][dense], keys[level - 1][last]]

        keys.append(
            {
                label: content_key([shared, *label, arms.get(label.arm, ""), *descent(label)])
                for label in labels(experiment.seeds, ladder, level)
            }
        )
    return keys


class MemberTable:
    """All members of a population of experiments, without duplicates.

    Args:
      experiments: the experiments.
      plans: their plans by level.

    Attributes:
      keys: by experiment and level: the key of each member.
      levels: by level: the members by key, without duplicates, in the order of the experiments.
    """

    def __init__(self, experiments: Sequence[Experiment], plans: Plans):
        self.keys = [member_keys(experiment, plans) for experiment in experiments]
        deepest = max(len(keys) for keys in self.keys)
        self.levels = [self._level(level) for level in range(deepest)]

    def _level(self, level: int) -> dict[str, MemberSpec]:
        found: dict[str, MemberSpec] = {}
        for i, keys in enumerate(self.keys):
            for label, key in keys[level].items() if level < len(keys) else ():
                found.setdefault(key, MemberSpec(key, label, [])).experiments.append(i)
        return found


def check_experiments(experiments: Sequence[Experiment]) -> None:
    """Raises `ValueError` unless the experiments can run as one population."""
    if not experiments:
        raise ValueError("`experiments` is empty; a population needs at least 1.")
    first = experiments[0]
    for i, one in enumerate(experiments):
        check_ladder(one.seeds, one.ladder)
        for what in ("training", "data", "constants"):
            if getattr(one.identity, what) != getattr(first.identity, what):
                raise ValueError(f"`experiments[{i}]` differs from `experiments[0]` in its {what}.")
        if timeline(one.ladder) != timeline(first.ladder):
            raise ValueError(
                f"`experiments[{i}]` trains {timeline(one.ladder)}, `experiments[0]` "
                f"{timeline(first.ladder)}; members of one population take the same steps."
            )
        if one.ladder.prunable != first.ladder.prunable:
            raise ValueError(
                f"`experiments[{i}]` differs from `experiments[0]` in its prunable leaves."
            )
        # Equal programs; the objects may differ if the ladders differ elsewhere.
        if one.identity.methods_training != first.identity.methods_training:
            raise ValueError(f"`experiments[{i}]` differs from `experiments[0]` in its methods.")


def timeline(ladder: Ladder) -> tuple[StepRange, StepRange]:
    """The step ranges of a ladder: that of level 0, and that of each further level."""
    return step_range(ladder, 0), step_range(ladder, 1)
