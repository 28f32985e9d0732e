"""Training whole populations: a step, a segment, a chunk, and the plan they run by."""

from lth_jax.training.losses import correct, cross_entropy, squared_error
from lth_jax.training.population import (
    Plan,
    choose_plan,
    compile_segment,
    train_chunk,
    train_population,
)
from lth_jax.training.segment import (
    Member,
    Record,
    Trainer,
    evaluate,
    init_member,
    init_record,
    train_segment,
    train_step,
)

__all__ = [
    "Member",
    "Plan",
    "Record",
    "Trainer",
    "choose_plan",
    "compile_segment",
    "correct",
    "cross_entropy",
    "evaluate",
    "init_member",
    "init_record",
    "squared_error",
    "train_chunk",
    "train_population",
    "train_segment",
    "train_step",
]
