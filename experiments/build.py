"""A config becomes functions: one table per kind, and every number checked before work starts."""

import functools
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments import networks, scoring, teachers, units
from experiments.flags import UserError, fields, nearest
from experiments.networks import model
from lth_jax import data, models
from lth_jax import structure as st
from lth_jax.lottery import REFILL_CONTROLS, Data, Lab, Ladder, named
from lth_jax.lottery.rewind import SOURCES, WEIGHTS, Rewind
from lth_jax.pruning import masks, schedules, scopes
from lth_jax.pruning.granularity import Granularity
from lth_jax.pruning.prune import prune
from lth_jax.pruning.transforms import masked
from lth_jax.training import augment, losses
from lth_jax.training.averaging import averaged, mean_network
from lth_jax.training.segment import PerExample, Trainer, as_it_stands
from lth_jax.types import Batch, Model, Prunable

LOSSES: dict[str, Callable[..., Any]] = {"cross_entropy": losses.cross_entropy}
COMPUTE_DTYPES = ("float32", "bfloat16")
OPTIMIZERS: dict[str, Callable[[Mapping[str, Any]], optax.GradientTransformation]] = {
    "sgd": lambda h: optax.chain(
        optax.add_decayed_weights(h["weight_decay"]),
        optax.sgd(h["learning_rate"], h["momentum"]),
    ),
    "adam": lambda h: optax.adam(h["learning_rate"]),
    "adamw": lambda h: optax.adamw(h["learning_rate"], weight_decay=h["weight_decay"]),
    "lion": lambda h: optax.lion(h["learning_rate"], weight_decay=h["weight_decay"]),
    "lamb": lambda h: optax.lamb(h["learning_rate"], weight_decay=h["weight_decay"]),
    "rmsprop": lambda h: optax.rmsprop(h["learning_rate"]),
}
SOFTENED: dict[str, augment.Step] = {
    "label_smoothing": augment.smooth,
    "mixup": augment.mixup,
    "cutmix": augment.cutmix,
}
CHOICES: dict[str, augment.Choose] = {
    teachers.ALL: augment.all_teachers,
    teachers.OWN: augment.own_teacher,
}
LR_SCHEDULES: dict[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
    "step": lambda steps: optax.piecewise_constant_schedule(
        1.0, {steps // 2: 0.1, 3 * steps // 4: 0.1}
    ),
}
SCOPES: dict[str, Callable[[ConfigDict], scopes.Scope]] = {
    "globally": lambda prune: scopes.globally(prune.minimum),
    "layerwise": lambda prune: scopes.layerwise(),
    "erk": lambda prune: scopes.erk(),
}
SCHEDULES: dict[str, Callable[[ConfigDict], schedules.Schedule]] = {
    "geometric": lambda prune: schedules.geometric(prune.rate),
    "linear": lambda prune: schedules.linear(prune.levels, prune.final),
    "cubic": lambda prune: schedules.cubic(prune.levels, prune.final),
    "exponential": lambda prune: schedules.exponential(prune.levels, prune.final),
    "one_shot": lambda prune: schedules.one_shot(prune.final),
}


def check(experiment: ConfigDict) -> None:
    """Raises `UserError` for the first field of an experiment that cannot be right.

    What depends on the data (does the batch fit the training set?) is checked when it is there;
    everything else here, before anything is prepared or trained.
    """
    _check_numbers(experiment)
    if not re.fullmatch(r"\w[\w.-]*", experiment.name, re.ASCII):
        raise UserError(
            f"`name` is '{experiment.name}'; it must be letters, digits, '.', '_' and '-'."
        )
    pruning = experiment.prune
    choices: list[tuple[str, str, Collection[str]]] = [
        ("model.name", experiment.model.name, models.NETWORKS),
        ("train.loss", experiment.train.loss, LOSSES),
        ("train.distill.who", experiment.train.distill.who, CHOICES),
        ("train.compute_dtype", experiment.train.compute_dtype, COMPUTE_DTYPES),
        ("optimizer.name", experiment.optimizer.name, OPTIMIZERS),
        ("optimizer.schedule", experiment.optimizer.schedule, LR_SCHEDULES),
        ("prune.criterion", experiment.prune.criterion, scoring.NAMES),
        ("prune.scope", experiment.prune.scope, SCOPES),
        ("prune.schedule", experiment.prune.schedule, SCHEDULES),
        ("rewind.what", experiment.rewind.what, WEIGHTS),
        *((f"rewind.{f}", experiment.rewind[f], SOURCES) for f in ("optimizer", "state", "data")),
        ("prune.granularity", pruning.granularity, (*units.GRANULARITIES, units.UNITS)),
        ("prune.reduction", pruning.reduction, units.REDUCTIONS),
        *(("controls", c, units.control_names(pruning.granularity)) for c in experiment.controls),
    ]
    for name, value, table in choices:
        if value not in table:
            raise UserError(nearest(f"`{name}`", str(value), table))
    if experiment.prune.criterion in scoring.NEED_EXAMPLES and not experiment.prune.examples:
        raise UserError(
            f"`prune.criterion` is '{experiment.prune.criterion}', which looks at data; "
            "set `prune.examples` to how many training examples it may see."
        )
    units.check(pruning)
    _check_training(experiment)
    if experiment.prune.rates and (experiment.prune.scope, experiment.prune.schedule) != (
        "layerwise",
        "geometric",
    ):
        raise UserError("`prune.rates` needs `prune.scope=layerwise`, `prune.schedule=geometric`.")


def _check_training(experiment: ConfigDict) -> None:
    train, changed = experiment.train, ("crop", "flip", "mixup", "cutmix")
    if train.distill.teacher and any(train[name] for name in changed):
        raise UserError(
            "`train.distill` asks the teachers about the examples as they lie; set "
            f"{', '.join(f'`train.{name}`' for name in changed)} to 0."
        )
    wants, has = train.distill.unlabelled, experiment.data.unlabelled
    if wants and not (train.distill.teacher and has):
        raise UserError(
            f"`train.distill.unlabelled` is {wants}; it needs `train.distill.teacher` and "
            "`data.unlabelled`."
        )
    start = train.average.start
    if start and not experiment.rewind.step < start <= train.steps:
        raise UserError(
            f"`train.average.start` is {start}; it must lie above the rewind step, "
            f"{experiment.rewind.step}, and be at most `train.steps`, {train.steps}."
        )


POSITIVE = (
    "replicates",
    "train.steps",
    "train.eval_every",
    "train.batch_size",
    "train.average.every",
    "prune.multiple",
)
AT_LEAST_0 = (
    "seed",
    "prune.levels",
    "data.seed",
    "data.validation",
    "data.train_examples",
    "data.unlabelled",
    "train.crop",
    "train.distill.unlabelled",
    "train.average.start",
    "train.share",
    *(f"train.{name}" for name in ("label_noise", *SOFTENED)),
    "optimizer.warmup",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "optimizer.clip_norm",
    "prune.minimum",
    "prune.step",
    "prune.examples",
    "rewind.step",
)


def _check_numbers(experiment: ConfigDict) -> None:
    values = dict(fields(experiment))
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"`{name}` is {value}; it must be a finite number.")
    for name in POSITIVE:
        if values[name] < 1:
            raise UserError(f"`{name}` is {values[name]}; it must be at least 1.")
    for name in AT_LEAST_0:
        if values[name] < 0:
            raise UserError(f"`{name}` is {values[name]}; it must not be negative.")
    for name in ("train.label_noise", "train.label_smoothing", "train.distill.weight"):
        if not 0 <= values[name] <= 1:
            raise UserError(f"`{name}` is {values[name]}; a share lies in [0, 1].")
    for name in ("optimizer.learning_rate", "train.distill.temperature"):
        if values[name] <= 0:
            raise UserError(f"`{name}` is {values[name]}; it must be above 0.")
    if not 0 < values["prune.final"] <= 1:
        raise UserError(f"`prune.final` is {values['prune.final']}; a density lies in (0, 1].")
    rates = {"rate": values["prune.rate"], **{f"rates[{k}]": v for k, v in _rates(experiment)}}
    for name, value in rates.items():
        if not 0 < value < 1:
            raise UserError(f"`prune.{name}` is {value}; it must lie in (0, 1).")


