"""Slots that an update leaves at 0 are found, and no others."""

import jax
import jax.numpy as jnp
import optax
import pytest

from lth_jax.pruning.transforms import masked
from lth_jax.pruning.transforms.zeros import EVERYWHERE, zeros_after

ONES = jnp.ones(3)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b: a + a, "places"),
        (lambda a, b: a + b, None),
        (lambda a, b: a - jnp.zeros(3), "places"),
        (lambda a, b: a * 3.0, "places"),
        (lambda a, b: jnp.sum(b) * a, "places"),
        (lambda a, b: a * b, None),  # b may be infinite where a is 0
        (lambda a, b: a / b, None),
        (lambda a, b: a / jnp.sum(b), "places"),
        (lambda a, b: a + 1.0, None),
        (lambda a, b: jnp.exp(a), None),
        (lambda a, b: jnp.cumsum(a), None),
        (lambda a, b: a[::-1], None),
        (lambda a, b: a**2, "places"),
        (lambda a, b: a**-2, None),
        (lambda a, b: jnp.where(b > 0, a, 2.0 * a), "places"),
        (lambda a, b: jnp.where(b > 0, a, b), None),
        (lambda a, b: jnp.where(b > 0, a, 0.0), "places"),
        (lambda a, b: jax.jit(lambda x: jnp.sqrt(jnp.abs(-x)))(a), "places"),
        (lambda a, b: jnp.zeros(3), EVERYWHERE),
        (lambda a, b: jax.lax.fori_loop(0, 3, lambda i, x: x + 1.0, a), None),
        (lambda a, b: jax.lax.scan(lambda c, _: (c[::-1], None), (a, b), length=2)[0][1], None),
        (lambda a, b: jax.nn.relu(a) + jax.jit(jax.jit(jnp.negative))(a), "places"),
    ],
)
def test_zeros_are_followed_through_sums_and_products_with_numbers(function, expected):
    traced = jax.make_jaxpr(function)(ONES, ONES)
    assert zeros_after(traced.jaxpr, ["places", "others"]) == [expected]


@pytest.mark.parametrize(
    ("optimizer", "again"),
    [
        (optax.sgd(0.1, momentum=0.9), 0),
        (optax.adam(0.1), 0),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)), 0),
        (optax.inject_hyperparams(optax.adam)(0.1), 0),
        (optax.rprop(0.1), 2),  # its step sizes are at least 1e-6
        (optax.adagrad(0.1), 0),
        (optax.adadelta(0.1), 1),
    ],
)
def test_only_slots_that_may_change_are_masked_again(optimizer, again):
    params, mask = {"w": ONES}, {"w": jnp.array([True, False, True])}
    tx = masked(optimizer)
    traced = jax.make_jaxpr(lambda state: tx.update(params, state, params, mask=mask)[1])
    jaxpr = traced(tx.init(params)).jaxpr
    made = {v: equation for equation in jaxpr.eqns for v in equation.outvars}

    def is_masked(v):
        equation = made.get(v)
        if equation is None or v.aval.shape != (3,):
            return False
        inner = equation.params.get("jaxpr")
        return equation.params.get("name") == "_where" and len(inner.jaxpr.eqns) <= 2

    assert sum(map(is_masked, jaxpr.outvars)) == again


def test_an_optimizer_that_reads_values_works_outside_of_a_trace():
    def update(grads, state, params=None):
        steps = state["steps"] + 1.0 if float(grads["w"].sum()) > 0 else state["steps"]
        return grads, {"steps": steps, "sum": {"w": state["sum"]["w"] + 1.0}}

    inner = optax.GradientTransformation(
        lambda params: {"steps": 0.0, "sum": jax.tree.map(jnp.zeros_like, params)}, update
    )
    params, tx = {"w": ONES}, masked(inner)
    mask = {"w": jnp.array([True, False, True])}
    _, state = tx.update(params, tx.init(params), params, mask=mask)
    assert state["sum"]["w"].tolist() == [1.0, 0.0, 1.0]
