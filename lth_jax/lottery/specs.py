"""Specs of experiments: iterative pruning, one-shot pruning, sparse training."""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import jax

from lth_jax import text
from lth_jax.data.checks import check_integer
from lth_jax.layouts import Layouts
from lth_jax.legal import nearest, shown
from lth_jax.lottery.controls import Control, named
from lth_jax.lottery.rewind import Rewind
from lth_jax.lottery.spec import Ladder, Reconstruct
from lth_jax.population.task import Task
from lth_jax.pruning import criteria, scopes
from lth_jax.pruning.checks import check_fraction
from lth_jax.pruning.granularity import Granularity, weights
from lth_jax.pruning.iterative import in_rounds
from lth_jax.pruning.masks import ones_like, prunable_leaves
from lth_jax.pruning.methods import Builder, Method
from lth_jax.pruning.prune import check_parts, prune
from lth_jax.pruning.schedules import geometric
from lth_jax.types import DENSE, TICKET, Prunable


class LevelError(ValueError):
    """The density of a level is impossible.

    Attributes:
      level: the level.
      reason: the reason, a sentence.
    """

    def __init__(self, level: int, reason: str):
        super().__init__(f"Level {level} is impossible: {reason}")
        self.level, self.reason = level, reason


@text.with_short_repr
@dataclass(frozen=True, eq=False)
class Spec:
    """The pruning levels of an experiment; made by `imp`, `one_shot` or `sparse_training`.

    Attributes:
      densities: the density of each level from 1 on: a number, a tree of numbers, or None, which
        keeps the previous mask.
      criterion: scores the weights (`lth_jax.criteria`).
      scope: which scores compete (`lth_jax.globally`, …).
      granularity: which weights are removed together (`lth_jax.granularity`).
      rewind: what is rewound between levels.
      score_step: the step whose parameters the criterion scores; None for the last.
      rounds: rounds of scoring and pruning at each level (`lth_jax.pruning.iterative.in_rounds`).
      batches: a sequence of batches of training examples, for a criterion that needs them and for
        `reconstruct`. A batch is what the criterion's loss takes; `reconstruct` needs pairs
        `(inputs, targets)`, of which it uses the inputs.
      prunable: which leaves may be pruned, a tree of booleans; kernels by default.
      layouts: the meaning of the kernels' axes; by default derived from the model's framework.
      methods: level -> function of `prunable`, `layouts`, `scope` and `steps` that makes a method.
      reconstruct: fits the trained weights to each new mask on `batches`, or chooses the mask: an
        `lth_jax.reconstruct.Reconstruction`.
    """

    densities: Sequence[Any]
    criterion: criteria.Criterion = field(default_factory=criteria.magnitude)
    scope: scopes.Scope = field(default_factory=scopes.globally)
    granularity: Granularity = weights
    rewind: Rewind = field(default_factory=Rewind)
    score_step: int | None = None
    rounds: int = 1
    batches: Any = None
    prunable: Prunable | None = None
    layouts: Layouts | None = None
    methods: Mapping[int, Builder] = field(default_factory=dict)
    reconstruct: Reconstruct | None = None


def imp(levels: int = 7, rate: float = 0.2, *, rewind: int | Rewind = 0, **parts: Any) -> Spec:
    """Iterative magnitude pruning (Frankle and Carbin, 2019): rounds of train, prune, rewind.

    Level i keeps the fraction `(1 − rate)^i` of the prunable weights.

    Args:
      levels: rounds of train-prune-rewind after the dense training.
      rate: the fraction of the remaining weights that each round removes, in (0, 1).
      rewind: the step to which weights and schedule return, or a `Rewind`.
      **parts: further fields of `Spec`, such as `criterion`, `scope` and `granularity`.

    Raises:
      ValueError: an argument is out of range.
      TypeError: an argument has the wrong type, or there is no such field.

    >>> [round(d, 3) for d in imp(levels=3).densities]
    [0.8, 0.64, 0.512]
    """
    check_integer("levels", levels, 0)
    density = geometric(rate)
    return _spec([density(i) for i in range(1, levels + 1)], rewind=_rewind(rewind), **parts)


def one_shot(density: float, *, rewind: int | Rewind = 0, **parts: Any) -> Spec:
    """One round: train, prune to `density`, rewind, train.

    With `score_step=0` and a criterion for initial weights (`criteria.snip`, `criteria.grasp`,
    `criteria.synflow`) this is pruning at initialisation (Lee et al., 2019).

    Args:
      density: the fraction of the prunable weights that is kept, in (0, 1].
      rewind: the step to which weights and schedule return, or a `Rewind`.
      **parts: further fields of `Spec`.

    Raises:
      ValueError: `density` is out of range.
      TypeError: an argument has the wrong type, or there is no such field.

    >>> one_shot(0.1).densities
    [0.1]
    """
    return _spec([check_fraction("density", density)], rewind=_rewind(rewind), **parts)


def sparse_training(
    method: Builder, density: float, *, retrain: bool = False, **parts: Any
) -> Spec:
    """Sparse training from the initial weights, in addition to dense networks.

    Level 1 trains with the method. It starts from a random mask of exactly `density`, or dense if
    the method starts dense. The final mask is a ticket.

    Args:
      method: makes the method, for instance `lth_jax.methods.rigl` or
        `functools.partial(methods.rigl, fraction=0.5)`; called with `prunable`, `layouts`, `scope`
        and `steps`.
      density: the final density of the prunable weights.
      retrain: whether level 2 trains the initial weights again under the fixed final mask, to test
        whether it is a winning ticket.
      **parts: further fields of `Spec`. `criterion`, `criteria.random()` by default, determines the
        initial mask of level 1; `scope` is `erk()` by default.

    Raises:
      ValueError: `density` is out of range.
      TypeError: an argument has the wrong type, or there is no such field.

    >>> from lth_jax.pruning import methods
    >>> sparse_training(methods.METHODS["rigl"], 0.1, retrain=True).densities
    [0.1, None]
    """
    parts = {"criterion": criteria.random(), "scope": scopes.erk(), **parts}
    densities = [check_fraction("density", density), *([None] if retrain else [])]
    return _spec(densities, methods={1: method}, **parts)


