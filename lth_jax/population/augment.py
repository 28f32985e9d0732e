"""Transformations of training batches: augmentation, changed targets, teachers' logits.

A step is a function `(key, batch, rows, member, constants) -> batch`; `chain` composes steps into a
`Trainer.transform_batch`. Strengths are read from `member.hyper`, so that one program serves a
population of different strengths. Arrays that all members share are read from `constants`, those of
the `Trainer`. Keys derive from the member's data key and the training step, so training is
reproducible.

Mixed or smoothed targets are distributions over the classes: apply `soft_targets` first, and train
with `losses.soft_cross_entropy`. Inputs are images `(n, h, w, c)` for crops, images or signals
`(n, length)` for CutMix, anything of one float dtype otherwise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import keys, trees
from lth_jax.models.layers import as_floats
from lth_jax.population.losses import DistillTargets
from lth_jax.population.segment import Constants, Member, TransformBatch, take
from lth_jax.types import Batch, Key

Step = Callable[[Key, Batch, jax.Array, Member, Constants], Batch]


def chain(*steps: Step) -> TransformBatch:
    """A `transform_batch` that takes the examples and applies the steps, each with its own key.

    >>> transform = chain(soft_targets(3))
    >>> data = Batch(jnp.zeros((4, 2)), jnp.arange(4) % 3)
    >>> transform(jax.random.key(0), data, jnp.array([2]), None, {}).y
    Array([[0., 0., 1.]], dtype=float32)
    """

    def transform(
        key: Key, data: Batch, rows: jax.Array, member: Member, constants: Constants
    ) -> Batch:
        batch = take(key, data, rows, member, constants)
        for i, step in enumerate(steps):
            batch = step(keys.stream(key, "change", i), batch, rows, member, constants)
        return batch

    return transform


def noisy_labels(classes: int) -> Step:
    """Replaces labels by random ones with probability `hyper["label_noise"]`.

    The new label is uniform over all classes, so it may be the true one (Zhang et al., 2017,
    "Understanding deep learning requires rethinking generalization"). The key `constants["noise"]`,
    the member's replicate and the example determine which examples get one: a replicate's labels
    are the same in every epoch, level and arm.

    Args:
      classes: number of classes.
    """

    def step(
        key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants
    ) -> Batch:
        stream = keys.stream(constants["noise"], "label_noise")
        own = jax.random.fold_in(stream, member.hyper["replicate"])

        def one(row: jax.Array, label: jax.Array) -> jax.Array:
            chance, other = jax.random.split(jax.random.fold_in(own, row))
            wrong = jax.random.uniform(chance) < member.hyper["label_noise"]
            drawn = jax.random.randint(other, label.shape, 0, classes, label.dtype)
            return jnp.where(wrong, drawn, label)

        return batch._replace(y=jax.vmap(one)(rows, batch.y))

    return step


def soft_targets(classes: int) -> Step:
    """Labels as float32 distributions over the classes, 1 on the label."""

    def step(
        key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants
    ) -> Batch:
        return batch._replace(y=jax.nn.one_hot(batch.y, classes, dtype=jnp.float32))

    return step


def smooth(key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants) -> Batch:
    """A step: `(1 − ε) y + ε / classes` with `ε = hyper["label_smoothing"]` (Szegedy et al., 2016).

    Targets must be soft.
    """
    amount = jnp.asarray(member.hyper["label_smoothing"], jnp.float32)
    return batch._replace(y=(1 - amount) * batch.y + amount / batch.y.shape[-1])


def mixup(key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants) -> Batch:
    """A step: `λ (x, y) + (1 − λ) (x, y)[π]`, λ ~ Beta(α, α) (Zhang et al., 2018).

    One λ and one permutation π per batch, as in the authors' code; `α = hyper["mixup"]`, and λ = 1
    for α = 0. Targets must be soft.
    """
    by_chance, by_order = jax.random.split(key)
    share = _share(by_chance, member.hyper["mixup"])
    batch = batch._replace(x=jax.tree.map(as_floats, batch.x))
    other = trees.index(batch, jax.random.permutation(by_order, len(batch.y)))
    mixed: Batch = jax.tree.map(lambda a, b: _mix(share, a, b), batch, other)
    return mixed


def cutmix(key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants) -> Batch:
    """A step: replaces a box of each image and its share of the target (Yun et al., 2019).

    λ ~ Beta(α, α) with `α = hyper["cutmix"]`, and λ = 1 for α = 0. The sides of the box are `√(1 −
    λ)` times those of the image, rounded down; its centre is uniform. The box is clipped to the
    image, and λ becomes the fraction that was not replaced. In a signal `(length,)`, a window of
    `1 − λ` of its length is replaced. Targets must be soft.
    """
    by_chance, by_order, by_place = jax.random.split(key, 3)
    other = trees.index(batch, jax.random.permutation(by_order, len(batch.y)))
    inside = _box(by_place, _share(by_chance, member.hyper["cutmix"]), batch.x.shape[1:3])
    kept = 1 - jnp.mean(inside, dtype=jnp.float32)
    replaced = inside.reshape(1, *inside.shape, *(1,) * (batch.x.ndim - 1 - inside.ndim))
    return Batch(x=jnp.where(replaced, other.x, batch.x), y=_mix(kept, batch.y, other.y))


def crop(padding: int) -> Step:
    """Pads images by zeros and crops a random window of their size.

    With `flip` this is CIFAR's usual augmentation, with `padding` 4 (He et al., 2016). Each image
    has an offset uniform on `0 … 2 · padding` along both axes.

    Args:
      padding: pixels on every side, at least 0.

    Raises:
      ValueError: if `padding` is negative.
    """
    if padding < 0:
        raise ValueError(f"`padding` is {padding}; it must be at least 0.")

    def one(key: Key, image: jax.Array) -> jax.Array:
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)

    def step(
        key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants
    ) -> Batch:
        each = jax.random.split(key, len(batch.x))
        return batch._replace(x=jax.vmap(one)(each, batch.x))

    return step


def flip(key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants) -> Batch:
    """A step: each image is mirrored left to right with probability ½."""
    mirrored = jax.random.bernoulli(key, shape=(len(batch.x), 1, 1, 1))
    return batch._replace(x=jnp.where(mirrored, batch.x[:, :, ::-1], batch.x))


class Unlabelled(NamedTuple):
    """Unlabelled examples and the teachers' logits for them.

    Attributes:
      x: inputs `(m, …)`.
      answers: logits `(teachers, m, …, classes)`.
    """

    x: jax.Array
    answers: jax.Array


Choose = Callable[[jax.Array, Member], jax.Array]


def all_teachers(answers: jax.Array, member: Member) -> jax.Array:
    """The logits of all teachers, for every member."""
    return answers


def own_teacher(answers: jax.Array, member: Member) -> jax.Array:
    """The logits of one teacher, that of the member's replicate."""
    return answers[member.hyper["replicate"]][None]


