"""Learning rates predicted from curvature, compared with the best in training."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import keys, landscape, trees
from lth_jax.analysis.arguments import CHUNK, EXAMPLES, AnalysisError, check_known, checked
from lth_jax.analysis.measurement import Found, Measurement, Point, RunContext
from lth_jax.coding.stored import Named, Stored, read_stored, rewound
from lth_jax.legal import real, several, whole
from lth_jax.lottery import Result
from lth_jax.lottery.curvature import first_blocks, hessian_at, relative_sharpness_at, training_loss
from lth_jax.lottery.initial_states import replicate_keys
from lth_jax.population import Member, evaluate
from lth_jax.pruning.masks import apply_mask
from lth_jax.report import learning_rates as reports
from lth_jax.types import DENSE, TICKET

ARMS = (DENSE, TICKET, "random")
RATES = tuple(2.0**power for power in range(-5, 4))
RATE = real(0, above=True)
NO_STEP_SIZES = landscape.StepSizes(math.nan, math.nan, math.nan, False)
T = TypeVar("T")


@checked(
    rates=several(RATE, f"different rates, each {RATE.words}"),
    level=whole(0),
    examples=EXAMPLES,
    chunk=CHUNK,
)
def learning_rates(
    run: Result,
    *,
    rates: Sequence[float] = RATES,
    level: int = 0,
    examples: int = 1000,
    chunk: int = 0,
) -> Measurement:
    """Trains the networks of a level at every learning rate, and predicts rates from curvature.

    The dense parents, tickets and random masks of a level are trained again from the rewind point,
    with all replicates and rates of an arm as one population. The predictions hold for gradient
    descent: batches of the whole training set, and `optax.sgd`.

    Predictions at the points `start` and `trained`, the end of the run's training: the edge of
    stability, 2/λmax, and, where the curvature is positive definite, the step of fastest
    convergence, 2/(λmin + λmax). Measurements: the training loss and the test accuracy at the end,
    and λmax·η/2 after every evaluation interval (Cohen et al., 2021). Results of non-finite
    curvature are NaN; the node gives the reason under `unmeasured`.

    Args:
      run: a finished run, whose task has an optimizer that reads `hyper["learning_rate"]`.
      rates: the learning rates; by default powers of 2 from 1/32 to 8.
      level: the level of the tickets and random masks; 0 for the last. Dense parents are always
        included.
      examples: number of training examples in the curvature, from the first.
      chunk: number of members trained at a time, which affects the last bits; 0 for all of an arm.

    Returns:
      The sweep of this level.

    Raises:
      AnalysisError: if the run lacks the level or an accuracy, or its optimizer does not read the
        rate.
    """
    if not run.task.reads_rate:
        raise AnalysisError(
            "`run` has a task whose `optimizer` does not read the learning rate; give the task a "
            "function, such as `lambda hyper: optax.sgd(hyper['learning_rate'])`."
        )
    packages = ("analysis.learning_rates", "landscape", "lottery")
    context = RunContext(run, *packages, accuracy=True, on_device=True)
    check_known("level", [level] if level else [], [i for i in context.levels if i])
    level = level or context.levels[-1]
    chosen = tuple(sorted(map(float, rates or RATES)))
    settings: dict[str, Any] = {"rates": chosen, "examples": examples, "chunk": chunk}
    dense = list(read_stored(run.store, run.path, (DENSE,)))
    origins = rewound(run.store, run.info, dense)
    starts = dict(zip((one.replicate for one in dense), origins, strict=True))
    for arm in ARMS:
        on = 0 if arm == DENSE else level
        if mine := list(context.converged(arm, levels=(on,))):
            labels = {"kind": "learning_rates", "arm": arm, "level": on}
            points = [Point(*starts[one.replicate], one.mask) for one in mine]
            measure = partial(_measured, context, mine, points, **settings)
            context.keep(labels, measure, networks=[one.key for one in mine], **settings)
    return Measurement(reports, run)


def _measured(
    context: RunContext,
    networks: Sequence[Stored],
    points: Sequence[Point],
    *,
    rates: tuple[float, ...],
    examples: int,
    chunk: int,
) -> Found:
    gauge = Gauge(context, examples)
    watched: list[list[tuple[float, str]]] = []

    def on_segment(step: int, members: Member, *_: Any) -> None:
        watched.append(gauge.relative_sharpness(members))

    data_keys = replicate_keys(context.run.replicate_seeds, "data")
    members = [
        context.member(point, data_keys[one.replicate], one.replicate, learning_rate=rate)
        for one, point in zip(networks, points, strict=True)
        for rate in rates
    ]
    trained, history = context.train(members, chunk, on_segment)
    shape = (len(networks), len(rates))
    tracked, missing = _in_order(watched, len(history["step"]), shape)
    ends = [Point(one.params, one.state, one.mask) for one in networks]
    predicted = {name: gauge.predictions(at) for name, at in (("start", points), ("trained", ends))}
    arrays = {
        "rates": np.array(rates),
        "step": history["step"],
        "relative_sharpness": tracked,
        **_results(context.task, trained, shape),
        **{
            f"{name}_{part}": np.array([getattr(steps, part) for steps, _ in found])
            for name, found in predicted.items()
            for part in ("edge", "best")
        },
    }
    replicates = [one.replicate for one in networks]
    unmeasured = [
        {"step": int(step), "replicate": replicate, "rate": rate, "reason": reason}
        for step, here in zip(history["step"], missing.tolist(), strict=True)
        for replicate, reasons in zip(replicates, here, strict=True)
        for rate, reason in zip(rates, reasons, strict=True)
        if reason
    ] + [
        {"point": name, "replicate": replicate, "reason": reason}
        for name, found in predicted.items()
        for replicate, (_, reason) in zip(replicates, found, strict=True)
        if reason
    ]
    facts = {"density": networks[0].density, "replicates": replicates, "unmeasured": unmeasured}
    return arrays, facts


def _in_order(
    watched: Sequence[Sequence[tuple[float, str]]], segments: int, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Observations from chunks as numbers and reasons, `[segments, replicates, rates]`."""

    def ordered(values: np.ndarray) -> np.ndarray:
        by_chunk = values.reshape(-1, segments, values.shape[1])
        members = np.concatenate(by_chunk, axis=1)[:, : np.prod(shape)]  # the last chunk is padded
        return members.reshape(segments, *shape)

    numbers = np.array([[number for number, _ in row] for row in watched])
    reasons = np.array([[reason for _, reason in row] for row in watched])
    return ordered(numbers), ordered(reasons)


