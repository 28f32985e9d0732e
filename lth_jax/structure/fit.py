"""Units that fit budgets: the best ones within limits of size, operations and latency."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lth_jax import text
from lth_jax.legal import check_name, real, shown, whole
from lth_jax.structure.allocation import Problem, Solve, milp
from lth_jax.structure.costs import COSTS, evaluate, terms_of
from lth_jax.structure.groups import Group, Structure
from lth_jax.structure.latency import Counts, Latency
from lth_jax.types import Params


@text.with_short_repr
class Share(NamedTuple):
    """A budget as a fraction of the cost of the dense network.

    Attributes:
      fraction: in (0, 1].
    """

    fraction: float


@text.with_short_repr
class Spent(NamedTuple):
    """The cost of a network without some units.

    Attributes:
      dense: the cost of the dense network.
      limit: the budget.
      predicted: the cost by which the units were chosen.
      actual: the exact cost, or the measured latency; at most `limit`.
    """

    dense: float
    limit: float
    predicted: float
    actual: float


LATENCY = "milliseconds"
_ROUNDS, _SLACK = 8, 0.03
"""The largest number of measured networks, and the share of a latency that may stay unused."""
Cost = Callable[[Counts], Any]
"""Numbers of kept units by group → cost; arrays of counts give arrays."""


def fit(
    structure: Structure,
    params: Params,
    budget: Mapping[str, float | Share],
    scores: Mapping[str, Any],
    *,
    latency: Latency | None = None,
    multiple: int = 1,
    minimum: int | Mapping[str, int] = 1,
    solve: Solve = milp,
) -> tuple[dict[str, np.ndarray], dict[str, Spent]]:
    """Keeps the units of largest summed score whose network fits all budgets.

    `max Σ_kept score` subject to `cost_b(kept) ≤ budget_b` for each b. Within a group the units of
    largest score stay, so only the number of units of each group is searched (`solve`). A number is
    an amount, in the unit of the cost; `Share(0.5)` is half of the dense network's. Costs:

    - `parameters`, `bytes`, `flops`: as `costs` gives them, exact.
    - `milliseconds`: of one call of the compiled small network, as `measure_latency` predicts it.
      The chosen network is measured, and the budget of the prediction is moved, by bisection,
      until the measured latency fits.

    Args:
      structure: from `find_groups`.
      params: arrays or `jax.ShapeDtypeStruct`s of the analysed shapes.
      budget: name of a cost → amount (positive), or `Share`.
      scores: group name → float `[units]`, higher = keep, comparable between groups; from
        `score_units`.
      latency: from `measure_latency`, for `milliseconds`.
      multiple: each group keeps a multiple of it, or all units.
      minimum: the fewest units of each group, or a mapping by group.
      solve: `milp`, or `greedy`, which is faster for thousands of units and scores less.

    Returns:
      `(units, spent)`: group name → bool `[units]`, True = kept, for `compact` and `expand`; and
      the cost of the network for each budget.

    Raises:
      ValueError: a name is unknown, a value out of range, a score is not finite, `latency` is
        missing, a budget is below the least possible cost, or no measured network was fast enough.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 4)), "c": jnp.ones((4, 1))}
    >>> apply = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
    >>> found = find_groups(apply, params, jnp.ones((1, 3)))
    >>> scores = {"a:1": jnp.array([9.0, 1.0, 8.0, 7.0]), "b:1": jnp.array([1.0, 2.0, 3.0, 9.0])}
    >>> units, spent = fit(found, params, {"flops": Share(0.6)}, scores)
    >>> {name: kept.astype(int).tolist() for name, kept in units.items()}
    {'a:1': [1, 0, 1, 1], 'b:1': [0, 0, 1, 1]}
    >>> spent["flops"].dense, spent["flops"].actual
    (64, 34)
    """
    options, ranked = _candidates(structure, scores, multiple, minimum)
    _check_budget(budget, latency)
    costs = _costs(structure, params, budget, latency)
    sizes = {group.name: group.units for group in structure.groups}
    least = {name: int(o[0]) for name, o in zip(sizes, options, strict=True)}
    dense = {name: cost(sizes).item() for name, cost in costs.items()}
    limits = {
        name: b.fraction * dense[name] if isinstance(b, Share) else float(b)
        for name, b in budget.items()
    }
    _check_possible(costs, limits, least)
    values = tuple(np.cumsum(r)[o - 1] for r, o in zip(ranked.values(), options, strict=True))

    def within(aims: Mapping[str, float]) -> dict[str, int]:
        choice = solve(Problem(values, _spending(costs, aims, options, list(sizes))))
        return {name: int(o[k]) for name, o, k in zip(sizes, options, choice, strict=True)}

    if latency is None or LATENCY not in budget:
        kept = within(limits)
    else:
        least_time = costs[LATENCY](least).item()
        kept = _fast_enough(
            lambda aim: within(limits | {LATENCY: aim}), latency, limits[LATENCY], least_time
        )
    predicted = {name: cost(kept).item() for name, cost in costs.items()}
    actual = predicted | ({LATENCY: latency.of(kept)} if latency and LATENCY in costs else {})
    spent = {
        name: Spent(dense[name], limits[name], predicted[name], actual[name]) for name in costs
    }
    return {name: _best(scores[name], n) for name, n in kept.items()}, spent


def _fast_enough(
    within: Callable[[float], dict[str, int]], latency: Latency, limit: float, least: float
) -> dict[str, int]:
    """The counts for the largest predicted milliseconds whose network is measured to fit.

    Args:
      within: milliseconds → counts whose prediction is at most that.
      latency: measures them.
      limit: the budget.
      least: the smallest prediction.
    """
    low, high, best, aim = least, latency.dense, None, min(limit, latency.dense)
    for tries in range(_ROUNDS):
        kept = within(aim)
        actual = latency.of(kept)
        if actual <= limit:
            low, best = aim, kept
            if actual >= (1 - _SLACK) * limit or aim == latency.dense:
                break
        else:
            high = aim
        guess = aim * limit / actual
        aim = guess if tries == 0 and low < guess < high else (low + high) / 2
    found = best or within(least)
    if latency.of(found) > limit:
        raise ValueError(
            f"`budget` at '{LATENCY}' is {limit:.4g}, but the smallest network took "
            f"{latency.of(found):.4g}."
        )
    return found


def _candidates(
    structure: Structure, scores: Mapping[str, Any], multiple: int, minimum: Any
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The possible counts of each group in rising order, and its scores in falling order."""
    groups = structure.groups
    names = [group.name for group in groups]
    if not names:
        raise ValueError("`structure` has no groups, so no unit can be removed.")
    if not whole(1).holds(multiple):
        raise ValueError(f"`multiple` is {shown(multiple)}; it must be {whole(1).words}.")
    fewest = minimum if isinstance(minimum, Mapping) else dict.fromkeys(names, minimum)
    for argument, given in (("minimum", fewest), ("scores", scores)):
        for name in given:
            check_name(argument, name, names)
    if len(scores) < len(names):
        missing = next(name for name in names if name not in scores)
        raise ValueError(f"`scores` lacks the group '{missing}'.")
    options = [_options(group, multiple, fewest.get(group.name, 1)) for group in groups]
    return options, {g.name: _ranked(g, np.asarray(scores[g.name], np.float64)) for g in groups}


