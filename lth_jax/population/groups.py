"""Group-robust training: losses that weight groups of examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from lth_jax.population.augment import Step
from lth_jax.population.losses import cross_entropy
from lth_jax.population.segment import Constants, Member
from lth_jax.population.task import Task
from lth_jax.types import Batch, Key


class Grouped(NamedTuple):
    """Targets of `group_robust`.

    Attributes:
      labels: `(n,)` integers.
      groups: `(n, groups)`, one-hot, float32.
      balance: scalar in [0, 1]: 0 gives examples equal weights, 1 groups.
      sharpness: scalar, at least 0; larger values give groups of higher loss more weight.
    """

    labels: jax.Array
    groups: jax.Array
    balance: jax.Array
    sharpness: jax.Array


def group_robust(logits: jax.Array, targets: Grouped) -> jax.Array:
    """Cross-entropy whose mean over the batch is `Σ_g q_g L_g`, a weighted mean of groups.

    `L_g` is the mean loss of group g and `q_g ∝ n_g^(1 − balance) exp(sharpness · L_g)` over the
    groups in the batch. Balance 0 and sharpness 0 give the plain mean; balance 1 gives groups equal
    weights (reweighting). As sharpness grows, the loss tends to that of the worst group: group
    distributionally robust optimisation (Sagawa et al., 2020), with weights of the batch instead of
    a running product. No gradient flows through `q`.

    Args:
      logits: `(n, classes)`.
      targets: labels, groups, balance and sharpness.

    Returns:
      float32 `(n,)`.

    >>> groups = jax.nn.one_hot(jnp.array([0, 0, 0, 1]), 2)
    >>> z, y = jnp.array([[0.0, 0.0]] * 3 + [[2.0, 0.0]]), jnp.array([0, 0, 0, 1])
    >>> def mean(balance):
    ...     return jnp.mean(group_robust(z, Grouped(y, groups, jnp.float32(balance), 0.0)))
    >>> f"{mean(0.0):.4f} {mean(1.0):.4f}"
    '1.0516 1.4100'
    """
    losses = cross_entropy(logits, targets.labels)
    counts = jnp.sum(targets.groups, axis=0)
    some = jnp.maximum(counts, 1.0)
    mean = jax.lax.stop_gradient(losses @ targets.groups / some)
    log_q = (1 - targets.balance) * jnp.log(some) + targets.sharpness * mean
    q = jax.nn.softmax(jnp.where(counts > 0, log_q, -jnp.inf))
    return losses * len(losses) * (targets.groups @ (q / some))


def add_groups(count: int) -> Step:
    """Adds the groups of a batch to the targets, for `group_robust`; must be the last step.

    Reads `hyper["balance"]`, `hyper["sharpness"]` and `constants["groups"]`, the groups of all
    training examples, `(n,)` integers below `count`.

    Args:
      count: the number of groups.
    """

    def step(
        key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants
    ) -> Batch:
        del key
        numbers = (
            jnp.asarray(member.hyper[name], jnp.float32) for name in ("balance", "sharpness")
        )
        which = jax.nn.one_hot(constants["groups"][rows], count, dtype=jnp.float32)
        return batch._replace(y=Grouped(batch.y, which, *numbers))

    return step


def weigh_groups(task: Task, groups: ArrayLike, count: int) -> Task:
    """The task trained with `group_robust`; members may differ in balance and sharpness.

    Args:
      task: a task with class labels.
      groups: groups of all training examples, `(n,)` integers below `count`.
      count: the number of groups.

    Returns:
      A task whose members need `"balance"` and `"sharpness"` in their `hyper`.
    """
    transform, add = task.trainer.transform_batch, add_groups(count)

    def with_groups(
        key: Key, data: Batch, rows: jax.Array, member: Member, constants: Constants
    ) -> Batch:
        batch = transform(key, data, rows, member, constants)
        return add(key, batch, rows, member, constants)

    trainer = task.trainer._replace(
        transform_batch=with_groups,
        objective=group_robust,
        constants={**task.trainer.constants, "groups": jnp.asarray(groups)},
    )
    return task.replace(trainer=trainer)
