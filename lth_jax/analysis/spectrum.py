"""Curvature of a run's networks at named points: Hessian spectra and loss surfaces."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from lth_jax import keys, landscape
from lth_jax.analysis.arguments import EXAMPLES, LEVELS, NAMES, AnalysisError, check_known, checked
from lth_jax.analysis.measurement import Found, Measurement, Point, RunContext, about, named
from lth_jax.coding.stored import Named, Stored, masked, rewound
from lth_jax.legal import Legal, whole
from lth_jax.lottery import SAME_MASK, Result
from lth_jax.lottery.curvature import first_blocks, hessian_at, mean_over, training_loss
from lth_jax.report import spectra
from lth_jax.report.plotting import spread
from lth_jax.types import DENSE, TICKET

LOG = logging.getLogger(__name__)

POINTS = ("dense", "start", "dense_on_mask", "masked", "retrained")
MODES = ("train", "evaluate")
EDGE = 1.0  # from the centre of the surface to its edge, in filter norms


class Settings(NamedTuple):
    """Settings of the measurement of a spectrum; see `spectrum`."""

    examples: int
    mode: str
    k: int
    steps: int
    probes: int
    surface: int


@checked(
    levels=LEVELS,
    arms=NAMES,
    points=NAMES,
    examples=EXAMPLES,
    mode=Legal(f"one of: {', '.join(MODES)}", MODES.__contains__, MODES),
    k=whole(1, 10_000),
    steps=whole(1, 100_000),
    probes=whole(1, 10_000),
    surface=whole(0, 1000),
)
def spectrum(
    run: Result,
    *,
    levels: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
    points: Sequence[str] | None = None,
    examples: int = 1000,
    mode: str = "train",
    k: int = 12,
    steps: int = 64,
    probes: int = 4,
    surface: int = 25,
) -> Measurement:
    """Measures Hessian spectra of the training loss on networks' own weights, and loss surfaces.

    Points: `"dense"`, the trained parent θ; of a ticket or control with mask m, `"dense_on_mask"`,
    its parent's θ with only the rows and columns of m; `"masked"`, θ⊙m; `"retrained"`, where its
    own training ended; and `"start"`, where the training of a dense parent or a ticket began. At
    the same point a subnetwork is never sharper than the whole network, so every number states its
    point.

    The ends of the spectrum are computed with Lanczos iterations and bounds, its density with
    stochastic Lanczos quadrature (Ghorbani, Krishnan and Xiao, 2019), and the surface along random
    filter-normalised directions (Li et al., 2018). A point with a non-finite loss or curvature is
    omitted and logged.

    Args:
      run: a finished run.
      levels: by default 0 and three others.
      arms: such as "ticket"; all by default.
      points: all by default.
      examples: number of training examples in the loss, from the first.
      mode: mode of BatchNorm and dropout. "train": the statistics of each block, and dropout with
        one fixed key; "evaluate": running statistics, and no dropout.
      k: number of eigenvalues at each end.
      steps: largest number of Lanczos steps from each start.
      probes: number of start vectors of the density.
      surface: points per side of the loss surface of each arm's first replicate; 0 for none.

    Returns:
      All spectra of the run, including those of earlier calls. `records.spectra` holds the arrays.

    Raises:
      AnalysisError: if a level, an arm or a point does not exist, or a spectrum cannot be computed
        with these settings.
    """
    context = RunContext(run, "analysis.spectrum", "landscape", "lottery", on_device=True)
    known = {"levels": context.levels, "arms": context.arms, "points": POINTS}
    levels = levels or (0, *spread(context.levels[1:], 3))
    arms, points = arms or context.arms, points or POINTS
    for name, given in {"levels": levels, "arms": arms, "points": points}.items():
        check_known(name, given, known[name])
    settings = Settings(examples, mode, k, steps, probes, surface)
    instrument = Instrument(context, settings)
    for one, found in _networks(context, levels, arms):
        wanted = [("spectrum", point) for point in points if point in found]
        if surface and one.replicate == 0:
            wanted.append(("surface", "dense" if one.arm == DENSE else "retrained"))
        for kind, point in wanted:
            labels = {"kind": kind, **about(one), "point": point}
            look = partial(_look, getattr(instrument, kind), found[point], one.density)
            try:
                context.keep(labels, look, network=one.key, **settings._asdict())
            except landscape.NotFiniteError as error:
                LOG.warning("omitted: %s: %s", named(labels), error)
            except ValueError as error:
                raise AnalysisError(f"No {named(labels)}: {error}") from error
    return Measurement(spectra, run)


def places(
    one: Stored, dense: Stored, start: tuple[Named, Named] | None, arms: Collection[str]
) -> dict[str, Point]:
    """The points of a network, by name.

    Args:
      one: the network.
      dense: its replicate's dense parent, trained.
      start: the parameters and state from which it was trained, if known.
      arms: the run's arms. The parent's points under a mask are listed only for the arm of the
        mask, not for controls that share it.
    """
    found = {} if start is None else {"start": Point(*start, one.mask)}
    end = Point(one.params, one.state, one.mask)
    if one.arm == DENSE:
        return found | {"dense": end}
    if SAME_MASK.get(one.arm) in arms:
        return {"retrained": end}
    masked = {name: leaf * one.mask[name] for name, leaf in dense.params.items()}
    return found | {
        "dense_on_mask": Point(dense.params, dense.state, one.mask),
        "masked": Point(masked, dense.state, one.mask),
        "retrained": end,
    }


class Instrument:
    """Shared by all measurements on a run: loss, examples, and two compiled programs."""

    def __init__(self, context: RunContext, settings: Settings):
        self._settings, self._root, self._trees = settings, context.root, context.trees
        dropout = keys.stream(self._root, "curvature") if settings.mode == "train" else None
        self._loss = training_loss(context.task.trainer, dropout)
        self._batches = first_blocks(context.task.data.train, settings.examples)
        mean = mean_over(self._loss, self._batches)
        self._plane = jax.jit(
            lambda params, state, first, second, steps: landscape.over_plane(
                lambda p: mean(p, state), params, first, second, steps, steps
            )
        )

    def spectrum(self, place: Point) -> Found:
        """Both ends of the spectrum and its density: arrays and facts."""
        settings = self._settings
        operator = hessian_at(self._loss, *self._trees(*place), self._batches)
        k = min(settings.k, operator.size)
        steps = max(settings.steps, 2 * k)
        start, probes = keys.stream(self._root, "lanczos"), keys.stream(self._root, "density")
        ends = landscape.extremes(operator, start, k=k, steps=steps)
        found = landscape.density(operator, probes, probes=settings.probes, steps=settings.steps)
        numbers = ends._asdict() | found._asdict()
        facts = ("size", "steps", "rank", "converged", "counting", "width")
        arrays = {name: value for name, value in numbers.items() if name not in facts}
        return arrays, {name: numbers[name] for name in facts} | {"collapsed": ends.collapsed}

    def surface(self, place: Point) -> Found:
        """The loss on a grid along two random filter-normalised directions."""
        params, state, mask = self._trees(*place)
        first, second = (
            landscape.filter_direction(keys.stream(self._root, "surface", i), params, mask)
            for i in (1, 2)
        )
        steps = np.linspace(-EDGE, EDGE, self._settings.surface)
        losses = self._plane(params, state, first, second, steps)
        return {"xs": steps, "ys": steps, "loss": np.asarray(losses)}, {}


def _look(look: Callable[[Point], Found], place: Point, density: float) -> Found:
    arrays, facts = look(place)
    return arrays, {"density": density, **facts}


def _networks(
    context: RunContext, levels: Collection[int], arms: Sequence[str]
) -> Iterator[tuple[Stored, dict[str, Point]]]:
    """Yields the converged networks of levels and arms whose parent converged, with points."""
    run, parents = context.run, {one.replicate: one for one in context.converged(DENSE)}
    points = rewound(run.store, run.info, list(parents.values()))
    starts = dict(zip(parents, points, strict=True))
    for one in context.converged(*arms, levels=levels):
        if one.replicate in parents:
            has_start = one.arm in (DENSE, TICKET)
            start = masked(starts[one.replicate], one.mask) if has_start else None
            yield one, places(one, parents[one.replicate], start, context.arms)
