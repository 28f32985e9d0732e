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
    make_experiment,
    training_program,
)
from lth_jax.lottery.ladder import Entry, Hooks, run_ladder
from lth_jax.lottery.member_table import MemberTable, check_experiments, timeline
from lth_jax.lottery.node_training import Progress
from lth_jax.lottery.programs import Programs
from lth_jax.lottery.rewind import Rewind
from lth_jax.lottery.spec import (
    Experiment,
    Identity,
    Label,
    Ladder,
    Seeds,
    check_ladder,
    level_sizes,
)
from lth_jax.population.task import Task
from lth_jax.types import Splits

__all__ = [
    "CONTROLS",
    "REFILL_CONTROLS",
    "REGROUP_CONTROLS",
    "SAME_MASK",
    "UNIT_CONTROLS",
    "Entry",
    "Experiment",
    "Hooks",
    "Identity",
    "Label",
    "Ladder",
    "MemberTable",
    "Programs",
    "Progress",
    "Rewind",
    "Seeds",
    "Splits",
    "Task",
    "arms_programs",
    "check_experiments",
    "check_ladder",
    "circumstances",
    "fingerprint",
    "level_sizes",
    "make_experiment",
    "named",
    "run_ladder",
    "timeline",
    "training_program",
]
