"""Teachers: dense networks of a finished run, evaluated on the examples of another run."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from experiments import networks
from experiments.flags import saved_config
from lth_jax import store as stores
from lth_jax.cli.programs import UserError
from lth_jax.coding.stored import Stored, read_stored
from lth_jax.data import Dataset
from lth_jax.lottery import logits_of
from lth_jax.types import DENSE

ALL, OWN = "all", "own"
WHO = (ALL, OWN)
"""The teachers of a member: all dense networks of the run, or that of the same replicate."""


def with_answers(experiment: ConfigDict, workdir: str, loaded: Dataset) -> Dataset:
    """Adds the logits of an experiment's teachers to its data set.

    Raises:
      UserError: the run is not finished, one of its networks diverged, there are too few, or they
        have other inputs or outputs.
      StoreError: the run does not exist or is damaged.
    """
    distill = experiment.train.distill
    info = stores.find_run(workdir, distill.teacher)
    if info.status != "finished":
        raise UserError(f"it must be a finished run; {info.run} is {info.status}.")
    members = sorted(_dense(info), key=lambda one: one.replicate)
    if distill.who == OWN and len(members) < experiment.replicates:
        raise UserError(
            f"`train.distill.who` is '{OWN}', but {info.run} has {len(members)} dense networks "
            f"for {experiment.replicates} replicates."
        )
    network = networks.model(saved_config(info.path))
    inputs = {"train": loaded.train.x}
    if distill.unlabelled:
        inputs["unlabelled"] = loaded.unlabelled
    try:
        answers = {name: logits_of(network, members, x) for name, x in inputs.items()}
    except ValueError as error:
        shape = loaded.train.x.shape[1:]
        raise UserError(f"The teachers of {info.run} do not accept inputs {shape}.") from error
    wanted = (*loaded.train.y.shape, loaded.classes)
    if answers["train"].shape[1:] != wanted:
        got = answers["train"].shape[1:]
        raise UserError(f"The teachers of {info.run} have outputs {got}; they must be {wanted}.")
    origin = [loaded.fingerprint, *(one.key for one in members)]
    return dataclasses.replace(loaded, answers=answers, fingerprint=stores.content_key(origin))


def _dense(info: stores.RunInfo) -> list[Stored]:
    store = stores.Store(Path(info.path).resolve().parent)
    members = list(read_stored(store, info.path, (DENSE,)))
    diverged = [one.replicate for one in members if one.diverged_at is not None]
    if diverged:
        raise UserError(
            f"The dense networks {diverged} of {info.run} diverged; they cannot be teachers."
        )
    return members
