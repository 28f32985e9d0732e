"""One question for every network: is the compact one the masked one, gradients included?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import structure as st
from lth_jax import trees

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Each program runs twice: compiling it well does not pay."""


def choose_units(found, fraction=0.5, seed=0):
    """A random part of the units of every exact group, never all of them."""
    rng = np.random.default_rng(seed)
    units = {}
    for group in found.groups:
        if group.exact:
            flags = rng.permutation(group.units) >= fraction * group.units
            flags[rng.integers(group.units)] = True
            units[group.name] = flags
    return units


def coarse(params, seed=0):
    """Multiples of 1/2, many of them 0: pre-activations meet their kinks, and units are dead."""
    rng = np.random.default_rng(seed)

    def leaf(name, p):
        if name.endswith("var"):  # variances of running statistics
            return p
        new = rng.integers(-1, 2, p.shape) / 2
        if p.ndim > 1:
            new[..., 0] = 0
        return jnp.asarray(new, p.dtype)

    return trees.map_named(leaf, params)


def probes(out, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=o.shape).astype(o.dtype) for o in jax.tree.leaves(out)]


def compare(found, apply, args, units, *several, pinned=lambda out: out, atol=2e-5, **options):
    """Outputs and gradients of the compact network beside those of the masked one.

    `several`: parameter values to compare at; one compiled program serves all.
    """
    _, compact = st.compact(found, jax.tree.map(np.asarray, several[0]), units, **options)
    weights = probes(jax.eval_shape(lambda p: pinned(apply(p, *args)), several[0]))

    def loss(f):
        def value(p):
            outs = jax.tree.leaves(pinned(f(p, *args)))
            return sum(jnp.vdot(w, o) for w, o in zip(weights, outs, strict=True)), outs

        return jax.value_and_grad(value, has_aux=True, allow_int=True)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both(params):
        mask = st.expand(found, units)
        masked = jax.tree.map(lambda m, p: jnp.where(m, p, jnp.zeros_like(p)), mask, params)
        (_, wide), wide_grads = loss(apply)(masked)
        (_, narrow), narrow_grads = loss(compact)(st.take(found, params, units))
        return (wide, st.take(found, wide_grads, units)), (narrow, narrow_grads)

    for params in several:
        jax.tree.map(lambda a, b: close(a, b, atol), *both(params))


def close(a, b, atol):
    if a.dtype != jax.dtypes.float0:
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=atol, rtol=atol)


@pytest.fixture(scope="session")
def check():
    """Compares a network with and without a part of its units, on smooth and on coarse weights."""

    def run(apply, params, *args, fraction=0.5, pinned=lambda out: out, atol=2e-5, **options):
        found = st.find_groups(apply, params, *args, **options)
        units = choose_units(found, fraction)
        assert units, "nothing was found that can be removed"
        compare(found, apply, args, units, params, coarse(params), pinned=pinned, atol=atol)
        return found

    return run


@pytest.fixture(scope="session")
def compare_units():
    return compare


@pytest.fixture(scope="session")
def random_units():
    return choose_units
