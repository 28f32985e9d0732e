"""The behaviour of a run's networks on its test set, beyond their accuracy."""

import functools
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from numpy.typing import ArrayLike, NDArray

from lth_jax import models, trees
from lth_jax import store as stores
from lth_jax.analysis.arguments import EXAMPLES, AnalysisError, checked
from lth_jax.analysis.measurement import Found, Measurement, RunContext, about, named
from lth_jax.analysis.progress import note
from lth_jax.coding.stored import Stored
from lth_jax.lottery import Result, Task
from lth_jax.measures import activity, attention, calibration, fairness, recovery, spectra
from lth_jax.report import behaviour as reports
from lth_jax.types import Batch, Mask

RELU_AFTER_EACH = (models.MLP, models.ConvNet, models.VGG)
MOST_CLASSES = 32  # in a readable table of confusions
DRAWS = 100  # of random masks, for the recovery by chance
PLANTED = ("Dense_0/kernel", "Dense_1/kernel")
Scores = dict[str, float]


@checked(examples=EXAMPLES)
def behaviour(
    run: Result,
    *,
    examples: int = 1000,
    groups: ArrayLike | None = None,
    planted: Mask | None = None,
) -> Measurement:
    """Measures the behaviour of a run's networks on test examples.

    Classifiers: the expected calibration error, the negative log-likelihood, the Brier score, and
    confusion matrices, per group if examples have groups. All networks: the norm of the masked
    gradient. Where they are defined: the units that are never active (MLPs, plain convolutional
    networks and VGGs, in which a ReLU follows each layer), the entropy and importance of attention
    heads, the spectral radius of recurrent matrices, and the fraction of a planted ticket in the
    mask, compared with chance.

    Args:
      run: a finished run.
      examples: number of test examples, from the first.
      groups: `(n,)`, the group of each test example; one group by default.
      planted: the mask of a planted ticket in `Dense_0` and `Dense_1`, from `data.planted.teacher`.

    Returns:
      The scores of all networks that did not diverge; `records.scores` holds the arrays.

    Raises:
      AnalysisError: if all networks diverged, or an argument does not fit the run.
    """
    context = RunContext(run, "analysis.behaviour", "measures")
    instrument = Instrument(run.task, examples, groups, planted)
    context.keep(
        {"kind": "behaviour"},
        partial(_measured, context, instrument),
        examples=examples,
        groups=None if groups is None else stores.fingerprint(np.asarray(groups)),
        planted=None if planted is None else stores.fingerprint(planted),
        networks=context.networks,
    )
    return Measurement(reports, run)


def _measured(context: RunContext, instrument: "Instrument") -> Found:
    networks, scores, confusions = [], [], []
    for one in context.converged():
        subject = instrument.subject(one)
        networks.append(about(one, "density"))
        scores.append(instrument.scores(subject))
        if instrument.confuses:
            confusions.append(instrument.confusions(subject))
        note(named(about(one)))
    if not networks:
        raise AnalysisError(f"No network of {context.run.path.name} was trained to its end.")
    names = list(scores[0])
    arrays = {"scores": np.array([[one[name] for name in names] for one in scores])}
    if confusions:
        arrays["confusions"] = np.stack(confusions)
    groups = [str(group) for group in np.unique(instrument.groups)]
    return arrays, {"networks": networks, "scores": names, "groups": groups}


