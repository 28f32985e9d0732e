"""The lottery itself: ladders of train-prune-rewind, their tickets and the tickets' controls."""

from lth_jax.lottery.controls import (
    CONTROLS,
    REFILL_CONTROLS,
    REGROUP_CONTROLS,
    SAME_MASK,
    UNIT_CONTROLS,
    named,
)
from lth_jax.lottery.identity import (
    arms_programs,
    circumstances,
    fingerprint,
    make_cell,
    training_program,
)
from lth_jax.lottery.ladder import Entry, Hooks, climb
from lth_jax.lottery.level import Progress
from lth_jax.lottery.programs import Programs
from lth_jax.lottery.rewind import Rewind
from lth_jax.lottery.roster import Cell, Identity, Roster, check_cells, timeline
from lth_jax.lottery.spec import Data, Lab, Label, Ladder, check_ladder, level_sizes

__all__ = [
    "CONTROLS",
    "REFILL_CONTROLS",
    "REGROUP_CONTROLS",
    "SAME_MASK",
    "UNIT_CONTROLS",
    "Cell",
    "Data",
    "Entry",
    "Hooks",
    "Identity",
    "Lab",
    "Label",
    "Ladder",
    "Programs",
    "Progress",
    "Rewind",
    "Roster",
    "arms_programs",
    "check_cells",
    "check_ladder",
    "circumstances",
    "climb",
    "fingerprint",
    "level_sizes",
    "make_cell",
    "named",
    "timeline",
    "training_program",
]
