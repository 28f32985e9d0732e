"""Learning rates predicted from curvature, beside those that training likes best.

    python -m experiments.learning_rates RUN [--rates 0.05,0.1,0.2] [--level 3] [--chunk 16]

For a run trained with `sgd`; with batches of the whole training set and no momentum it is gradient
descent, of which the prediction speaks (`experiments/configs/gradient_descent.py`). The dense
parents, the tickets and the random masks of a level are trained again from the rewind point at
every rate, all replicates and rates of an arm as one population, while their sharpness is measured.

Predicted at the named points `start` and `trained`, the latter where the run's own training ended:
the stability edge 2/λmax, and, where the curvature is positive definite, the step of fastest
convergence 2/(λmin + λmax). Measured: the rate of the smallest training loss at the end. Both are
drawn on the run's page, and so is λmax·η/2 over the steps. Where a curvature is not finite there is
NaN, and the node says why, under `unmeasured`.
"""

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fields import FIELDS
from experiments.finished import (
    CHUNK,
    EXAMPLES,
    Finished,
    check_known,
    exit_code,
    machine_of,
    open_finished,
    parser_for,
    plan_of,
)
from experiments.flags import UserError
from experiments.legal import whole
from lth_jax import keys, landscape, trees
from lth_jax import store as stores
from lth_jax.coding.stored import Stored, read_stored, rewound
from lth_jax.lottery.curvature import (
    first_blocks,
    hessian_at,
    relative_sharpness_at,
    training_loss,
)
from lth_jax.lottery.initial_states import replicate_keys
from lth_jax.lottery.stability import member_at
from lth_jax.population import Member, evaluate, train_population
from lth_jax.report import write_report
from lth_jax.schema import Named, read_entries
from lth_jax.store.analyses import add_analysis
from lth_jax.types import DENSE, TICKET

SOURCES = (
    *(
        f"lth_jax.{room}"
        for room in ("landscape", "lottery", "population", "models", "data", "keys")
    ),
    "experiments.learning_rates",
)
ARMS = (DENSE, TICKET, "random")
RATES = tuple(2.0**power for power in range(-5, 4))
NO_STEP_SIZES = landscape.StepSizes(math.nan, math.nan, math.nan, False)
TrainState = tuple[Named, Named, Named]  # parameters, state, mask
T = TypeVar("T")


class Settings(NamedTuple):
    """What decides a sweep, besides the run.

    Attributes:
      rates: the learning rates, rising.
      examples: training examples in the curvature, the first ones.
      chunk: members trained at a time, which decides their last bits; 0 for an arm's all.
    """

    rates: tuple[float, ...] = RATES
    examples: int = 1000
    chunk: int = 0


def sweep(run: Finished, level: int, settings: Settings) -> str:
    """Trains, or finds in the store, one level's arms at every learning rate.

    Args:
      run: a finished run, trained by `sgd`.
      level: of the tickets and random masks; the dense parents are always there.
      settings: what to train.

    Returns:
      The path of the report's page, drawn anew.

    Raises:
      UserError: if the run was trained otherwise, or lacks the level.
      StoreError: if something in the store is damaged.
    """
    if run.experiment.optimizer.name != "sgd":
        name = run.experiment.optimizer.name
        raise UserError(f"{run.info.run} was trained by '{name}'; the prediction is for 'sgd'.")
    check_known("level", [level], sorted({e.level for e in read_entries(run.info.path)} - {0}))
    identity = {
        **settings._asdict(),
        **run.basis,
        "source": stores.source_fingerprint(*SOURCES),
    }
    dense = list(read_stored(run.store, run.info.path, (DENSE,)))
    starts = {one.replicate: rewound(run.store, run.info, one) for one in dense}
    for arm in ARMS:
        mine = [
            one
            for one in read_stored(run.store, run.info.path, (arm,))
            if one.level == (0 if arm == DENSE else level) and one.diverged_at is None
        ]
        if mine:
            labels = {"kind": "learning_rates", "arm": arm, "level": mine[0].level}
            networks = [one.key for one in mine]
            key = stores.content_key({**identity, **labels, "networks": networks})
            run.store.node(key, partial(_measured, run, mine, starts, settings, labels))
            add_analysis(run.info.path, key, labels)
    return str(write_report(run.store, run.info))


def _measured(
    run: Finished,
    networks: Sequence[Stored],
    starts: dict[int, tuple[Named, Named]],
    settings: Settings,
    labels: Any,
    progress: Any,
) -> stores.Node:
    del progress  # an arm is one node
    task, experiment = run.task, run.experiment
    gauge = Gauge(run, settings.examples)
    points = [(*starts[one.replicate], one.mask) for one in networks]
    members = _population(run, networks, points, settings.rates)
    watched: list[list[tuple[float, str]]] = []

    def on_segment(step: int, members: Member, *_: Any) -> None:
        watched.append(gauge.relative_sharpness(members))

    members, _, history = train_population(
        task.trainer,
        members,
        task.data.train,
        task.data.validation,
        plan=plan_of(members.alive.shape[0], settings.chunk),
        start=experiment.rewind.step,
        stop=experiment.train.steps,
        on_segment=on_segment,
    )
    shape = (len(networks), len(settings.rates))
    tracked, missing = _in_order(watched, len(history["step"]), shape)
    trained = [(one.params, one.state, one.mask) for one in networks]
    predicted = {
        name: gauge.predictions(at) for name, at in (("start", points), ("trained", trained))
    }
    arrays = {
        "rates": np.array(settings.rates),
        "step": history["step"],
        "relative_sharpness": tracked,
        **_results(task, members, shape),
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
        for rate, reason in zip(settings.rates, reasons, strict=True)
        if reason
    ] + [
        {"point": name, "replicate": replicate, "reason": reason}
        for name, found in predicted.items()
        for replicate, (_, reason) in zip(replicates, found, strict=True)
        if reason
    ]
    facts = {"density": networks[0].density, "replicates": replicates, "unmeasured": unmeasured}
    return stores.Node(arrays, {**labels, **facts})


