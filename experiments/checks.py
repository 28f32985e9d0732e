"""Consistency checks between the fields of a config."""

from ml_collections import ConfigDict

from experiments import estimate, networks, scoring, units
from experiments.configs import base
from experiments.estimate import density, levels
from experiments.fields import check_values, leaves
from lth_jax import trees
from lth_jax.cli import parts
from lth_jax.cli.programs import UserError
from lth_jax.data import Dataset
from lth_jax.legal import nearest

FEWEST = 2.0**-31  # the density of one weight: counts are int32


def check(experiment: ConfigDict) -> None:
    """Raises `UserError` for the first invalid field of an experiment.

    Runs before anything is prepared or trained; `check_examples` and `check_network` check the
    fields that depend on the data.
    """
    check_values(experiment)
    with parts.failing_parts(dict(leaves(experiment))):
        networks.check_options(experiment)
        _check_pruning(experiment)
        _check_levels(experiment)
        _check_training(experiment)
        estimate.check_members(experiment)


def _check_pruning(experiment: ConfigDict) -> None:
    pruning = experiment.prune
    if scoring.needs_examples(pruning.criterion) and not pruning.examples:
        raise UserError(
            f"`prune.criterion` is '{pruning.criterion}', which needs data; "
            "set `prune.examples` to the number of training examples for it."
        )
    _check_reconstruct(pruning)
    known = units.control_names(pruning.granularity)
    for name in experiment.controls:
        if name not in known and not parts.is_own(name):
            raise UserError(
                nearest(f"`controls` of `prune.granularity={pruning.granularity}`", name, known)
            )
    units.check(pruning)
    if pruning.layer_rates and (pruning.scope, pruning.schedule) != ("layerwise", "geometric"):
        raise UserError(
            "`prune.layer_rates` needs `prune.scope=layerwise`, `prune.schedule=geometric`."
        )
    if pruning.schedule == "geometric" and pruning.final != base.ladder().experiment.prune.final:
        raise UserError(
            f"`prune.final` is {pruning.final}, which `prune.schedule=geometric` does not use; set "
            "`prune.rate` and `prune.levels`, or another schedule, such as exponential."
        )


def _check_reconstruct(pruning: ConfigDict) -> None:
    chosen = pruning.reconstruct
    if not chosen.method:
        return
    if not pruning.examples:
        raise UserError(
            f"`prune.reconstruct.method` is '{chosen.method}', which needs data; "
            "set `prune.examples` to the number of training examples for it."
        )
    if (chosen.mask, chosen.start) == ("criterion", "rewound"):
        raise UserError(
            "`prune.reconstruct.mask` is 'criterion' and `prune.reconstruct.start` is 'rewound', "
            "which changes nothing; change one of them."
        )
    if pruning.method != "static" or pruning.retrain:
        raise UserError(
            "`prune.reconstruct.method` fits weights to the masks of a criterion; it needs "
            "`prune.method=static` and no `prune.retrain`."
        )
    if chosen.mask == "method" and pruning.granularity != "weights":
        raise UserError(
            f"`prune.granularity` is '{pruning.granularity}'; with `prune.reconstruct.mask=method` "
            "it must be 'weights'."
        )


def _check_levels(experiment: ConfigDict) -> None:
    pruning, steps = experiment.prune, experiment.train.steps
    absent = [level for level in experiment.control_levels if level > levels(pruning)]
    if absent:
        raise UserError(
            f"`control_levels` includes {absent[0]}; `prune.levels` is {pruning.levels}."
        )
    rates = pruning.layer_rates.to_dict().values()
    last = [(1 - rate) ** pruning.levels for rate in rates]
    last += [density(pruning, pruning.levels)] if pruning.levels else []
    if min(last, default=1.0) < FEWEST:
        raise UserError(
            f"`prune.levels` is {pruning.levels}; at the last level the density would be "
            f"{min(last):.3g}, which leaves no weight."
        )
    if experiment.rewind.step >= steps:
        raise UserError(
            f"`rewind.step` is {experiment.rewind.step}; it must be below `train.steps`, {steps}."
        )
    if pruning.score_step and pruning.at_start:
        raise UserError("`prune.at_start` and `prune.score_step` cannot both be set; set one.")
    if pruning.score_step and not experiment.rewind.step <= pruning.score_step <= steps:
        raise UserError(
            f"`prune.score_step` is {pruning.score_step}; it must be 0, or lie between "
            f"`rewind.step`, {experiment.rewind.step}, and `train.steps`, {steps}."
        )


def _check_training(experiment: ConfigDict) -> None:
    train, changed = experiment.train, ("crop", "crop_area", "flip", "mixup", "cutmix")
    if experiment.optimizer.warmup >= train.steps:
        raise UserError(
            f"`optimizer.warmup` is {experiment.optimizer.warmup}; it must be below "
            f"`train.steps`, {train.steps}."
        )
    if train.distill.teacher and any(train[name] for name in changed):
        raise UserError(
            "`train.distill.teacher` needs unchanged examples; set "
            f"{', '.join(f'`train.{name}`' for name in changed)} to 0."
        )
    needed, has = train.distill.unlabelled, experiment.data.unlabelled
    if needed and not (train.distill.teacher and has):
        raise UserError(
            f"`train.distill.unlabelled` is {needed}; it needs `train.distill.teacher` and "
            "`data.unlabelled`."
        )
    if needed > has:
        raise UserError(
            f"`train.distill.unlabelled` is {needed}, more than the {has} of `data.unlabelled`."
        )
    start = train.average.start
    if start and not experiment.rewind.step < start <= train.steps:
        raise UserError(
            f"`train.average.start` is {start}; it must lie above the rewind step, "
            f"{experiment.rewind.step}, and be at most `train.steps`, {train.steps}."
        )
    if train.average.window and not start:
        raise UserError(
            f"`train.average.window` is {train.average.window}; it needs `train.average.start`."
        )
    if experiment.data.train_examples:
        check_examples(experiment, experiment.data.train_examples)


def check_examples(experiment: ConfigDict, examples: int) -> None:
    """Raises `UserError` for a field that needs more training examples than there are."""
    share, replicates = experiment.train.share, experiment.replicates
    if share * replicates > examples:
        raise UserError(
            f"`train.share` is {share}; {replicates} replicates need {share * replicates} training "
            f"examples, but there are {examples}."
        )
    for name, value, most in (
        ("train.batch_size", experiment.train.batch_size, share or examples),
        ("prune.examples", experiment.prune.examples, examples),
    ):
        if value > most:
            raise UserError(f"`{name}` is {value}, more than the {most} training examples.")


def check_network(config: ConfigDict, loaded: Dataset) -> estimate.Estimate:
    """Checks a config's network on its data, and that its population fits this machine.

    Returns:
      Lower bounds of the population's memory and disk space.

    Raises:
      UserError: the network does not accept the inputs, has an empty leaf or too few outputs, or
        its members need more memory or disk space than is free.
    """
    experiment = config.experiment
    found = networks.shapes(experiment, loaded)
    for where, leaf in trees.to_named(found.params).items():
        if not leaf.size:
            raise UserError(
                f"`model.options` of '{experiment.model.name}' give '{where}' the shape "
                f"{leaf.shape}, which holds no weight."
            )
    return estimate.check_fits(config, found)
