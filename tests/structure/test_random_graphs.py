"""Random small programs: whatever is found, removing it is masking it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as s

from lth_jax import structure as st

KINDS = ["dense", "add", "concat", "gate", "reverse", "heads", "norm", "slice", "pool", "shared"]
PHASES = [Phase.generate]  # shrinking would compile hundreds of programs
STEP = s.tuples(s.sampled_from(KINDS), s.integers(0, 9), s.integers(0, 9), s.sampled_from([4, 6]))


def program(steps):
    """A function of a list of parameters that the steps describe, and the shapes of that list."""
    shapes = []
    widths = [3]
    run: list[Callable[..., Any]] = []

    def weight(*shape):
        shapes.append(shape)
        return len(shapes) - 1

    for kind, i, j, width in [("dense", 0, 0, 6), *steps]:
        a, b = i % len(widths), j % len(widths)
        n, m = widths[a], widths[b]
        if kind == "dense":
            w, c = weight(n, width), weight(width)
            run.append(lambda p, v, a=a, w=w, c=c: jax.nn.relu(v[a] @ p[w] + p[c]))
            widths.append(width)
        elif kind == "add" and n == m:
            run.append(lambda p, v, a=a, b=b: v[a] + jnp.tanh(v[b]))
            widths.append(n)
        elif kind == "concat" and n + m <= 16:
            run.append(lambda p, v, a=a, b=b: jnp.concatenate([v[a], v[b]], 1))
            widths.append(n + m)
        elif kind == "gate" and n % 2 == 0:
            run.append(lambda p, v, a=a: jnp.multiply(*jnp.split(v[a], 2, 1)))
            widths.append(n // 2)
        elif kind == "reverse":
            run.append(lambda p, v, a=a: v[a][:, ::-1])
            widths.append(n)
        elif kind == "heads" and n % 2 == 0:
            run.append(
                lambda p, v, a=a, n=n: v[a].reshape(2, n // 2, 2).swapaxes(1, 2).reshape(2, n)
            )
            widths.append(n)
        elif kind == "norm":
            w, c = weight(n), weight(n)

            def normalise(p, v, a=a, w=w, c=c):
                var = jnp.mean(v[a] ** 2, 1, keepdims=True) - jnp.mean(v[a], 1, keepdims=True) ** 2
                return (v[a] - v[a].mean(1, keepdims=True)) / jnp.sqrt(1 + jnp.maximum(var, 0)) * p[
                    w
                ] + p[c]

            run.append(normalise)
            widths.append(n)
        elif kind == "slice" and n > 3:
            run.append(lambda p, v, a=a: v[a][:, 1::2])
            widths.append(n // 2)
        elif kind == "pool":
            run.append(lambda p, v, a=a: v[a] * v[a].sum(0, keepdims=True))
            widths.append(n)
        elif kind == "shared":
            w = weight(n, n)
            run.append(lambda p, v, a=a, w=w: jnp.tanh(jnp.tanh(v[a] @ p[w]) @ p[w]))
            widths.append(n)
    last = weight(sum(widths[-2:]), 2)

    def apply(p, x):
        values = [x]
        for step in run:
            values.append(step(p, values))
        return jnp.concatenate(values[-2:], 1) @ p[last]

    return apply, shapes


def holds(steps, seed, coarse, compare, choose):
    apply, shapes = program(steps)
    rng = np.random.default_rng(seed)
    draw = (lambda n: rng.integers(-1, 2, n) / 2) if coarse else (lambda n: rng.normal(size=n) / 2)
    params = [jnp.asarray(draw(shape), "float32") for shape in shapes]
    x = jnp.asarray(rng.normal(size=(2, 3)), "float32")
    found = st.find_groups(apply, params, x)
    units = choose(found, 0.5, seed)
    assume(units)
    compare(found, apply, (x,), units, params)


@settings(max_examples=8, deadline=None, phases=PHASES, derandomize=True)
@given(s.lists(STEP, min_size=1, max_size=5), s.integers(0, 99), s.booleans())
@pytest.mark.slow
def test_removed_is_masked_in_random_graphs(compare_units, random_units, steps, seed, coarse):
    holds(steps, seed, coarse, compare_units, random_units)


@pytest.mark.exhaustive
@settings(max_examples=60, deadline=None, phases=PHASES)
@given(s.lists(STEP, min_size=2, max_size=10), s.integers(0, 999), s.booleans())
def test_removed_is_masked_in_many_random_graphs(compare_units, random_units, steps, seed, coarse):
    holds(steps, seed, coarse, compare_units, random_units)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, phases=PHASES)
@given(s.lists(STEP, min_size=1, max_size=8), s.integers(0, 999))
def test_a_layer_that_can_be_removed_passes_the_carry_on_when_masked(steps, seed):
    """Some of the layer's parameters are shared with the other layers, and are not masked."""
    apply, shapes = program(steps)
    rng = np.random.default_rng(seed)
    shared = [jnp.asarray(rng.normal(size=shape), "float32") for shape in shapes]
    own = {k: p for k, p in enumerate(shared) if k == 0 or rng.random() < 0.6}
    x = jnp.asarray(rng.normal(size=(2, 3)), "float32")

    def layer(h, own):
        return h + apply([own.get(k, p) for k, p in enumerate(shared)], h) @ np.ones((2, 3)), None

    stacks = {k: jnp.stack([p, p]) for k, p in own.items()}
    found = st.find_groups(lambda p, x: jax.lax.scan(layer, x, p)[0], stacks, x)
    exact = any(g.exact and "`scan` runs along it" in g.ordered for g in found.groups)
    masked, _ = layer(x, jax.tree.map(jnp.zeros_like, own))
    assert (masked == x).all() or not exact
