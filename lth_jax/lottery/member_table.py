"""Who the members of a population of cells are, and the key of each.

A cell is one experiment: a ladder with its own seeds, hyperparameters, counts and controls. Cells
whose members train under one program climb as one population. A member's key is made of all that
decides its bits, its parents and the plan included (which decides the width it is vectorised in),
and of nothing else: neither its cell nor who trains beside it. So a member that cells or runs of
one plan have in common is trained once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax import trees
from lth_jax.lottery.spec import Lab, Label, Ladder, check_ladder, labels
from lth_jax.store import content_key
from lth_jax.training.placement import Plan
from lth_jax.types import DENSE, TICKET


class Identity(NamedTuple):
    """All that decides a cell's numbers besides its plan and its ladder's plain numbers; JSON-like.

    Attributes:
      training: the fingerprint of the programs that begin, train and evaluate members.
      arms: the fingerprints of the programs that make tickets and controls, by arm.
      data: the fingerprint of the data.
      root: implementation and bits of the experiment's key.
      numbers: the members' scalars, as the hexadecimal bytes of float32.
      shared_order: as of `Lab`.
      environment: versions, kind of device, numeric flags and host code.
    """

    training: str
    arms: dict[str, str]
    data: str
    root: list[str]
    numbers: dict[str, str]
    shared_order: bool
    environment: dict[str, Any]

    @property
    def trunk(self) -> str:
        """The SHA-256 of all but the arms: what level 0 depends on."""
        return content_key(self._replace(arms={}))


class Cell(NamedTuple):
    """One experiment of a population; `make_cell` makes it.

    Attributes:
      lab: what it trains with; cells of one population share `trainer` and `data`.
      ladder: what it does.
      identity: all else that decides its numbers.
    """

    lab: Lab
    ladder: Ladder
    identity: Identity


class Course(NamedTuple):
    """The steps that a level trains, and what it keeps on the way.

    Attributes:
      start: the step the members stand at.
      stop: the step to train to.
      snapshots: names of the points to keep, and their steps.
      optimizer: the names of the points that keep the optimizer's state too.
    """

    start: int
    stop: int
    snapshots: dict[str, int]
    optimizer: list[str]


class Entrant(NamedTuple):
    """A member of a level: its key, its label, and the cells it belongs to; the first makes it."""

    key: str
    label: Label
    cells: list[int]


def course(ladder: Ladder, level: int) -> Course:
    """What a level trains from where to where."""
    rewind = ladder.rewind
    snapshots = {"end": ladder.stop}
    if level == 0:
        snapshots["rewound"] = rewind.step
    if ladder.score_step != ladder.stop:
        snapshots["scored"] = ladder.score_step
    wanted = {"end": "keep", "rewound": "rewind"}
    return Course(
        start=0 if level == 0 else rewind.step,
        stop=ladder.stop,
        snapshots=snapshots,
        optimizer=[name for name, use in wanted.items() if rewind.optimizer == use],
    )


Plans = Sequence[tuple[int, Plan]]
"""`(level, plan)` in ascending order, the first for level 0: the plan from that level on."""


def member_keys(cell: Cell, plans: Plans) -> list[dict[Label, str]]:
    """The key of each member of a cell, level by level."""
    trunk, arms = cell.identity.trunk, cell.identity.arms
    keys: list[dict[Label, str]] = []
    for level in range(len(cell.ladder.counts) + 1):
        plan = [plan for first, plan in plans if first <= level][-1]
        what = {"trunk": trunk, "plan": plan._asdict(), **course(cell.ladder, level)._asdict()}
        if level:
            count = trees.to_named(cell.ladder.counts[level - 1])
            prunable = trees.to_named(cell.ladder.prunable)
            what |= {
                "ticket": arms[TICKET],
                "level": level,
                "rewind": cell.ladder.rewind._asdict(),
                "count": jax.tree.map(lambda k: np.asarray(k).tolist(), count),
                "prunable": jax.tree.map(bool, prunable),
            }
        shared, parent = content_key(what), DENSE if level == 1 else TICKET

        def descent(label: Label, level: int = level, parent: str = parent) -> list[str]:
            if level == 0:
                return []
            dense, last = Label(DENSE, label.replicate), Label(parent, label.replicate)
            return [keys[0][dense], keys[level - 1][last]]

        keys.append(
            {
                label: content_key([shared, *label, arms.get(label.arm, ""), *descent(label)])
                for label in labels(cell.lab, cell.ladder, level)
            }
        )
    return keys


class Roster:
    """All members of a population of cells, each once.

    Args:
      cells: the cells.
      plans: how they run.

    Attributes:
      keys: cell by cell and level by level, the key of each member.
      levels: level by level, the members, each once, in the order of the cells.
    """

    def __init__(self, cells: Sequence[Cell], plans: Plans):
        self.keys = [member_keys(cell, plans) for cell in cells]
        deepest = max(len(keys) for keys in self.keys)
        self.levels = [self._level(level) for level in range(deepest)]

    def _level(self, level: int) -> dict[str, Entrant]:
        found: dict[str, Entrant] = {}
        for cell, keys in enumerate(self.keys):
            for label, key in keys[level].items() if level < len(keys) else ():
                found.setdefault(key, Entrant(key, label, [])).cells.append(cell)
        return found


def check_cells(cells: Sequence[Cell]) -> None:
    """Raises `ValueError` unless the cells can climb as one population."""
    if not cells:
        raise ValueError("`cells` is empty; a population needs at least 1 cell.")
    first = cells[0]
    for i, cell in enumerate(cells):
        check_ladder(cell.lab, cell.ladder)
        if cell.lab.trainer is not first.lab.trainer or cell.lab.data is not first.lab.data:
            raise ValueError(f"`cells[{i}]` has a trainer or data of its own; all share one.")
        if timeline(cell.ladder) != timeline(first.ladder):
            raise ValueError(
                f"`cells[{i}]` trains {timeline(cell.ladder)}, cells[0] {timeline(first.ladder)}; "
                "members of one population take the same steps."
            )
        if cell.ladder.prunable != first.ladder.prunable:
            raise ValueError(f"`cells[{i}]` has other prunable leaves than cells[0].")


def timeline(ladder: Ladder) -> tuple[Course, Course]:
    """The steps of a ladder: those of its trunk, and those of each level above."""
    return course(ladder, 0), course(ladder, 1)
