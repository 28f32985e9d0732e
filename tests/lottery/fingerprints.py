"""Functions whose fingerprints the tests compare, in this process and in others.

    python -m tests.lottery.fingerprints

prints the fingerprint of each by its name, as JSON.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.lottery import fingerprint

X = jax.ShapeDtypeStruct((8, 40), "float32")
TABLE = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
CHANGED = TABLE.copy()
CHANGED[20, 20] += 1


@jax.custom_jvp
def scaled(x, by):
    return x * by


scaled.defjvp(lambda primals, tangents: (scaled(*primals), tangents[0] * primals[1]))


def dense(table, activation=jax.nn.relu):
    return lambda x: activation(x @ jnp.asarray(table))


def nested(table):
    inner = jax.jit(lambda c: c @ jnp.asarray(table))

    def f(x):
        kept = jax.lax.fori_loop(0, 2, lambda _, c: inner(c), x)
        return jax.lax.cond(kept.sum() > 0, inner, lambda c: c, kept)

    return f


def differentiated(table):
    return jax.grad(lambda x: scaled(x, jnp.asarray(table)[:8]).sum())


def drawn(seed, impl="threefry2x32"):
    key = jax.random.key(seed, impl=impl)
    return lambda x: x + jax.random.normal(key, x.shape)


def batched(rule):
    @jax.custom_batching.custom_vmap
    def f(x):
        return 2 * x

    f.def_vmap(lambda size, batched, x: (rule(x), True))
    return jax.vmap(f)


FUNCTIONS = {
    "relu": dense(TABLE),
    "gelu": dense(TABLE, jax.nn.gelu),
    "leaky .1": dense(TABLE, functools.partial(jax.nn.leaky_relu, negative_slope=0.1)),
    "leaky .2": dense(TABLE, functools.partial(jax.nn.leaky_relu, negative_slope=0.2)),
    "another table": dense(CHANGED),
    "table as bfloat16": dense(TABLE.astype(jnp.bfloat16)),
    "nested": nested(TABLE),
    "nested, another table": nested(CHANGED),
    "nested, on the device": nested(jnp.asarray(TABLE) + 1),
    "gradient": differentiated(TABLE),
    "gradient, another table": differentiated(CHANGED),
    "key 0": drawn(0),
    "key 1": drawn(1),
    "key of rbg": drawn(0, "rbg"),
    "first of two": lambda x, y=TABLE[:8]: x + y,
    "scalar": lambda x: x + np.float32(0.1),
    "next scalar": lambda x: x + np.nextafter(np.float32(0.1), np.float32(1)),
    "short array": lambda x: x[:, :3] + np.array([1, 2, 3], np.float32),
    "another short array": lambda x: x[:, :3] + np.array([1, 2, 4], np.float32),
    "batched by 2": batched(lambda x: 2 * x),
    "batched by 3": batched(lambda x: 3 * x),
    "shown": lambda x: (jax.debug.print("{}", x.sum()), x - 1)[1],
}


def found():
    """The fingerprint of each function."""
    return {name: fingerprint(f, X) for name, f in FUNCTIONS.items()}


if __name__ == "__main__":
    print(json.dumps(found()))
