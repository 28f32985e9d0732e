"""Sparse training methods behind one interface.

A method is built once from its options. Each member of a population has its own `Inputs`: initial
mask, final count and key. `Method` documents the training step.

`METHODS` holds all builders by name; `METHODS.register` adds one. Builders raise `ValueError` for
options that are out of range.

>>> import jax, jax.numpy as jnp, optax
>>> from lth_jax.pruning import masks, scopes
>>> params = {"kernel": jnp.array([[3.0, 1.0], [0.5, 2.0]])}
>>> prunable, scope = masks.prunable_leaves(params), scopes.globally()
>>> method = METHODS["gradual"](prunable=prunable, scope=scope, steps=4)
>>> count = scope.counts(params, 0.5, prunable=prunable)
>>> inputs = Inputs(masks.ones_like(params), count, jax.random.key(0))
>>> tx = method.transform(optax.sgd(0.1), inputs)
>>> state = tx.init(params)
>>> for step in range(4):
...     grads = jax.grad(lambda p: jnp.sum(p["kernel"] ** 2))(method.effective(params, state))
...     updates, state = tx.update(grads, state, params, step=step)
...     params = optax.apply_updates(params, updates)
>>> weights, mask = method.final(params, state)
>>> mask["kernel"].tolist()
[[True, False], [False, True]]
"""

from lth_jax.pruning.methods.alternating import alternating
from lth_jax.pruning.methods.dynamic import rigl, sparse_evolution
from lth_jax.pruning.methods.gradual import gradual
from lth_jax.pruning.methods.latent import iterative_n_m, straight_through
from lth_jax.pruning.methods.method import METHODS, Builder, Inputs, Method
from lth_jax.pruning.methods.movement import movement
from lth_jax.pruning.methods.soft_threshold import soft_threshold
from lth_jax.pruning.methods.static import frozen, static
from lth_jax.pruning.methods.supermasks import edge_popup, supermask
from lth_jax.registry import import_modules

import_modules(__name__, __path__)  # every module registers its parts

__all__ = [
    "METHODS",
    "Builder",
    "Inputs",
    "Method",
    "alternating",
    "edge_popup",
    "frozen",
    "gradual",
    "iterative_n_m",
    "movement",
    "rigl",
    "soft_threshold",
    "sparse_evolution",
    "static",
    "straight_through",
    "supermask",
]
