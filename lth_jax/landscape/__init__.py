"""Loss landscape: curvature, step sizes and connectivity."""

from lth_jax.landscape.checks import NotFiniteError
from lth_jax.landscape.connectivity import (
    along_line,
    barrier,
    barrier_above_chord,
    filter_direction,
    mix,
    over_plane,
    renew_state,
)
from lth_jax.landscape.ends import Extremes, extremes
from lth_jax.landscape.exact import dense, dense_hessian, eigenvalues
from lth_jax.landscape.operators import (
    Operator,
    empirical_fisher,
    gauss_newton,
    hessian,
    monte_carlo_fisher,
)
from lth_jax.landscape.quadrature import Density, density
from lth_jax.landscape.step_size import StepSizes, at_named_points, relative_sharpness, step_sizes
from lth_jax.landscape.traces import Estimate, diagonal, frobenius_norm, hutch_plus_plus, trace

__all__ = [
    "Density",
    "Estimate",
    "Extremes",
    "NotFiniteError",
    "Operator",
    "StepSizes",
    "along_line",
    "at_named_points",
    "barrier",
    "barrier_above_chord",
    "dense",
    "dense_hessian",
    "density",
    "diagonal",
    "eigenvalues",
    "empirical_fisher",
    "extremes",
    "filter_direction",
    "frobenius_norm",
    "gauss_newton",
    "hessian",
    "hutch_plus_plus",
    "mix",
    "monte_carlo_fisher",
    "over_plane",
    "relative_sharpness",
    "renew_state",
    "step_sizes",
    "trace",
]
