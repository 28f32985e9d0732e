"""One question for every network: is the compact one the masked one, also while it trains?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import structure as st
from lth_jax import trees

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Each program runs some twenty times on tiny arrays: compiling it well does not pay."""


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


def paired(found, apply, args, units, params, pinned=lambda out: out, **options):
    """One compiled step of training of both networks: `step(wide, narrow, rate)`.

    The loss is the distance of the outputs from random targets, rounded at 0; unlike a squared one
    it does not magnify rounding where outputs are large. Returned are the outputs and the gradients
    of the masked network, cut to the surviving units, those of the compact one, and the parameters
    of both after SGD. The masked one is masked again before each step: removed units stay zero.
    """
    _, compact = st.compact(found, jax.tree.map(np.asarray, params), units, **options)
    targets = probes(jax.eval_shape(lambda p: pinned(apply(p, *args)), params))

    def gradients(f, params):
        def loss(p):
            outs = jax.tree.leaves(pinned(f(p, *args)))
            pairs = zip(outs, targets, strict=True)
            return sum(jnp.sqrt(1 + (o - t) ** 2).sum() for o, t in pairs), outs

        return jax.grad(loss, has_aux=True, allow_int=True)(params)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def step(wide, narrow, rate):
        mask = st.expand(found, units)
        wide = jax.tree.map(lambda m, p: jnp.where(m, p, jnp.zeros_like(p)), mask, wide)
        wide_grads, wide_outs = gradients(apply, wide)
        narrow_grads, narrow_outs = gradients(compact, narrow)
        seen = (wide_outs, st.take(found, wide_grads, units)), (narrow_outs, narrow_grads)
        return seen, (descend(wide, wide_grads, rate), descend(narrow, narrow_grads, rate))

    return step


def descend(params, grads, rate):
    """One step of SGD; leaves of integers have no gradient and stay."""
    return jax.tree.map(
        lambda p, g: p if g.dtype == jax.dtypes.float0 else p - rate.astype(p.dtype) * g,
        params,
        grads,
    )


def compare(found, apply, args, units, *several, pinned=lambda out: out, atol=2e-5, **options):
    """Compares outputs and gradients of the compact network with those of the masked one.

    `several`: parameter values to compare at; one compiled program, which is returned, serves all.
    """
    step = paired(found, apply, args, units, several[0], pinned, **options)
    for params in several:
        params = jax.tree.map(np.asarray, params)
        (masked, compact), _ = step(params, st.take(found, params, units), np.float32(0))
        jax.tree.map(lambda a, b: close(a, b, atol), masked, compact)
    return step


def compare_trained(found, units, params, step, steps=20, reach=0.01, atol=1e-5):
    """The parameters of both networks after training them, where units survive.

    The rate is such that the first step moves the parameters by `reach` of their norm, whatever
    the scale of the network. Twenty float32 steps that add up in two orders part by some units in
    the last place: 1e-7 at most was seen over all networks (absolute, or relative above 1), and
    `atol` allows a hundred times that for the orders of other machines. It is a thousandth of what
    training has to move at least.
    """
    wide = jax.tree.map(np.asarray, params)
    start = narrow = st.take(found, wide, units)
    (_, (_, grads)), _ = step(wide, narrow, np.float32(0))
    rate = np.float32(reach * norm(narrow) / norm(grads))
    for _ in range(steps):  # calls of the program that is there: a loop would be compiled again
        _, (wide, narrow) = step(wide, narrow, rate)
    narrow = jax.tree.map(np.asarray, narrow)
    assert norm(jax.tree.map(np.subtract, narrow, start)) > 1000 * atol * norm(start)
    wide = st.take(found, jax.tree.map(np.asarray, wide), units)
    jax.tree.map(lambda a, b: close(a, b, atol), wide, narrow)


def norm(tree):
    """Over all leaves of floats: integers have no gradient."""
    floats = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.floating)]
    return np.sqrt(sum(np.vdot(a, a) for a in floats))


def close(a, b, atol):
    if a.dtype != jax.dtypes.float0:
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=atol, rtol=atol)


@pytest.fixture(scope="session")
def check():
    """Compares a network with and without a part of its units, and both after training.

    Outputs and gradients on smooth and on coarse weights; training from the smooth ones, as where
    pre-activations are exactly 0 the first step's rounding decides on which side they go on.
    """

    def run(apply, params, *args, fraction=0.5, pinned=lambda out: out, atol=2e-5, **options):
        found = st.find_groups(apply, params, *args, **options)
        units = choose_units(found, fraction)
        assert units, "nothing was found that can be removed"
        step = compare(found, apply, args, units, params, coarse(params), pinned=pinned, atol=atol)
        compare_trained(found, units, params, step)
        return found

    return run


@pytest.fixture(scope="session")
def compare_units():
    return compare


@pytest.fixture(scope="session")
def random_units():
    return choose_units