def _rates(experiment: ConfigDict) -> list[tuple[str, float]]:
    return list(experiment.prune.rates.items())


def dataset(config: ConfigDict) -> data.Dataset:
    """Loads the data set of a config, and checks that a batch fits it."""
    experiment, machine = config.experiment, config.machine
    try:
        loaded = data.load(
            experiment.data.name,
            data_dir=machine.data_dir or f"{machine.workdir}/data",
            manual_dir=machine.manual_dir or None,
            seed=experiment.data.seed,
            validation=experiment.data.validation,
            train_examples=experiment.data.train_examples or None,
            unlabelled=experiment.data.unlabelled,
            **experiment.data.options.to_dict(),
        )
        if experiment.train.distill.teacher:
            loaded = teachers.with_answers(experiment, machine.workdir, loaded)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise UserError(str(error)) from error
    share, batch = experiment.train.share, experiment.train.batch_size
    if share * experiment.replicates > len(loaded.train.y):
        raise UserError(
            f"`train.share` is {share}; {experiment.replicates} replicates cannot have so many of "
            f"the {len(loaded.train.y)} training examples each."
        )
    size = share or len(loaded.train.y)
    if batch > size:
        raise UserError(f"`train.batch_size` is {batch}, more than the {size} training examples.")
    return loaded


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
HYPER = tuple(_NUMBERS)