class Subject(NamedTuple):
    """One network of a run and its outputs on the examples.

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
    """Measures every network of a task; arguments are those of `behaviour`.

    Attributes:
      groups: the group of each of these examples.
      classes: the number of classes; 0 if the targets are not classes.
    """

    def __init__(
        self,
        task: Task,
        examples: int,
        groups: ArrayLike | None = None,
        planted: Mask | None = None,
    ):
        self._trainer, self._module = task.trainer, task.trainer.model.module
        self._batch: Batch = jax.tree.map(lambda a: a[:examples], task.data.test)
        count = len(jax.tree.leaves(task.data.test)[0])
        of_all = np.zeros(count, int) if groups is None else np.asarray(groups)
        if of_all.shape != (count,):
            raise AnalysisError(
                f"`groups` has shape {of_all.shape}; it must be ({count},), the test examples."
            )
        self.groups = of_all[:examples]
        self._like = task.shapes
        self._planted = None if planted is None else _kernels(planted, "it")
        self._check_planted()
        self._logits = jax.jit(lambda *point: self._trainer.model.apply(*point, train=False)[0])
        self._gradient = jax.jit(jax.grad(self._loss))
        self.classes = self._count_classes()

    def subject(self, one: Stored) -> Subject:
        """A network of the run and its outputs."""
        params, state = (trees.from_named(t, like) for t, like in
                         zip((one.params, one.state), self._like, strict=True))  # fmt: skip
        logits = np.asarray(self._logits(params, state, self._batch.x), np.float64)
        return Subject(params, state, trees.from_named(one.mask, self._like[0]), logits)

    def scores(self, subject: Subject) -> Scores:
        """All numbers of a network, by name."""
        return {
            **(self._calibration(subject) if self.classes else {}),
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
        counts = fairness.confusion_per_group(found, labels, groups, classes=self.classes)
        return np.stack(list(counts.values()))

    @property
    def confuses(self) -> bool:
        """Whether there are few enough classes for a readable table of confusions."""
        return 0 < self.classes <= MOST_CLASSES

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
        widths = {f"{layer}/out/kernel": p.shape[1] for layer, p in found.items()}

        def loss(params: Any, batch: Batch) -> jax.Array:
            return self._loss(params, subject.state, batch)

        importance = attention.head_importance(loss, subject.params, self._batch, widths)
        for layer, p in found.items():
            entropy = attention.attention_entropy(p, visible)
            matters = importance[f"{layer}/out/kernel"]
            for head, (spread, weight) in enumerate(zip(entropy, matters, strict=True)):
                yield f"attention_entropy/{layer}/{head}", float(spread)
                yield f"head_importance/{layer}/{head}", float(weight)

    @functools.cached_property
    def _attends(self) -> bool:
        """Whether the network is a Linen module that sows attention probabilities."""
        if not isinstance(self._module, nn.Module):
            return False
        find = partial(models.attention_probabilities, self._module)
        try:
            return bool(jax.eval_shape(find, *self._like, self._batch.x))
        except (TypeError, ValueError):  # the call has no `train`, or sows none
            return False

    def _count_classes(self) -> int:
        outputs = jax.eval_shape(self._logits, *self._like, self._batch.x)
        labels = jax.tree.leaves(self._batch.y)[0]
        is_logits = outputs.shape[:-1] == labels.shape
        integers = jnp.issubdtype(labels.dtype, jnp.integer)
        return int(outputs.shape[-1]) if is_logits and integers else 0

    def _radii(self, subject: Subject) -> Iterator[tuple[str, float]]:
        for name, kernel in trees.to_named(subject.params).items():
            if "recurrent_kernel" in name:
                gates = kernel.shape[1] // kernel.shape[0]
                for gate, radius in enumerate(spectra.spectral_radius(kernel, gates)):
                    yield f"spectral_radius/{name}/{gate}", float(radius)

    def _check_planted(self) -> None:
        if self._planted is not None:
            shapes = _kernels(self._like[0], "the network")
            first, second = (np.ones(leaf.shape, bool) for leaf in shapes)
            try:
                recovery.recovered((first, second), self._planted)
            except ValueError as error:
                raise AnalysisError(f"`planted` does not fit the network: {error}") from error

    def _recovered(self, subject: Subject) -> Scores:
        if self._planted is None:
            return {}
        hidden, there = _kernels(subject.mask, "the mask"), self._planted
        by_chance = recovery.chance(hidden, there, seed=0, draws=DRAWS)
        return {
            "recovered": recovery.recovered(hidden, there),
            "recovered_by_chance": float(by_chance.mean()),
        }


def _kernels(tree: Any, what: str) -> tuple[Any, Any]:
    named = trees.to_named(tree)
    if not set(PLANTED) <= named.keys():
        raise AnalysisError(
            f"`planted` needs the leaves {' and '.join(PLANTED)}; {what} has {', '.join(named)}."
        )
    return named[PLANTED[0]], named[PLANTED[1]]


def _same(outputs: jax.Array, logits: NDArray[np.float64]) -> bool:
    return outputs.shape == logits.shape and np.allclose(outputs, logits, rtol=1e-4)
