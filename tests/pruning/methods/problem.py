"""One tree of parameters of all kinds, three members, and a run of any method on them."""

import functools

import jax
import jax.numpy as jnp
import optax

from lth_jax import trees
from lth_jax.layouts import Layout
from lth_jax.pruning import masks, scopes
from lth_jax.pruning.criteria import random
from lth_jax.pruning.methods import METHODS, Inputs
from lth_jax.pruning.prune import prune

STEPS = 40
LAYOUTS = {"stack/kernel": Layout((1,), (2,), stacked=(0,))}


def draw(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


PARAMS = {
    "dense": {"kernel": draw(0, (8, 6)), "bias": draw(1, (6,))},
    "half": {"kernel": draw(2, (8, 4), jnp.bfloat16), "scale": draw(3, (4,), jnp.float16)},
    "stack": {"kernel": draw(4, (3, 8, 4)), "bias": draw(5, (3, 4))},
}
PRUNABLE = trees.map_named(lambda name, leaf: "kernel" in name, PARAMS)
ONES = masks.ones_like(PARAMS)
DENSITIES = (0.25, 0.4, 0.4)
OPTIMIZERS = {
    "clip-adam": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.03)),
    "momentum": optax.sgd(0.05, momentum=0.9),
    "adam": optax.adam(0.03),
    "adamw": optax.adamw(0.03, weight_decay=0.1),
}


SCOPE = scopes.globally()


@functools.cache
def built(name, steps=STEPS):
    return METHODS[name](prunable=PRUNABLE, layouts=LAYOUTS, scope=SCOPE, steps=steps)


def count_of(density):
    return jnp.asarray(SCOPE.counts(PARAMS, density, prunable=PRUNABLE, layouts=LAYOUTS))


@functools.cache
def _random_mask():
    pruner = prune(random(), SCOPE)
    return jax.jit(
        lambda key, count: pruner(PARAMS, ONES, count, prunable=PRUNABLE, layouts=LAYOUTS, key=key)
    )


def member(method, seed):
    count, key = count_of(DENSITIES[seed]), jax.random.key(seed)
    return Inputs(ONES if method.starts_dense else _random_mask()(key, count), count, key)


def grads_of(params, step):
    """Gradients of a quadratic whose minimum moves, differing at every weight."""

    def leaf(p):
        target = jnp.sin(step + jnp.arange(p.size, dtype=jnp.float32)).reshape(p.shape)
        return (p - target.astype(p.dtype)).astype(p.dtype)

    return jax.tree.map(leaf, params)


def run(method, inner, inputs, steps=STEPS, params=PARAMS, grads_of=grads_of):
    """Parameters and state at the end; masks and effective parameters after each step."""
    params = masks.apply_mask(inputs.mask, params)

    def step(carry, i):
        params, state = carry
        tx = method.transform(inner, inputs)
        grads = grads_of(method.effective(params, state), i)
        updates, state = tx.update(grads, state, params, step=i)
        params = optax.apply_updates(params, updates)
        return (params, state), (state.mask, method.effective(params, state))

    start = (params, method.transform(inner, inputs).init(params))
    return jax.lax.scan(step, start, jnp.arange(steps))


@functools.cache
def programs(name):
    """The run of one member, and of several, compiled when called."""
    method = built(name)
    alone = jax.jit(lambda inputs: run(method, OPTIMIZERS["clip-adam"], inputs))
    return alone, jax.jit(jax.vmap(alone))


@functools.cache
def results(name):
    """Of a population of three; of its second member alone."""
    alone, together = programs(name)
    members = [member(built(name), i) for i in range(3)]
    return together(trees.stack(members)), alone(members[1])