def hyper(experiment: ConfigDict) -> dict[str, float]:
    """The numbers that are traced: members may differ in them."""

    def number(path: str) -> float:
        return float(functools.reduce(operator.getitem, path.split("."), experiment))

    return {name: number(path) for name, path in _NUMBERS.items()}


def make_optimizer(experiment: ConfigDict) -> Callable[[Mapping[str, Any]], Any]:
    """`hyper -> masked optax transformation`."""
    base, clips = OPTIMIZERS[experiment.optimizer.name], experiment.optimizer.clip_norm > 0

    def plain(h: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
        clipping = [optax.clip_by_global_norm(h["clip_norm"])] if clips else []
        return masked(optax.chain(*clipping, base(h)))

    if not experiment.train.average.start:
        return plain
    return lambda h: averaged(plain(h), start=h["average_start"], every=h["average_every"])


def learning_rate(experiment: ConfigDict) -> optax.Schedule:
    """The learning rate over the steps of a level, as a factor on its peak."""
    warmup = experiment.optimizer.warmup
    after = LR_SCHEDULES[experiment.optimizer.schedule](experiment.train.steps - warmup)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), after], [warmup])


def _seen(train: ConfigDict, network: Model, loaded: data.Dataset) -> dict[str, Any]:
    """What of a trainer follows from augmentation, changed targets and teachers."""
    shape = loaded.train.x.shape[1:]
    if (train.crop or train.flip or train.cutmix) and len(shape) != 3:
        raise UserError(f"`train.crop`, `flip` and `cutmix` need images, but an input is {shape}.")
    softened = [step for name, step in SOFTENED.items() if train[name]]
    steps = [augment.crop(train.crop)] if train.crop else []
    steps += [augment.flip] if train.flip else []
    if train.label_noise or softened:
        classes = _outputs(network, loaded.train).shape[-1]
        steps += [augment.noisy_labels(classes)] if train.label_noise else []
        steps += [augment.soft_targets(classes), *softened] if softened else []
    objective: PerExample | None = losses.soft_cross_entropy if softened else None
    if train.distill.teacher:
        steps, objective = [*steps, _lesson(train.distill, loaded)], losses.distillation
    return {"show": augment.shows(*steps), "objective": objective}


def _lesson(distill: ConfigDict, loaded: data.Dataset) -> augment.Step:
    """What the teachers say of the examples, and of more that nobody labelled."""
    answers = {name: jnp.asarray(said) for name, said in loaded.answers.items()}
    pool = None
    if distill.unlabelled:
        pool = augment.Unlabelled(jnp.asarray(loaded.unlabelled), answers["unlabelled"])
    return augment.taught(answers["train"], CHOICES[distill.who], pool, distill.unlabelled)


def _outputs(network: Model, examples: Batch) -> jax.ShapeDtypeStruct:
    def outputs(x: jax.Array) -> jax.Array:
        return network.apply(*network.init(jax.random.key(0), x), x, train=False)[0]

    return jax.eval_shape(outputs, jax.eval_shape(lambda x: x[:1], examples.x))


def trainer(experiment: ConfigDict, loaded: data.Dataset) -> Trainer:
    """The static part of the training on a data set: its shapes, and what teachers say of it."""
    train, size = experiment.train, experiment.train.share or len(loaded.train.y)
    network, loss = model(experiment), LOSSES[train.loss]
    per_symbol = {"bits": losses.bits} if loaded.train.y.ndim > 1 else {}
    averages = train.average.start > 0
    order = data.indices if train.shuffle else data.in_order

    def rows(key: jax.Array, step: Any, steps: int) -> jax.Array:
        return order(key, step, steps=steps, batch_size=train.batch_size, size=size)

    return Trainer(
        model=network,
        make_optimizer=make_optimizer(experiment),
        loss=loss,
        metrics={"loss": loss, "accuracy": losses.correct, **per_symbol},
        schedule=learning_rate(experiment),
        order=rows,
        steps=train.eval_every,
        share=train.share,
        tested=mean_network(network, train.batch_size) if averages else as_it_stands,
        **_seen(train, network, loaded),
    )


