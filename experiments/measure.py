"""How the networks of a finished run behave on its test set, beyond their accuracy.

    python -m experiments.measure RUN [--examples 1000]

Of every network that did not diverge: of a classifier, calibration (expected calibration error,
negative log-likelihood, Brier score) and what is taken for what, group by group where examples have
groups;
the norm of the gradient that gets past its mask; and what its kind allows: units that are never on
(MLPs, plain convolutional nets and VGGs, where a ReLU follows each layer), entropy and importance
of attention heads, spectral radius of recurrent matrices, and how much of a planted ticket its mask
has found, beside chance. It is kept with the run's analyses and drawn on its page.
"""

import functools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from numpy.typing import NDArray

from experiments import networks
from experiments.finished import (
    EXAMPLES,
    Finished,
    exit_code,
    machine_of,
    open_finished,
    parser_for,
)
from experiments.flags import UserError
from lth_jax import models, trees
from lth_jax import store as stores
from lth_jax.coding.stored import Stored, read_stored
from lth_jax.data import planted
from lth_jax.measures import activity, attention, calibration, fairness, recovery, spectra
from lth_jax.report import write_report
from lth_jax.schema import read_entries
from lth_jax.store.analyses import add_analysis
from lth_jax.types import Batch

SOURCES = (
    *(f"lth_jax.{room}" for room in ("measures", "models", "population", "data", "trees")),
    "experiments.measure",
)
RELU_AFTER_EACH = (models.MLP, models.ConvNet, models.VGG)
MOST_CLASSES = 32  # of which a table of confusions can still be read
DRAWS = 100  # of random masks, for what chance recovers
Scores = dict[str, float]


class Subject(NamedTuple):
    """One network of a run and what it says of the examples.

    Attributes:
      params: the trained parameters.
      state: the model's state.
      mask: boolean tree like `params`.
      logits: float64 `(n, …, classes)`.
    """

    params: Any
    state: Any
    mask: Any
    logits: NDArray[np.float64]