def _in_order(
    watched: Sequence[Sequence[tuple[float, str]]], segments: int, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """What was watched chunk by chunk, as numbers and reasons `[segments, replicates, rates]`."""

    def ordered(values: np.ndarray) -> np.ndarray:
        by_chunk = values.reshape(-1, segments, values.shape[1])
        members = np.concatenate(by_chunk, axis=1)[:, : np.prod(shape)]  # the last one is padded
        return members.reshape(segments, *shape)

    numbers = np.array([[number for number, _ in row] for row in watched])
    reasons = np.array([[reason for _, reason in row] for row in watched])
    return ordered(numbers), ordered(reasons)


def _population(
    run: Finished, networks: Sequence[Stored], points: Sequence[TrainState], rates: Sequence[float]
) -> Member:
    """One member per network and rate, the rates of a network beside each other."""
    task, like = run.task, _shapes(run)
    data_keys = replicate_keys(run.seeds, "data")
    members = []
    for one, (params, state, mask) in zip(networks, points, strict=True):
        here = (trees.from_named(params, like[0]), trees.from_named(state, like[1]))
        on, data_key = trees.from_named(mask, like[0]), data_keys[one.replicate]
        place = (*here, on, data_key, one.replicate)
        members += [
            member_at(task.trainer, {**task.hyper, "learning_rate": rate}, *place) for rate in rates
        ]
    return trees.stack(members)


def _results(task: Any, members: Member, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Training loss and test accuracy at the end, `[replicates, rates]`; NaN where it diverged."""

    def one(member: Member) -> dict[str, jax.Array]:
        train, test = (
            evaluate(task.trainer, member.params, member.state, part)
            for part in (task.data.train, task.data.test)
        )
        found = {"train_loss": train["loss"], "test_accuracy": test["accuracy"]}
        return {k: jnp.where(member.alive, v, jnp.nan) for k, v in found.items()}

    found = jax.jit(lambda members: jax.lax.map(one, members))(members)
    return {name: np.asarray(values).reshape(shape) for name, values in found.items()}


def _shapes(run: Finished) -> tuple[Any, Any]:
    return run.task.shapes


class Gauge:
    """Measures curvature of the training loss; all networks share its programs."""

    def __init__(self, run: Finished, examples: int):
        root = run.seeds.root
        self._loss = training_loss(run.task.trainer, keys.stream(root, "curvature"))
        self._batches = first_blocks(run.task.data.train, examples)
        self._key, self._like = keys.stream(root, "lanczos", "learning_rates"), _shapes(run)

    def relative_sharpness(self, members: Member) -> list[tuple[float, str]]:
        """`λmax·η/2` of every member of a population, or NaN and why it cannot be had."""
        at = (self._batches, self._key)
        return [
            _or_reason(partial(relative_sharpness_at, self._loss, member, *at), math.nan)
            for member in trees.unstack(members)
        ]

    def predictions(self, points: Sequence[TrainState]) -> list[tuple[landscape.StepSizes, str]]:
        """The step sizes at each point, or NaN and why they cannot be had."""
        return [_or_reason(partial(self._step_sizes, *point), NO_STEP_SIZES) for point in points]

    def _step_sizes(self, params: Named, state: Named, mask: Named) -> landscape.StepSizes:
        here = trees.from_named(params, self._like[0]), trees.from_named(state, self._like[1])
        on = trees.from_named(mask, self._like[0])
        masked = jax.tree.map(lambda p, m: np.where(m, p, 0).astype(p.dtype), here[0], on)
        operator = hessian_at(self._loss, masked, here[1], on, self._batches)
        return landscape.step_sizes(landscape.extremes(operator, self._key, steps=96))


def _or_reason(measure: Callable[[], T], otherwise: T) -> tuple[T, str]:
    """A measurement, or what stands for it and the reason where curvature is not finite."""
    try:
        return measure(), ""
    except landscape.NotFiniteError as error:
        return otherwise, str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    parser = parser_for("experiments.learning_rates", str(__doc__))
    parser.add_argument("--rates", default="", help="such as 0.1,0.2; octaves by default")
    parser.option("level", whole(0), 0, "of the tickets; 0: the last")
    parser.option("examples", EXAMPLES, Settings().examples, "of training, in the curvature")
    parser.option("chunk", CHUNK, 0, "members at a time; 0: all")

    def work() -> str:
        arguments = parser.parse_args(argv)
        settings = Settings(_rates(arguments.rates), arguments.examples, arguments.chunk)
        run = open_finished(machine_of(arguments), arguments.run)
        level = arguments.level or max(entry.level for entry in read_entries(run.info.path))
        return sweep(run, level, settings)

    return exit_code(work)


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(part) for part in text.split(",") if part) or RATES
    except ValueError as error:
        raise UserError(f"`--rates` is '{text}'; it must be numbers like 0.1,0.2.") from error
    legal = FIELDS["optimizer.learning_rate"].legal
    if not all(map(legal.holds, rates)) or len(set(rates)) < len(rates):
        raise UserError(f"`--rates` is '{text}'; each must be {legal.words}, and all differ.")
    return tuple(sorted(rates))


if __name__ == "__main__":
    sys.exit(main())
