"""Networks whose weights stay as they were drawn, and masks that are learned for them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.studies.study_runner import StudyRunner
from lth_jax import keys
from lth_jax import store as stores
from lth_jax.lottery import Splits, fingerprint
from lth_jax.population.segment import Trainer, evaluate
from lth_jax.pruning import scopes, supermask
from lth_jax.pruning.masks import prunable_leaves


def search(runner: StudyRunner, config: ConfigDict, options: ConfigDict) -> dict[str, Any]:
    """The test accuracy of learned and of random masks of untrained networks.

    Args:
      runner: keeps what is found.
      config: network and data; seed i trains on the i-th share.
      options: `seeds`, `density` (of each layer), `steps`, `rate` (of Adam, on the mask scores).

    Returns:
      `{"learned": float[seeds], "random": float[seeds]}`.
    """
    task, experiment = runner.task(config), config.experiment
    learn = partial(_learn, task.trainer, options, experiment.train.batch_size)
    run = jax.vmap(learn, in_axes=(None, 0, 0))
    own = jnp.stack(
        [keys.derive(runner.seeds(config).root, i, "popup") for i in range(options.seeds)]
    )
    first = experiment.train.share * jnp.arange(options.seeds)
    what = {
        "kind": "edge-popup",
        "program": fingerprint(run, task.data, own, first),
        "data": runner.dataset(config).fingerprint,
        "seed": [experiment.seed, experiment.train.share],
    }

    def compute(partial_: Any) -> stores.Node:
        del partial_  # it takes seconds
        learned, random = jax.jit(run)(task.data, own, first)
        return stores.Node({"learned": np.asarray(learned), "random": np.asarray(random)}, {})

    return runner.node(what, compute).arrays


def _learn(
    trainer: Trainer, options: ConfigDict, batch: int, data: Splits, key: Any, first: Any
) -> tuple[Any, Any]:
    """Edge-popup (Ramanujan et al., 2020) by Adam on one network."""
    init_key, score_key, rows_key = jax.random.split(key, 3)
    params, state = trainer.model.init(init_key, data.train.x[:1])
    prunable, scope = prunable_leaves(params), scopes.layerwise()
    count = scope.counts(params, options.density, prunable=prunable)
    optimizer, seen = optax.adam(options.rate), trainer.examples_per_replicate or len(data.train.y)

    def network(scores: Any) -> Any:
        soft = supermask.edge_popup(scores, count, scope=scope, prunable=prunable)
        return supermask.effective(params, soft)

    def loss(scores: Any, rows: Any) -> Any:
        logits, _ = trainer.model.apply(network(scores), state, data.train.x[rows], train=True)
        return jnp.mean(trainer.loss(logits, data.train.y[rows]))

    def step(carry: Any, key: Any) -> tuple[Any, None]:
        scores, moments = carry
        rows = first + jax.random.randint(key, (batch,), 0, seen)
        updates, moments = optimizer.update(jax.grad(loss)(scores, rows), moments)
        return (optax.apply_updates(scores, updates), moments), None

    def accuracy(scores: Any) -> Any:
        return evaluate(trainer, network(scores), state, data.test)["accuracy"]

    drawn = supermask.init_scores(score_key, params, prunable=prunable)
    steps = jax.random.split(rows_key, options.steps)
    (learned, _), _ = jax.lax.scan(step, (drawn, optimizer.init(drawn)), steps)
    return accuracy(learned), accuracy(drawn)