class Instrument:
    """What is measured on every network of a run, with the programs that this takes.

    Args:
      run: the run.
      examples: how many test examples to look at, the first ones.
    """

    def __init__(self, run: Finished, examples: int):
        self._experiment = run.experiment
        self._module = networks.module(run.experiment)
        self._trainer = run.task.trainer
        self._batch: Batch = jax.tree.map(lambda a: a[:examples], run.task.data.test)
        self._classes = run.loaded.classes
        alone = np.zeros(len(self._batch.x), int)
        self.groups = run.loaded.groups.get("test", alone)[:examples]
        self._like = run.task.shapes
        self._say = jax.jit(lambda *point: self._trainer.model.apply(*point, train=False)[0])
        self._gradient = jax.jit(jax.grad(self._loss))

    def subject(self, one: Stored) -> Subject:
        """A network of the run, and what it says."""
        params, state = (trees.from_named(t, like) for t, like in
                         zip((one.params, one.state), self._like, strict=True))  # fmt: skip
        logits = np.asarray(self._say(params, state, self._batch.x), np.float64)
        return Subject(params, state, trees.from_named(one.mask, self._like[0]), logits)

    def scores(self, subject: Subject) -> Scores:
        """All numbers of a network, by name."""
        return {
            **(self._calibration(subject) if self._classes else {}),
            **self._gradients(subject),
            **dict(self._dead(subject)),
            **dict(self._heads(subject)),
            **dict(self._radii(subject)),
            **self._recovered(subject),
        }

    def confusions(self, subject: Subject) -> NDArray[np.int64]:
        """`[group, label, prediction]`: counts."""
        found = subject.logits.argmax(axis=-1).ravel()
        labels = np.asarray(self._batch.y).ravel()
        groups = np.repeat(self.groups, labels.size // len(self.groups))
        counts = fairness.confusion_per_group(found, labels, groups, classes=self._classes)
        return np.stack(list(counts.values()))

    @property
    def confuses(self) -> bool:
        """Whether there are so few classes that a table of confusions can be read."""
        return 0 < self._classes <= MOST_CLASSES

    def _loss(self, params: Any, state: Any, batch: Batch) -> jax.Array:
        out, _ = self._trainer.model.apply(params, state, batch.x, train=False)
        return jnp.mean(self._trainer.loss(out, batch.y))

    def _calibration(self, subject: Subject) -> Scores:
        logits = subject.logits.reshape(-1, subject.logits.shape[-1])
        labels = np.asarray(self._batch.y).ravel()
        return {
            "ece": calibration.expected_calibration_error(logits, labels),
            "nll": calibration.negative_log_likelihood(logits, labels),
            "brier": calibration.brier_score(logits, labels),
        }

    def _gradients(self, subject: Subject) -> Scores:
        gradients = self._gradient(subject.params, subject.state, self._batch)
        flow = activity.gradient_flow(gradients, subject.mask)
        return {"gradient_norm": float(np.linalg.norm(list(flow.values())))}

    def _dead(self, subject: Subject) -> Iterator[tuple[str, float]]:
        if isinstance(self._module, RELU_AFTER_EACH):
            normed = "batch_stats" in subject.state
            layers = (nn.BatchNorm,) if normed else (nn.Dense, nn.Conv)
            place = (self._module, subject.params, subject.state, self._batch.x)
            outputs = models.layer_outputs(*place, layers=layers)
            hidden = {k: v for k, v in outputs.items() if not _same(v, subject.logits)}
            for layer, dead in activity.dead_units(hidden).items():
                yield f"dead_units/{layer}", float(dead.mean())

    def _heads(self, subject: Subject) -> Iterator[tuple[str, float]]:
        if not self._attends:
            return
        found = models.attention_probabilities(
            self._module, subject.params, subject.state, self._batch.x
        )
        visible = None
        if getattr(self._module, "causal", False):
            time = next(iter(found.values())).shape[-1]
            visible = np.tril(np.ones((time, time), bool))
        speaks = {f"{layer}/out/kernel": p.shape[1] for layer, p in found.items()}
        loss = partial(_at_state, self._loss, subject.state)
        importance = attention.head_importance(loss, subject.params, self._batch, speaks)
        for layer, p in found.items():
            entropy = attention.attention_entropy(p, visible)
            matters = importance[f"{layer}/out/kernel"]
            for head, (spread, weight) in enumerate(zip(entropy, matters, strict=True)):
                yield f"attention_entropy/{layer}/{head}", float(spread)
                yield f"head_importance/{layer}/{head}", float(weight)

    @functools.cached_property
    def _attends(self) -> bool:
        return any(name.endswith("query/kernel") for name in trees.names(self._like[0]))

    def _radii(self, subject: Subject) -> Iterator[tuple[str, float]]:
        for name, kernel in trees.to_named(subject.params).items():
            if "recurrent_kernel" in name:
                gates = kernel.shape[1] // kernel.shape[0]
                for gate, radius in enumerate(spectra.spectral_radius(kernel, gates)):
                    yield f"spectral_radius/{name}/{gate}", float(radius)

    def _recovered(self, subject: Subject) -> Scores:
        if self._experiment.data.name != "planted" or self._experiment.model.name != "mlp":
            return {}
        options = self._experiment.data.options.to_dict()
        known = {k: v for k, v in options.items() if k not in ("train", "test")}
        hidden, there = _kernels(subject.mask), _kernels(planted.teacher(**known).mask)
        by_chance = recovery.chance(hidden, there, seed=0, draws=DRAWS)
        return {
            "recovered": recovery.recovered(hidden, there),
            "recovered_by_chance": float(by_chance.mean()),
        }


def _kernels(mask: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    first, second = (np.asarray(mask[name]["kernel"]) for name in ("Dense_0", "Dense_1"))
    return first, second


def _same(outputs: jax.Array, logits: NDArray[np.float64]) -> bool:
    return outputs.shape == logits.shape and np.allclose(outputs, logits, rtol=1e-4)


def _at_state(loss: Any, state: Any, params: Any, batch: Batch) -> jax.Array:
    return loss(params, state, batch)


def measure(run: Finished, examples: int) -> str:
    """Looks at all networks of a run, or finds in the store what was seen.

    Args:
      run: the run.
      examples: how many test examples to look at, the first ones.

    Returns:
      The path of the report's page, drawn anew.

    Raises:
      StoreError: if something in the store is damaged.
    """
    what = {
        "what": "behaviour",
        "examples": examples,
        **run.basis,
        "networks": [[entry.key, entry.rows] for entry in read_entries(run.info.path)],
        "source": stores.source_fingerprint(*SOURCES),
    }
    key = stores.content_key(what)
    run.store.node(key, partial(_measured, run, examples))
    add_analysis(run.info.path, key, {"kind": "behaviour"})
    return str(write_report(run.store, run.info))


def _measured(run: Finished, examples: int, progress: Any) -> stores.Node:
    del progress  # a network takes a moment
    instrument = Instrument(run, examples)
    arms = tuple({arm for entry in read_entries(run.info.path) for arm in entry.arms})
    about, scores, confusions = [], [], []
    for one in read_stored(run.store, run.info.path, arms):
        if one.diverged_at is None:
            subject = instrument.subject(one)
            facts = ("arm", "level", "replicate", "density")
            about.append({name: getattr(one, name) for name in facts})
            scores.append(instrument.scores(subject))
            if instrument.confuses:
                confusions.append(instrument.confusions(subject))
    if not about:
        raise UserError(f"No network of {run.info.run} was trained to its end.")
    names = list(scores[0])
    arrays = {"scores": np.array([[one[name] for name in names] for one in scores])}
    if confusions:
        arrays["confusions"] = np.stack(confusions)
    groups = [str(group) for group in np.unique(instrument.groups)]
    meta = {"kind": "behaviour", "networks": about, "scores": names, "groups": groups}
    return stores.Node(arrays, meta)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    parser = parser_for("experiments.measure", str(__doc__))
    parser.option("examples", EXAMPLES, 1000, "test examples to look at")

    def work() -> str:
        arguments = parser.parse_args(argv)
        return measure(open_finished(machine_of(arguments), arguments.run), arguments.examples)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