def _results(task: Any, members: Member, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Training loss and test accuracy at the end, `[replicates, rates]`; NaN if diverged."""

    def one(member: Member) -> dict[str, jax.Array]:
        train, test = (
            evaluate(task.trainer, member.params, member.state, part)
            for part in (task.data.train, task.data.test)
        )
        found = {"train_loss": train["loss"], "test_accuracy": test["accuracy"]}
        return {k: jnp.where(member.alive, v, jnp.nan) for k, v in found.items()}

    found = jax.jit(lambda members: jax.lax.map(one, members))(members)
    return {name: np.asarray(values).reshape(shape) for name, values in found.items()}


class Gauge:
    """Measures curvature of the training loss, with compiled programs shared by all networks."""

    def __init__(self, context: RunContext, examples: int):
        root, task = context.root, context.task
        self._loss = training_loss(task.trainer, keys.stream(root, "curvature"))
        self._batches = first_blocks(task.data.train, examples)
        self._key, self._trees = keys.stream(root, "lanczos", "learning_rates"), context.trees

    def relative_sharpness(self, members: Member) -> list[tuple[float, str]]:
        """`λmax·η/2` of every member of a population, or NaN and the reason."""
        at = (self._batches, self._key)
        return [
            _or_reason(partial(relative_sharpness_at, self._loss, member, *at), math.nan)
            for member in trees.unstack(members)
        ]

    def predictions(self, points: Sequence[Point]) -> list[tuple[landscape.StepSizes, str]]:
        """The step sizes at each point, or NaN and the reason."""
        return [_or_reason(partial(self._step_sizes, *point), NO_STEP_SIZES) for point in points]

    def _step_sizes(self, *point: Named) -> landscape.StepSizes:
        params, state, mask = self._trees(*point)
        operator = hessian_at(self._loss, apply_mask(mask, params), state, mask, self._batches)
        return landscape.step_sizes(landscape.extremes(operator, self._key, steps=96))


def _or_reason(measure: Callable[[], T], otherwise: T) -> tuple[T, str]:
    """A measurement or, if curvature is not finite, a substitute and the reason."""
    try:
        return measure(), ""
    except landscape.NotFiniteError as error:
        return otherwise, str(error)