def with_teachers(choose: Choose = all_teachers, unlabelled: int = 0) -> Step:
    """Adds the teachers' logits to the targets, for `losses.distillation`; must be the last step.

    Teachers are evaluated once, before training, on the unchanged training examples: no earlier
    step may change the inputs. `hyper["distillation"]` is the weight of the teachers' term, and
    `hyper["temperature"]` the temperature of teachers and student. The loss of unlabelled examples
    is the teachers' term alone.

    `constants["answers"]` are logits `(teachers, n, …, classes)` for the n training examples,
    `constants["unlabelled"]` an `Unlabelled`.

    Args:
      choose: `(logits of all teachers, member) -> logits of the member's teachers`, for a batch.
      unlabelled: number of random unlabelled examples added to each batch.
    """

    def step(
        key: Key, batch: Batch, rows: jax.Array, member: Member, constants: Constants
    ) -> Batch:
        weight = jnp.full(len(batch.y), member.hyper["distillation"], jnp.float32)
        (x, y), logits = batch, constants["answers"][:, rows]
        if unlabelled:
            pool: Unlabelled = constants["unlabelled"]
            drawn = jax.random.randint(key, (unlabelled,), 0, len(pool.x))
            x = jnp.concatenate([x, pool.x[drawn]])
            y = jnp.concatenate([y, jnp.zeros((unlabelled, *y.shape[1:]), y.dtype)])
            logits = jnp.concatenate([logits, pool.answers[:, drawn]], axis=1)
            weight = jnp.concatenate([weight, jnp.ones(unlabelled, jnp.float32)])
        temperature = jnp.asarray(member.hyper["temperature"], jnp.float32)
        return Batch(x, DistillTargets(y, choose(logits, member), weight, temperature))

    return step


def _share(key: Key, alpha: Any) -> jax.Array:
    """λ ~ Beta(α, α), float32; 1 for α = 0."""
    alpha = jnp.asarray(alpha, jnp.float32)
    positive = jnp.where(alpha > 0, alpha, jnp.float32(1))
    drawn = jax.random.beta(key, positive, positive)
    return jnp.where(alpha > 0, drawn, jnp.float32(1))


def _mix(share: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    share = share.astype(a.dtype)
    return share * a + (1 - share) * b


def _box(key: Key, share: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Booleans of a shape: True in a box of `1 − share` of it, clipped to it."""
    inside = jnp.ones((), bool)
    for axis_key, size in zip(jax.random.split(key, len(shape)), shape, strict=True):
        side = jnp.floor((1 - share) ** (1 / len(shape)) * size).astype(jnp.int32)
        first = jax.random.randint(axis_key, (), 0, size) - side // 2
        at = jnp.arange(size, dtype=jnp.int32)
        inside = inside[..., None] & (at >= first) & (at < first + side)
    return inside