def lab(experiment: ConfigDict, loaded: data.Dataset) -> Lab:
    """What the experiment trains with, its data on the device."""
    return seeded(experiment, trainer(experiment, loaded), on_device(loaded))


def on_device(loaded: data.Dataset) -> Data:
    """A data set on the device."""
    return jax.tree.map(jnp.asarray, Data(loaded.train, loaded.validation, loaded.test))


def seeded(experiment: ConfigDict, trainer: Trainer, splits: Data) -> Lab:
    """A trainer and its data with what an experiment adds that is traced: seeds and numbers."""
    return Lab(
        trainer=trainer,
        data=splits,
        root=jax.random.key(experiment.seed),
        replicates=experiment.replicates,
        hyper=hyper(experiment),
    )


def ladder(experiment: ConfigDict, lab: Lab) -> Ladder:
    """What the experiment does: counts per level, pruner, rewinding, controls."""
    lab = lab._replace(root=jax.random.key(0))  # what a criterion draws is the same for all seeds
    options = experiment.prune
    example = jax.tree.map(lambda a: a[:1], lab.data.train.x)
    params, _ = jax.eval_shape(lab.trainer.model.init, lab.root, example)
    found = _structure(experiment, lab)
    scope, granularity, prunable = _what_competes(options, params, found)
    module = networks.module(experiment)
    criterion = scoring.criterion(options.criterion, lab, module, found)
    return Ladder(
        counts=[
            scope.counts(params, density, prunable=prunable)
            for density in densities(experiment, params)
        ],
        pruner=prune(criterion, scope, granularity),
        prunable=prunable,
        rewind=Rewind(**experiment.rewind.to_dict()),
        controls=named(experiment.controls, units.make_controls(found, module)),
        stop=experiment.train.steps,
        score_step=options.step or experiment.train.steps,
        control_levels=frozenset(experiment.control_levels) or None,
        batches=scoring.batches(lab.data.train, options.examples),
    )


def _structure(experiment: ConfigDict, lab: Lab) -> st.Structure | None:
    """The network's units where the ladder removes or refills them, else None."""
    if experiment.prune.granularity == units.UNITS:
        return units.chosen(units.structure_of(lab), experiment.prune)
    refills = set(experiment.controls) & set(REFILL_CONTROLS)
    return units.structure_of(lab) if refills else None


def _what_competes(
    options: ConfigDict, params: Any, found: st.Structure | None
) -> tuple[scopes.Scope, Granularity, Prunable]:
    reduction = units.REDUCTIONS[options.reduction]
    if options.granularity == units.UNITS and found is not None:
        scope = units.SCOPES[options.scope](found, multiple=options.multiple)
        return scope, st.granularity(found, reduction), st.prunable(found)
    everything = (lambda name, leaf: leaf.ndim > 0) if options.biases else None
    prunable = masks.prunable_leaves(params, everything)
    granularity = units.GRANULARITIES[options.granularity](reduction)
    return SCOPES[options.scope](options), granularity, prunable


def densities(experiment: ConfigDict, params: Any) -> list[Any]:
    """The density of each level from 1 on: a number, or a tree where layers have rates."""
    options = experiment.prune
    schedule = SCHEDULES[options.schedule](options)
    own = {pattern: schedules.geometric(rate) for pattern, rate in _rates(experiment)}
    levels = range(1, options.levels + 1)
    if not own:
        return [schedule(level) for level in levels]
    return [
        scopes.per_leaf(params, schedule(level), {p: f(level) for p, f in own.items()})
        for level in levels
    ]


def identity(experiment: ConfigDict, fingerprint: str, environment: Any, source: str) -> Any:
    """What decides the numbers of a ladder's nodes, besides what each node knows of itself."""
    fields_of_pruner = (
        "criterion",
        "scope",
        "minimum",
        "biases",
        "examples",
        "granularity",
        "groups",
        "multiple",
        "reduction",
    )
    fields_of_trunk = ("seed", "model", "train", "optimizer")
    whole = experiment.to_dict()
    device = {k: v for k, v in environment["device"].items() if k != "count"}  # the plan has that
    return {
        "trunk": {
            **{name: whole[name] for name in fields_of_trunk},
            "data": fingerprint,
            "environment": {**environment, "device": device},
            "source": source,
        },
        "ladder": {name: whole["prune"][name] for name in fields_of_pruner},
    }
