"""Curvature of a finished run's networks, computed into the store at points that are named.

    python -m experiments.spectrum RUN [--levels 0,3,7] [--points masked,retrained] [--arms ticket]

Points: `dense`, the trained parent θ; of a ticket or control with mask m, `dense_on_mask`, its
parent's θ with the rows and columns of m alone; `masked`, θ⊙m; `retrained`, where its own training
ended; and `start`, where the training of a dense parent or a ticket began. A subnetwork is never
sharper than the whole at the same point, so no number here goes without its point.

For each network and point: the largest and smallest eigenvalues of the Hessian of the training loss
with bounds, and its spectral density. One loss surface is drawn for each arm. `lth spectrum RUN`
shows what is there; a command that was cut off continues. A point where the loss or its curvature
is not finite is left out, with a line that says so.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.finished import (
    EXAMPLES,
    Finished,
    check_known,
    exit_code,
    machine_of,
    open_finished,
    parser_for,
    whole_numbers,
)
from experiments.flags import UserError
from experiments.legal import one_of, whole
from lth_jax import keys, landscape, trees
from lth_jax import store as stores
from lth_jax.coding.stored import Stored, read_stored, rewound
from lth_jax.lottery import SAME_MASK
from lth_jax.lottery.curvature import first_blocks, hessian_at, mean_over, training_loss
from lth_jax.report import write_report
from lth_jax.report.figures import spread
from lth_jax.schema import Named, read_entries
from lth_jax.store.analyses import add_analysis
from lth_jax.types import DENSE, TICKET

SOURCES = (
    *(
        f"lth_jax.{room}"
        for room in ("landscape", "lottery", "population", "models", "data", "trees", "keys")
    ),
    "experiments.spectrum",
)
POINTS = ("dense", "start", "dense_on_mask", "masked", "retrained")
MODES = ("train", "evaluate")
EDGE = 1.0  # the surface goes so many filter norms from its centre


class Settings(NamedTuple):
    """What decides a spectrum, besides the network and the point.

    Attributes:
      examples: training examples in the loss, the first ones.
      mode: `"train"`: BatchNorm normalises by each block's own statistics and dropout is drawn from
        one fixed key; `"evaluate"`: as in testing, with the network's running statistics.
      k: eigenvalues sought at each end.
      steps: Lanczos steps from each start at the most.
      probes: start vectors of the density.
      surface: points a side of the loss surface of each arm's first replicate; 0 for none.
    """

    examples: int = 1000
    mode: str = "train"
    k: int = 12
    steps: int = 64
    probes: int = 4
    surface: int = 25


SETTINGS = {
    "examples": (EXAMPLES, "training examples in the loss, the first ones"),
    "mode": (one_of(MODES), "of BatchNorm and dropout"),
    "k": (whole(1, 10_000), "eigenvalues sought at each end"),
    "steps": (whole(1, 100_000), "Lanczos steps from each start at the most"),
    "probes": (whole(1, 10_000), "start vectors of the density"),
    "surface": (whole(0, 1000), "points a side of the loss surface; 0: none"),
}
"""Legal values of the options that set `Settings`, and what they mean."""


class Chosen(NamedTuple):
    """What is measured: levels, arms, and points."""

    levels: Sequence[int]
    arms: Sequence[str]
    points: Sequence[str]


class MaskedNetwork(NamedTuple):
    """One network at one point: parameters, state, and the mask of its support, by leaf name."""

    params: Named
    state: Named
    mask: Named


def places(
    one: Stored, dense: Stored, start: tuple[Named, Named] | None, arms: Collection[str]
) -> dict[str, MaskedNetwork]:
    """The points of a network, by name.

    Args:
      one: the network.
      dense: its replicate's dense parent, trained.
      start: the parameters and the state that it was trained from, if they are known.
      arms: those of the run; a control with the mask of another arm leaves that arm the points
        that are the parent's.
    """
    found = {} if start is None else {"start": MaskedNetwork(*start, one.mask)}
    end = MaskedNetwork(one.params, one.state, one.mask)
    if one.arm == DENSE:
        return found | {"dense": end}
    if SAME_MASK.get(one.arm) in arms:
        return {"retrained": end}
    masked = {name: leaf * one.mask[name] for name, leaf in dense.params.items()}
    return found | {
        "dense_on_mask": MaskedNetwork(dense.params, dense.state, one.mask),
        "masked": MaskedNetwork(masked, dense.state, one.mask),
        "retrained": end,
    }


class Instrument:
    """What all measurements on a run share: its loss, its examples, and two compiled programs."""

    def __init__(self, run: Finished, settings: Settings):
        self._settings = settings
        self._root = run.seeds.root
        self._like = run.task.shapes
        dropout = keys.stream(self._root, "curvature") if settings.mode == "train" else None
        self._loss = training_loss(run.task.trainer, dropout)
        self._batches = first_blocks(run.task.data.train, settings.examples)
        mean = mean_over(self._loss, self._batches)
        self._plane = jax.jit(
            lambda params, state, first, second, steps: landscape.over_plane(
                lambda p: mean(p, state), params, first, second, steps, steps
            )
        )

    def spectrum(self, place: MaskedNetwork) -> stores.Node:
        """Both ends of the spectrum and its density."""
        settings = self._settings
        operator = hessian_at(self._loss, *self._trees(place), self._batches)
        k = min(settings.k, operator.size)
        steps = max(settings.steps, 2 * k)
        start, probes = keys.stream(self._root, "lanczos"), keys.stream(self._root, "density")
        ends = landscape.extremes(operator, start, k=k, steps=steps)
        found = landscape.density(operator, probes, probes=settings.probes, steps=settings.steps)
        numbers = ends._asdict() | found._asdict()
        facts = ("size", "steps", "rank", "converged", "counting", "width")
        arrays = {name: value for name, value in numbers.items() if name not in facts}
        meta = {name: numbers[name] for name in facts}
        return stores.Node(arrays, meta | {"collapsed": ends.collapsed})

    def surface(self, place: MaskedNetwork) -> stores.Node:
        """The loss on a grid along two random directions, normalised filter by filter."""
        params, state, mask = self._trees(place)
        first, second = (
            landscape.filter_direction(keys.stream(self._root, "surface", i), params, mask)
            for i in (1, 2)
        )
        steps = np.linspace(-EDGE, EDGE, self._settings.surface)
        losses = self._plane(params, state, first, second, steps)
        return stores.Node({"xs": steps, "ys": steps, "loss": np.asarray(losses)}, {})

    def _trees(self, place: MaskedNetwork) -> tuple[Any, Any, Any]:
        params, state = self._like
        return (
            trees.from_named(place.params, params),
            trees.from_named(place.state, state),
            trees.from_named(place.mask, params),
        )


def measure(run: Finished, settings: Settings, chosen: Chosen) -> str:
    """Computes, or finds in the store, all spectra and surfaces that are asked for.

    Args:
      run: the run.
      settings: how to measure.
      chosen: what to measure.

    Returns:
      The path of the report's page, drawn anew.

    Raises:
      StoreError: if something in the store is damaged.
    """
    instrument = Instrument(run, settings)
    identity = {
        **settings._asdict(),
        **run.basis,
        "source": stores.source_fingerprint(*SOURCES),
    }
    for one, found in _networks(run, chosen):
        about = {"arm": one.arm, "level": one.level, "replicate": one.replicate}
        tasks = [("spectrum", point) for point in chosen.points if point in found]
        if settings.surface and one.replicate == 0:
            tasks.append(("surface", "dense" if one.arm == DENSE else "retrained"))
        for kind, point in tasks:
            labels = {"kind": kind, **about, "point": point}
            key = stores.content_key({**identity, "network": one.key, **labels})
            look = partial(_looked, getattr(instrument, kind), found[point], labels, one.density)
            try:
                run.store.node(key, look)
            except landscape.NotFiniteError as error:
                print(f"left out: {_told(labels)}: {error}", file=sys.stderr, flush=True)
                continue
            add_analysis(run.info.path, key, labels)
    return str(write_report(run.store, run.info))


def _looked(
    look: Callable[[MaskedNetwork], stores.Node],
    place: MaskedNetwork,
    labels: Any,
    density: float,
    progress: Any,
) -> stores.Node:
    del progress  # a node takes seconds
    try:
        arrays, meta = look(place)
    except landscape.NotFiniteError:
        raise
    except ValueError as error:
        raise UserError(f"No {_told(labels)}: {error}") from error
    return stores.Node(arrays, {**labels, "density": density, **meta})


def _told(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in labels.items())


def _networks(run: Finished, chosen: Chosen) -> Iterator[tuple[Stored, dict[str, MaskedNetwork]]]:
    """Every converged network of the chosen levels and arms, and its points."""
    parents = {one.replicate: one for one in read_stored(run.store, run.info.path, (DENSE,))}
    arms = {arm for entry in read_entries(run.info.path) for arm in entry.arms}
    for one in read_stored(run.store, run.info.path, tuple(chosen.arms)):
        dense = parents[one.replicate]
        if one.level in chosen.levels and {one.diverged_at, dense.diverged_at} == {None}:
            start = rewound(run.store, run.info, one) if one.arm in (DENSE, TICKET) else None
            yield one, places(one, dense, start, arms)


def choose(run: Finished, arguments: argparse.Namespace) -> Chosen:
    """The levels, arms and points to measure: what was asked for, or a few levels and all else."""
    manifest = read_entries(run.info.path)
    levels = sorted({entry.level for entry in manifest})
    arms = list(dict.fromkeys(arm for entry in manifest for arm in entry.arms))
    chosen = Chosen(
        levels=whole_numbers("levels", arguments.levels) or (0, *spread(levels[1:], 3)),
        arms=tuple(filter(None, arguments.arms.split(","))) or tuple(arms),
        points=tuple(filter(None, arguments.points.split(","))) or POINTS,
    )
    every: dict[str, Sequence[Any]] = {"levels": levels, "arms": arms, "points": POINTS}
    for name, known in every.items():
        check_known(name, getattr(chosen, name), known)
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    parser = parser_for("experiments.spectrum", str(__doc__))
    parser.add_argument("--levels", default="", help="such as 0,3,7; dense and three by default")
    parser.add_argument("--arms", default="", help="such as ticket,random; all by default")
    parser.add_argument("--points", default="", help=f"of {', '.join(POINTS)}; all by default")
    for name, (legal, text) in SETTINGS.items():
        parser.option(name, legal, getattr(Settings(), name), text)

    def work() -> str:
        arguments = parser.parse_args(argv)
        settings = Settings(*(getattr(arguments, name) for name in Settings._fields))
        run = open_finished(machine_of(arguments), arguments.run)
        return measure(run, settings, choose(run, arguments))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
