"""Stable step sizes from a spectrum.

At the same parameters, a subnetwork is never sharper than the whole network (Cauchy interlacing).
Sharpness is therefore compared between parameters: `at_named_points` measures at all of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import text, trees
from lth_jax.landscape.checks import check_boolean
from lth_jax.landscape.ends import Extremes, extremes
from lth_jax.landscape.operators import Operator
from lth_jax.types import Key, Mask, Params


@text.with_short_repr
class StepSizes(NamedTuple):
    """Step sizes of gradient descent on a quadratic with these extreme eigenvalues.

    Attributes:
      edge: `2/λmax`; gradient descent diverges above. Infinite without positive curvature.
      best: `2/(λmin + λmax)`, with the fastest worst-case convergence; NaN unless `definite`.
      rate: `(κ − 1)/(κ + 1)` with `κ = λmax/λmin`, the factor of the error per step; NaN unless
        `definite`.
      definite: whether `λmin` exceeds its error bound and the bounds have converged. Otherwise
        there is no best step: the quadratic is unbounded below or flat.
    """

    edge: float
    best: float
    rate: float
    definite: bool


def step_sizes(ends: Extremes) -> StepSizes:
    """The step sizes that a spectrum predicts (Polyak, 1987, section 1.4).

    Without a smallest eigenvalue, only the edge of stability is determined.

    Args:
      ends: from `extremes`.

    >>> import numpy as np
    >>> one, three, none = np.array([1.0]), np.array([3.0]), np.array([0.0])
    >>> step_sizes(Extremes(three, one, none, none, 2, 0, None, True)).best
    0.5
    """
    top = float(ends.largest[0])
    bottom = float(ends.smallest[0]) if ends.smallest.size else float("nan")
    edge = 2 / top if top > 0 else float("inf")
    definite = ends.converged and ends.smallest.size and bottom > float(ends.smallest_bounds[0])
    if not definite:
        return StepSizes(edge, float("nan"), float("nan"), False)
    return StepSizes(edge, 2 / (bottom + top), (top - bottom) / (top + bottom), True)


def relative_sharpness(ends: Extremes, learning_rate: float) -> float:
    """`λmax · η / 2`: 1 at the edge of stability (Cohen et al., 2021).

    Raises:
      ValueError: if `learning_rate` is not positive.

    >>> import numpy as np
    >>> one, none = np.array([1.0]), np.array([0.0])
    >>> relative_sharpness(Extremes(one, one, none, none, 1, 0, None, True), 2.0)
    1.0
    """
    if not learning_rate > 0:
        raise ValueError(f"`learning_rate` must be positive, got {learning_rate}.")
    return float(ends.largest[0]) * learning_rate / 2


def at_named_points(
    build: Callable[[Params, Mask | None], Operator],
    params: Params,
    mask: Mask,
    key: Key,
    *,
    retrained: Params | None = None,
    measure: Callable[[Operator, Key], Any] = extremes,
) -> dict[str, Any]:
    """Measures the curvature at the dense, masked and retrained parameters of a ticket.

    Args:
      build: `(params, mask) -> Operator`, for example
        `lambda p, m: hessian(loss, p, batches, mask=m)`.
      params: the dense network's parameters θ.
      mask: the ticket's mask m.
      key: key of the measurement, the same at each point.
      retrained: the ticket's parameters after training with m.
      measure: `(operator, key) -> result`.

    Returns:
      `{"dense": θ with all weights, "dense_on_mask": θ on the support, "masked": θ⊙m on the
      support, "retrained": likewise}`, the last if given. "dense_on_mask" is a principal submatrix
      of "dense"; only "masked" and "retrained" can be sharper than "dense".

    Raises:
      ValueError: the trees differ in structure, or `retrained` has nonzero weights outside the
        mask.
      TypeError: if a leaf of `mask` is not boolean.

    >>> from lth_jax.landscape.operators import hessian
    >>> loss = lambda w, x: jnp.mean(x) * (w[0] - w[1]) ** 4
    >>> found = at_named_points(
    ...     lambda p, m: hessian(loss, p, [jnp.ones(1)], mask=m),
    ...     jnp.array([2.0, 1.0]), jnp.array([True, False]), jax.random.key(0),
    ... )
    >>> {name: ends.largest.round(4).tolist() for name, ends in found.items()}
    {'dense': [24.0], 'dense_on_mask': [12.0], 'masked': [48.0]}
    """
    trees.check_same_structure("mask", mask, "params", params)
    check_boolean("mask", mask)
    ticket = _masked(mask, params)
    points = {"dense": (params, None), "dense_on_mask": (params, mask), "masked": (ticket, mask)}
    if retrained is not None:
        _check_on_mask(retrained, params, mask)
        points["retrained"] = (retrained, mask)
    return {name: measure(build(point, on), key) for name, (point, on) in points.items()}


def _masked(mask: Mask, params: Params) -> Params:
    return jax.tree.map(lambda m, p: jnp.where(m, p, jnp.zeros_like(p)), mask, params)


def _check_on_mask(retrained: Params, params: Params, mask: Mask) -> None:
    trees.check_same_structure("retrained", retrained, "params", params)
    off = jax.tree.map(lambda m, p: bool(jnp.any(jnp.where(m, False, p != 0))), mask, retrained)
    wrong = [name for name, any_off in trees.to_named(off).items() if any_off]
    if wrong:
        raise ValueError(f"`retrained` has weights that `mask` prunes, at '{wrong[0]}'.")
