"""Analyses of finished runs: what is measured of the networks in a store.

Each takes a `lottery.Result`, from `lottery.run` or `Result.open`, keeps what it measures in the
run's store, and returns it as a `Measurement`. The same call finds it there again, and
`Result.report` draws it on the run's page.
"""

from lth_jax.analysis.arguments import AnalysisError
from lth_jax.analysis.behaviour import behaviour
from lth_jax.analysis.frontier import frontier
from lth_jax.analysis.latency import latency
from lth_jax.analysis.learning_rates import learning_rates
from lth_jax.analysis.measurement import Measurement
from lth_jax.analysis.spectrum import spectrum
from lth_jax.analysis.stability import stability
from lth_jax.analysis.units import units

__all__ = [
    "AnalysisError",
    "Measurement",
    "behaviour",
    "frontier",
    "latency",
    "learning_rates",
    "spectrum",
    "stability",
    "units",
]
