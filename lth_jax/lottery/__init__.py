"""Lottery ticket experiments: levels of train, prune and rewind, with tickets and controls."""

from lth_jax.lottery.controls import CONTROLS, SAME_MASK, STRUCTURED_CONTROLS, named
from lth_jax.lottery.identity import (
    arms_programs,
    circumstances,
    fingerprint,
    make_experiment,
    methods_programs,
    training_program,
)
from lth_jax.lottery.ladder import Hooks, run_ladder
from lth_jax.lottery.loading import Atlas, SweepResult, load_atlas, load_run, load_sweep
from lth_jax.lottery.logits import logits_of
from lth_jax.lottery.member_index import MemberIndex, NodeSlot
from lth_jax.lottery.member_table import MemberTable, check_experiments, timeline
from lth_jax.lottery.node_training import Progress
from lth_jax.lottery.programs import Programs
from lth_jax.lottery.result import Result, StoredTicket
from lth_jax.lottery.retraining import Retrained, retrain
from lth_jax.lottery.rewind import Rewind
from lth_jax.lottery.run import run
from lth_jax.lottery.spec import (
    Experiment,
    Identity,
    Label,
    Ladder,
    Seeds,
    check_ladder,
    level_sizes,
)
from lth_jax.lottery.specs import Spec, imp, make_ladder, one_shot, sparse_training
from lth_jax.lottery.starts import Start, one_shot_starts, starts_of
from lth_jax.lottery.structure import structure_of
from lth_jax.lottery.table import Table
from lth_jax.population.task import Task
from lth_jax.registry import import_modules
from lth_jax.schema import LevelEntry
from lth_jax.types import Splits

import_modules(__name__, __path__)  # every module registers its parts

__all__ = [
    "CONTROLS",
    "SAME_MASK",
    "STRUCTURED_CONTROLS",
    "Atlas",
    "Experiment",
    "Hooks",
    "Identity",
    "Label",
    "Ladder",
    "LevelEntry",
    "MemberIndex",
    "MemberTable",
    "NodeSlot",
    "Programs",
    "Progress",
    "Result",
    "Retrained",
    "Rewind",
    "Seeds",
    "Spec",
    "Splits",
    "Start",
    "StoredTicket",
    "SweepResult",
    "Table",
    "Task",
    "arms_programs",
    "check_experiments",
    "check_ladder",
    "circumstances",
    "fingerprint",
    "imp",
    "level_sizes",
    "load_atlas",
    "load_run",
    "load_sweep",
    "logits_of",
    "make_experiment",
    "make_ladder",
    "methods_programs",
    "named",
    "one_shot",
    "one_shot_starts",
    "retrain",
    "run",
    "run_ladder",
    "sparse_training",
    "starts_of",
    "structure_of",
    "timeline",
    "training_program",
]
