"""Training of populations: tasks, members, steps, segments, chunks, and plans."""

from lth_jax.population.api import initial, measure, train
from lth_jax.population.averaging import average_of, averaged, mean_network
from lth_jax.population.losses import (
    LOSSES,
    METRICS,
    DistillTargets,
    bits,
    correct,
    cross_entropy,
    distillation,
    soft_cross_entropy,
    squared_error,
)
from lth_jax.population.optimizers import LR_SCHEDULES, OPTIMIZERS
from lth_jax.population.placement import (
    DRIVERS,
    Plan,
    fitted,
    free_bytes,
    halved,
    host_free_bytes,
    level_plans,
    map_members,
    narrowed,
    read_plan,
)
from lth_jax.population.planning import candidate_plans, cheapest, choose_plan
from lth_jax.population.segment import (
    Member,
    Record,
    Trainer,
    evaluate,
    init_member,
    init_record,
    train_segment,
    train_step,
)
from lth_jax.population.streaming import OnHost, compile_serving
from lth_jax.population.task import Task, as_splits
from lth_jax.population.train_chunks import chunks, compile_segment, train_chunk, train_population
from lth_jax.registry import import_modules

import_modules(__name__, __path__)  # every module registers its parts

__all__ = [
    "DRIVERS",
    "LOSSES",
    "LR_SCHEDULES",
    "METRICS",
    "OPTIMIZERS",
    "DistillTargets",
    "Member",
    "OnHost",
    "Plan",
    "Record",
    "Task",
    "Trainer",
    "as_splits",
    "average_of",
    "averaged",
    "bits",
    "candidate_plans",
    "cheapest",
    "choose_plan",
    "chunks",
    "compile_segment",
    "compile_serving",
    "correct",
    "cross_entropy",
    "distillation",
    "evaluate",
    "fitted",
    "free_bytes",
    "halved",
    "host_free_bytes",
    "init_member",
    "init_record",
    "initial",
    "level_plans",
    "map_members",
    "mean_network",
    "measure",
    "narrowed",
    "read_plan",
    "soft_cross_entropy",
    "squared_error",
    "train",
    "train_chunk",
    "train_population",
    "train_segment",
    "train_step",
]
