"""The lottery itself: ladders of train-prune-rewind, their tickets and the tickets' controls."""

from lth_jax.lottery.controls import CONTROLS
from lth_jax.lottery.keys import derive
from lth_jax.lottery.ladder import Entry, Hooks, Lab, Ladder, check_ladder, climb, level_sizes
from lth_jax.lottery.level import Data, Label, Progress
from lth_jax.lottery.rewind import Rewind

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
]