def _spec(densities: Sequence[Any], **parts: Any) -> Spec:
    """A spec; raises `TypeError` for a field that it lacks, or a part of the wrong type."""
    names = [one.name for one in fields(Spec)]
    for name in parts:
        if name not in names:
            raise TypeError(nearest("a field of `lottery.Spec`", name, names))
    spec = Spec(densities, **parts)
    check_parts(spec.criterion, spec.scope, spec.granularity)
    return spec


def make_ladder(
    task: Task,
    spec: Spec,
    controls: Iterable[str] | Mapping[str, Control] = (),
    control_levels: Iterable[int] | None = None,
) -> Ladder:
    """Makes the ladder of a spec on a task: counts, pruner, methods and controls.

    Args:
      task: network, data and training.
      spec: the levels.
      controls: names in `lottery.CONTROLS`, or a mapping of names to controls.
      control_levels: the levels at which controls are trained; None for all.

    Raises:
      LevelError: the density of a level is impossible.
      ValueError: the spec does not fit the parameters, a level of `control_levels` does not exist,
        or a control has the name of an arm that every ladder has.
      TypeError: an argument has the wrong type.
    """
    check_types(task, spec)
    trained = controls if isinstance(controls, Mapping) else named(controls)
    for name in trained:
        if name in (DENSE, TICKET):
            raise ValueError(
                f"`controls` includes {name!r}, which is the name of the "
                f"{'dense networks' if name == DENSE else 'tickets'}; give the control another "
                "name."
            )
    levels = _control_levels(control_levels, len(spec.densities))
    pruner = in_rounds(prune(spec.criterion, spec.scope, spec.granularity), spec.rounds)
    params, _ = task.shapes
    prunable = prunable_leaves(params) if spec.prunable is None else spec.prunable
    find, layouts = task.trainer.model.layouts, spec.layouts
    if layouts is None:
        layouts = find(task.example) if find else {}
    options: dict[str, Any] = {"prunable": prunable, "layouts": layouts}
    if spec.reconstruct is not None and not hasattr(spec.reconstruct, "chooses"):
        raise TypeError(
            f"`reconstruct` is {spec.reconstruct!r}; it must be a `Reconstruction`, such as "
            "`lth.reconstruct.Reconstruction(lth.reconstruct.alps())`."
        )
    if spec.reconstruct and spec.reconstruct.chooses and spec.granularity is not weights:
        raise ValueError(
            "`reconstruct` with the method's mask chooses single weights, but `granularity` is "
            f"'{spec.granularity.name}'; take the criterion's mask."
        )
    # Raises for axes without a layout now, not after the dense networks have trained.
    mask = jax.eval_shape(ones_like, params)
    jax.eval_shape(lambda p, m: spec.granularity.to_units(p, m, **options).scores, params, mask)
    return Ladder(
        counts=[
            _count(spec.scope, level, params, density, **options)
            for level, density in enumerate(spec.densities, start=1)
        ],
        pruner=pruner,
        prunable=prunable,
        rewind=spec.rewind,
        controls=trained,
        stop=task.steps,
        score_step=task.steps if spec.score_step is None else spec.score_step,
        control_levels=levels,
        batches=spec.batches,
        layouts=layouts,
        methods=_methods(spec, task.steps - spec.rewind.step, **options),
        reconstruct=spec.reconstruct,
    )


def check_types(task: Any, spec: Any) -> None:
    """Checks the first two arguments of `run` and `make_ladder`.

    Raises:
      TypeError: `task` is not a `Task`, or `spec` not a `Spec`.
    """
    if not isinstance(task, Task):
        raise TypeError(
            f"`task` is {shown(task)}; it must be a `lottery.Task`: network, data and training."
        )
    if not isinstance(spec, Spec):
        raise TypeError(
            f"`spec` is {shown(spec)}; it must be a `lottery.Spec`, such as `lottery.imp()`."
        )


def _control_levels(given: Any, last: int) -> frozenset[int] | None:
    """The levels at which controls are trained; raises for levels that do not exist."""
    if given is None:
        return None
    allowed = f"of levels 1 … {last}" if last else "without entries, since there is no level"
    words = f"it must be None, for all, or a collection {allowed}"
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"`control_levels` is {shown(given)}; {words}.")
    levels = list(given)
    for level in levels:
        if isinstance(level, bool) or not isinstance(level, numbers.Integral):
            raise TypeError(f"`control_levels` includes {shown(level)}; {words}.")
        if not 1 <= int(level) <= last:
            raise ValueError(f"`control_levels` includes {shown(level)}; {words}.")
    return frozenset(map(int, levels))


def _count(scope: scopes.Scope, level: int, params: Any, density: Any, **options: Any) -> Any:
    if density is None:
        return None
    try:
        return scope.counts(params, density, **options)
    except ValueError as error:
        raise LevelError(level, str(error)) from error


def _methods(spec: Spec, steps: int, **options: Any) -> dict[int, Method]:
    """The methods by level; levels with the same builder share method and program."""
    made = {make: make(scope=spec.scope, steps=steps, **options) for make in spec.methods.values()}
    return {level: made[make] for level, make in spec.methods.items()}


def _rewind(rewind: int | Rewind) -> Rewind:
    return rewind if isinstance(rewind, Rewind) else Rewind(step=rewind)
