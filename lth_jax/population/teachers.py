"""Distillation from one teacher per replicate."""

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from lth_jax.population import augment, losses
from lth_jax.population.segment import Constants, Member
from lth_jax.population.task import Task
from lth_jax.types import Batch, Key


def with_own_teachers(task: Task, answers: ArrayLike) -> Task:
    """The task trained with `losses.distillation`, with a separate teacher for each replicate.

    Members need in their `hyper` `"distillation"`, the weight of the teacher's term,
    `"temperature"`, and `"lesson"`, the index of the teacher's logits. `augment.smooth` is applied
    to the labels first.

    Args:
      task: with class labels.
      answers: logits `(lessons, replicates · n, classes)` for the n training examples of each
        replicate (its share, `examples_per_replicate`, or all), concatenated over replicates.
    """
    logits, share = jnp.asarray(answers), task.trainer.examples_per_replicate
    # Rows of a share are indices into the whole data set.
    apart = 0 if share else len(task.data.train.y)

    def lesson(logits: jax.Array, member: Member) -> jax.Array:
        return logits[member.hyper["lesson"].astype(jnp.int32)][None]

    teach = augment.with_teachers(lesson)

    def own_teacher(
        key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants
    ) -> Batch:
        return teach(key, batch, rows + member.hyper["replicate"] * apart, member, constants)

    steps = (augment.soft_targets(logits.shape[-1]), augment.smooth, own_teacher)
    trainer = task.trainer._replace(
        transform_batch=augment.chain(*steps),
        objective=losses.distillation,
        constants={"answers": logits},
    )
    return task.replace(trainer=trainer)
