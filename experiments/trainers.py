"""The training task of a config: optimizer, loss, augmentation and traced hyperparameters."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments.networks import dropout, model, model_in_training, shapes
from lth_jax import data, keys
from lth_jax.analysis import teachers
from lth_jax.cli import parts
from lth_jax.cli.programs import UserError
from lth_jax.population import augment, losses
from lth_jax.population.averaging import averaged, mean_network, moving
from lth_jax.population.crops import random_resized_crop
from lth_jax.population.losses import LOSSES, METRICS, PerExample
from lth_jax.population.optimizers import LR_SCHEDULES, OPTIMIZERS
from lth_jax.population.segment import unchanged
from lth_jax.population.task import Task
from lth_jax.types import Splits

COMPUTE_DTYPES = ("float32", "bfloat16")
MATMUL_PRECISIONS = ("default", "highest")
SOFTENED: dict[str, augment.Step] = {
    "label_smoothing": augment.smooth,
    "mixup": augment.mixup,
    "cutmix": augment.cutmix,
}
CHOICES: dict[str, augment.Choose] = {
    teachers.ALL: augment.all_teachers,
    teachers.OWN: augment.own_teacher,
}
_NUMBERS = {
    **{
        name: f"optimizer.{name}"
        for name in ("learning_rate", "weight_decay", "momentum", "clip_norm")
    },
    **{name: f"train.{name}" for name in ("label_noise", *SOFTENED)},
    "distillation": "train.distill.weight",
    "temperature": "train.distill.temperature",
    "average_start": "train.average.start",
    "average_every": "train.average.every",
}
HYPER = (*_NUMBERS, "dropout")
TRACED = tuple(f"experiment.{path}" for path in _NUMBERS.values())
"""The fields of traced hyperparameters; the program may depend on whether they are 0."""


def hyper(experiment: ConfigDict) -> dict[str, float]:
    """The traced hyperparameters, in which members may differ."""

    def number(path: str) -> float:
        return float(functools.reduce(operator.getitem, path.split("."), experiment))

    numbers = {name: number(path) for name, path in _NUMBERS.items()}
    return numbers | {"dropout": dropout(experiment)}


def make_optimizer(experiment: ConfigDict) -> Callable[[Mapping[str, Any]], Any]:
    """`hyper -> optax transformation`, without mask."""
    base = parts.choose("optimizer.name", experiment.optimizer.name, OPTIMIZERS)
    clips = experiment.optimizer.clip_norm > 0

    def plain(h: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
        clipping = [optax.clip_by_global_norm(h["clip_norm"])] if clips else []
        return optax.chain(*clipping, base(h))

    average = experiment.train.average
    if not average.start:
        return plain

    def make(h: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
        found = averaged(plain(h), start=h["average_start"], every=h["average_every"])
        return moving(found, average.window) if average.window else found

    return make


def learning_rate(experiment: ConfigDict) -> optax.Schedule:
    """The learning rate over the steps of a level, relative to its peak."""
    warmup = experiment.optimizer.warmup
    make = parts.choose("optimizer.schedule", experiment.optimizer.schedule, LR_SCHEDULES)
    after = make(experiment.train.steps - warmup)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), after], [warmup])


def _seen(experiment: ConfigDict, loaded: data.Dataset) -> dict[str, Any]:
    """The fields of a trainer that depend on augmentation, changed targets and teachers."""
    train, shape = experiment.train, loaded.train.x.shape[1:]
    distill = train.distill
    if (train.crop or train.crop_area or train.flip) and len(shape) != 3:
        raise UserError(
            f"`train.crop`, `crop_area` and `flip` need images, but an input is {shape}."
        )
    if train.cutmix and len(shape) not in (1, 3):
        raise UserError(f"`train.cutmix` needs images or signals, but an input is {shape}.")
    if shape and train.crop >= min(shape[:2]):
        raise UserError(
            f"`train.crop` is {train.crop}; it must be below the images' sides, {shape[:2]}."
        )
    constants: dict[str, Any] = {}
    softened = [step for name, step in SOFTENED.items() if train[name]]
    steps = [augment.crop(train.crop)] if train.crop else []
    steps += [random_resized_crop(train.crop_area)] if train.crop_area else []
    steps += [augment.flip] if train.flip else []
    if train.label_noise or softened:
        classes = shapes(experiment, loaded).outputs.shape[-1]
        steps += [augment.noisy_labels(classes)] if train.label_noise else []
        steps += [augment.soft_targets(classes), *softened] if softened else []
    if train.label_noise:
        constants["noise"] = keys.from_seed(experiment.data.seed, "data.seed")
    objective: PerExample | None = losses.soft_cross_entropy if softened else None
    if distill.teacher:
        steps += [augment.with_teachers(CHOICES[distill.who], distill.unlabelled)]
        objective, constants["answers"] = losses.distillation, loaded.answers["train"]
        if distill.unlabelled:
            constants["unlabelled"] = augment.Unlabelled(
                jnp.asarray(loaded.unlabelled), jnp.asarray(loaded.answers["unlabelled"])
            )
    show = augment.chain(*steps)
    return {"transform_batch": show, "objective": objective, "constants": constants}


def _metrics(names: Sequence[str], loaded: data.Dataset) -> dict[str, Callable[..., Any]]:
    """The metrics of a config by name, with defaults for classes and sequences."""
    if not names and loaded.classes:
        names = ("accuracy", "bits") if loaded.train.y.ndim > 1 else ("accuracy",)
    found = {name: parts.choose("train.metrics", name, METRICS) for name in names}
    return {name.rpartition(":")[2].rpartition(".")[2]: f for name, f in found.items()}


def task(experiment: ConfigDict, loaded: data.Dataset, splits: Splits | None = None) -> Task:
    """The task of an experiment, checked where data, loss or a metric are the user's own."""
    train, network = experiment.train, model(experiment)
    averages = train.average.start > 0
    made = Task(
        network,
        splits or loaded,
        optimizer=make_optimizer(experiment),
        batch_size=train.batch_size,
        steps=train.steps,
        loss=parts.choose("train.loss", train.loss, LOSSES),
        metrics=_metrics(train.metrics, loaded),
        hyper=hyper(experiment),
        schedule=learning_rate(experiment),
        eval_every=train.eval_every,
        shuffle=train.shuffle,
        examples_per_replicate=train.share,
        train_eval_examples=train.eval_examples,
        eval_member=mean_network(network, train.batch_size) if averages else unchanged,
        make_model=model_in_training(experiment),
        **_seen(experiment, loaded),
    )
    if any(map(parts.is_own, (experiment.data.name, train.loss, *train.metrics))):
        made.check()
    return made