def _options(group: Group, multiple: int, fewest: Any) -> np.ndarray:
    legal = whole(1, group.units)
    if not legal.holds(fewest):
        raise ValueError(
            f"`minimum` of '{group.name}' is {shown(fewest)}; it must be {legal.words}."
        )
    counts = np.append(np.arange(multiple, group.units, multiple), group.units)
    return counts[counts >= fewest]


def _ranked(group: Group, scores: np.ndarray) -> np.ndarray:
    if scores.shape != (group.units,):
        raise ValueError(
            f"`scores` at '{group.name}' has shape {scores.shape}; it must be ({group.units},)."
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"`scores` at '{group.name}' has entries that are NaN or infinite.")
    return -np.sort(-scores)


def _best(scores: Any, number: int) -> np.ndarray:
    """The units of largest score, ties by position."""
    kept = np.zeros(len(scores), bool)
    kept[np.argsort(-np.asarray(scores, np.float64), kind="stable")[:number]] = True
    return kept


def _check_budget(budget: Mapping[str, Any], latency: Latency | None) -> None:
    names = [*COSTS, LATENCY]
    if not budget:
        raise ValueError(f"`budget` is empty; it must limit one of: {', '.join(names)}.")
    amount, share = real(0, above=True), real(0, 1, above=True)
    for name, value in budget.items():
        check_name("budget", name, names)
        number, legal = (value.fraction, share) if isinstance(value, Share) else (value, amount)
        if not legal.holds(number):
            raise ValueError(f"`budget` at '{name}' is {shown(value)}; it must be {legal.words}.")
    if LATENCY in budget and latency is None:
        raise ValueError(
            f"`latency` is None, but `budget` has '{LATENCY}'; pass the result of "
            "`measure_latency`."
        )


def _costs(
    structure: Structure, params: Params, budget: Mapping[str, Any], latency: Latency | None
) -> dict[str, Cost]:
    """The cost functions of the budgets."""
    sizes = {group.name: group.units for group in structure.groups}

    def polynomial(name: str) -> Cost:
        terms = terms_of(structure, params, name)
        return lambda kept: np.asarray(evaluate(terms, {n: sizes[n] - kept[n] for n in sizes}))

    found: dict[str, Cost] = {name: polynomial(name) for name in budget if name in COSTS}
    return found | ({LATENCY: latency.predict} if latency and LATENCY in budget else {})


def _check_possible(costs: Mapping[str, Cost], limits: Mapping[str, float], least: Counts) -> None:
    for name, cost in costs.items():
        smallest = cost(least).item()
        if smallest > limits[name]:
            raise ValueError(
                f"`budget` at '{name}' is {limits[name]:.6g}, but the least possible is "
                f"{smallest:.6g}, with {', '.join(f'{n} of {g}' for g, n in least.items())}."
            )


def _spending(
    costs: Mapping[str, Cost],
    limits: Mapping[str, float],
    options: list[np.ndarray],
    names: list[str],
) -> Callable[[np.ndarray], np.ndarray]:
    """`Problem.spent`: the shares of all budgets."""

    def spent(choice: np.ndarray) -> np.ndarray:
        kept = {n: o[choice[..., g]] for g, (n, o) in enumerate(zip(names, options, strict=True))}
        shares = (cost(kept) / limits[name] for name, cost in costs.items())
        return np.stack([np.broadcast_to(s, choice.shape[:-1]) for s in shares], axis=-1)

    return spent
