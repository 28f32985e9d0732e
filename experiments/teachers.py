"""Teachers: the dense networks of a finished run, evaluated once on the examples of another."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import networks
from experiments.flags import UserError, saved_config
from lth_jax import store as stores
from lth_jax import trees
from lth_jax.coding.stored import Stored, read_stored
from lth_jax.data import Dataset
from lth_jax.types import DENSE, Model, Params

BLOCK = 1024  # examples evaluated at once
ALL, OWN = "all", "own"
WHO = (ALL, OWN)
"""Which teachers a member has: all dense networks of the run, or that of its own replicate."""


def with_answers(experiment: ConfigDict, workdir: str, loaded: Dataset) -> Dataset:
    """The data set with the logits of an experiment's teachers on its examples.

    Args:
      experiment: `train.distill` names the teachers.
      workdir: where the run that they come from lies.
      loaded: the data.

    Raises:
      UserError: if the run is not finished, a network of it diverged, there are too few of them, or
        they take other inputs or have other outputs.
      StoreError: if there is no such run, or something in it is damaged.
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
    answers = {name: ask(network, members, x, info.run) for name, x in inputs.items()}
    wanted = (*loaded.train.y.shape, loaded.classes)
    if answers["train"].shape[1:] != wanted:
        got = answers["train"].shape[1:]
        raise UserError(f"The teachers of {info.run} answer with {got}, not {wanted}.")
    origin = [loaded.fingerprint, *(one.key for one in members)]
    return dataclasses.replace(loaded, answers=answers, fingerprint=stores.content_key(origin))


def _dense(info: stores.RunInfo) -> list[Stored]:
    store = stores.Store(Path(info.path).resolve().parent)
    members = list(read_stored(store, info.path, (DENSE,)))
    diverged = [one.replicate for one in members if one.diverged_at is not None]
    if diverged:
        raise UserError(f"The dense networks {diverged} of {info.run} diverged; they cannot teach.")
    return members


def ask(network: Model, members: Sequence[Stored], x: np.ndarray, run: str) -> np.ndarray:
    """The logits `(members, n, …, classes)` of stored networks, outside of training.

    Args:
      network: what they are networks of.
      members: their points.
      x: inputs `(n, …)`.
      run: where they come from, for the message if they do not fit.

    Raises:
      UserError: if they take other inputs.
    """
    like = jax.eval_shape(network.init, jax.random.key(0), jax.eval_shape(jnp.asarray, x[:1]))
    try:
        points = [tuple(map(trees.from_named, (one.params, one.state), like)) for one in members]
        trees.check_same_structure("params", points[0][0], "the network", like[0])
    except ValueError as error:
        raise UserError(f"The teachers of {run} do not take inputs {x.shape[1:]}.") from error
    population = trees.stack(points)

    @jax.jit
    def answers(x: jax.Array) -> jax.Array:
        def one(point: tuple[Params, Any]) -> jax.Array:
            return network.apply(*point, x, train=False)[0]

        return jax.lax.map(one, population)

    blocks = [answers(x[first : first + BLOCK]) for first in range(0, len(x), BLOCK)]
    return np.concatenate(blocks, axis=1)
