"""Analyses of finished runs: measurements of the networks in a store.

Each takes a `lottery.Result`, from `lottery.run` or `Result.open`, saves its measurement in the
run's store, and returns it as a `Measurement`. Repeated calls read it from the store, and
`Result.report` shows it on the run's page. All raise `store.StoreError` if the store is damaged.

>>> import flax.linen as nn, numpy as np, optax
>>> from lth_jax import lottery
>>> from lth_jax.population import Plan
>>> data = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2
>>> task = lottery.Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=10)
>>> result = lottery.run(task, lottery.imp(levels=1), replicates=2, plan=Plan(2), progress=False)
>>> sorted(behaviour(result, examples=8).records.scores)
['accuracy/0', 'brier', 'ece', 'gradient_norm', 'nll']
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
