"""Dead units and gradients that get past a mask."""

import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.measures.activity import dead_units, gradient_flow


def test_a_unit_is_dead_if_it_is_never_on():
    out = np.full((2, 3, 4), -1.0)  # examples, positions, units
    out[1, 2, 0], out[:, :, 1], out[0, 0, 3] = 0.5, 0.0, 1e-9
    found = dead_units({"a": jnp.asarray(out), "b": jnp.ones((5, 2))})
    assert found["a"].tolist() == [False, True, True, False]
    assert found["b"].tolist() == [False, False]
    relu = dead_units({"a": jnp.maximum(jnp.asarray(out), 0)})
    np.testing.assert_array_equal(relu["a"], found["a"])


def test_the_threshold_is_what_has_to_be_exceeded():
    out = {"a": jnp.array([[0.1, 0.2, 0.3]])}
    assert dead_units(out, 0.2)["a"].tolist() == [True, True, False]


def test_flow_counts_kept_weights_only():
    gradients = {"a": jnp.array([[3.0, 100.0], [4.0, -100.0]]), "b": jnp.array([-2.0])}
    mask = {"a": jnp.array([[True, False], [True, False]]), "b": jnp.array([True])}
    assert gradient_flow(gradients, mask) == {"a": 5.0, "b": 2.0}
    everything = gradient_flow(gradients)
    assert everything["a"] == pytest.approx(np.sqrt(20025))


def test_flow_is_summed_in_double_precision():
    gradients = {"a": np.concatenate([[1.0], np.full(10_000, 1e-4)]).astype(np.float32)}
    exact = np.sqrt((gradients["a"].astype(np.float64) ** 2).sum())
    assert gradient_flow(gradients)["a"] == pytest.approx(exact, rel=1e-14)


def test_a_foreign_mask_is_refused():
    with pytest.raises(ValueError, match="`mask` at 'a' has shape"):
        gradient_flow({"a": jnp.ones(3)}, {"a": jnp.ones(2, bool)})
