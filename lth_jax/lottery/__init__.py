"""The lottery itself: ladders of train-prune-rewind, their tickets and the tickets' controls."""

from lth_jax.lottery.controls import CONTROLS, named, refill_controls, unit_controls
from lth_jax.lottery.keys import derive
from lth_jax.lottery.ladder import Entry, Hooks, climb
from lth_jax.lottery.level import Progress
from lth_jax.lottery.rewind import Rewind
from lth_jax.lottery.spec import Data, Lab, Label, Ladder, check_ladder, level_sizes

__all__ = [
    "CONTROLS",
    "Data",
    "Entry",
    "Hooks",
    "Lab",
    "Label",
    "Ladder",
    "Progress",
    "Rewind",
    "check_ladder",
    "climb",
    "derive",
    "level_sizes",
    "named",
    "refill_controls",
    "unit_controls",
]
