"""Teachers: dense networks of a finished run, evaluated on the examples of another run."""

import dataclasses
from pathlib import Path

from lth_jax import store as stores
from lth_jax.coding.stored import Stored, read_stored
from lth_jax.data import Dataset
from lth_jax.lottery import logits_of
from lth_jax.store import RunInfo
from lth_jax.types import DENSE, Model

ALL, OWN = "all", "own"
WHO = (ALL, OWN)
"""The teachers of a member: all dense networks of the run, or that of the same replicate."""


def with_answers(
    data: Dataset, run: RunInfo, model: Model, *, students: int = 0, unlabelled: bool = False
) -> Dataset:
    """Adds the logits of a run's dense networks to a data set.

    Args:
      data: the data set.
      run: the teachers' run, from `store.find_run`.
      model: the teachers' network.
      students: replicates that need a teacher each; 0 if all share the teachers.
      unlabelled: whether the unlabelled examples get logits too.

    Returns:
      The data set with `answers`, float32 `(teachers, n, …, classes)`, and their fingerprint.

    Raises:
      ValueError: the run is not finished, one of its networks diverged, there are too few, or they
        have other inputs or outputs.
      StoreError: the run is damaged.
    """
    if run.status != "finished":
        raise ValueError(f"the teachers' run must be finished; {run.run} is {run.status}.")
    members = sorted(_dense(run), key=lambda one: one.replicate)
    if len(members) < students:
        raise ValueError(
            f"`who` is '{OWN}', but {run.run} has {len(members)} dense networks for {students} "
            "replicates."
        )
    inputs = {"train": data.train.x, **({"unlabelled": data.unlabelled} if unlabelled else {})}
    try:
        answers = {name: logits_of(model, members, x) for name, x in inputs.items()}
    except ValueError as error:
        shape = data.train.x.shape[1:]
        raise ValueError(f"the teachers of {run.run} do not accept inputs {shape}.") from error
    wanted, got = (*data.train.y.shape, data.classes), answers["train"].shape[1:]
    if got != wanted:
        raise ValueError(f"the teachers of {run.run} have outputs {got}; they must be {wanted}.")
    origin = [data.fingerprint, *(one.key for one in members)]
    return dataclasses.replace(data, answers=answers, fingerprint=stores.content_key(origin))


def _dense(run: RunInfo) -> list[Stored]:
    store = stores.Store(Path(run.path).resolve().parent)
    members = list(read_stored(store, run.path, (DENSE,)))
    diverged = [one.replicate for one in members if one.diverged_at is not None]
    if diverged:
        raise ValueError(
            f"the dense networks {diverged} of {run.run} diverged; they cannot be teachers."
        )
    return members
