"""Training whole populations: a step, a segment, a chunk, and the plan they run by."""

from lth_jax.training.averaging import average_of, averaged, mean_network
from lth_jax.training.losses import (
    Taught,
    bits,
    correct,
    cross_entropy,
    distillation,
    soft_cross_entropy,
    squared_error,
)
from lth_jax.training.placement import (
    DRIVERS,
    Plan,
    fitted,
    free_bytes,
    halved,
    host_free_bytes,
    over_population,
    read_plan,
)
from lth_jax.training.planning import candidate_plans, cheapest, choose_plan, widths_for
from lth_jax.training.population import compile_segment, train_chunk, train_population
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
from lth_jax.training.streaming import OnHost, compile_serving

__all__ = [
    "DRIVERS",
    "Member",
    "OnHost",
    "Plan",
    "Record",
    "Taught",
    "Trainer",
    "average_of",
    "averaged",
    "bits",
    "candidate_plans",
    "cheapest",
    "choose_plan",
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
    "mean_network",
    "over_population",
    "read_plan",
    "soft_cross_entropy",
    "squared_error",
    "train_chunk",
    "train_population",
    "train_segment",
    "train_step",
    "widths_for",
]
