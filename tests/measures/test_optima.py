"""Minima between grid points, and the best step of gradient descent on least squares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.measures.optima import best_step, descent_losses, interpolated_minimum, sweep_rates


@given(st.floats(0.6, 6.4), st.floats(0.1, 10), st.floats(-5, 5))
def test_the_vertex_of_a_parabola_is_found(vertex, bend, offset):
    places = np.arange(8.0)
    found = interpolated_minimum(places, bend * (places - vertex) ** 2 + offset)
    assert found == pytest.approx(vertex, abs=1e-6)


def test_an_end_of_the_grid_is_an_answer_and_nothing_finite_is_none():
    assert interpolated_minimum([0, 1, 2], [1.0, 2.0, 3.0]) == 0
    assert interpolated_minimum([0, 1, 2], [3.0, 2.0, np.nan]) == 1
    assert np.isnan(interpolated_minimum([0, 1, 2], [np.nan, np.inf, np.nan]))
    assert interpolated_minimum([0, 1, 2], [1.0, 1.0, 1.0]) == 0


@pytest.mark.parametrize("places", [[0, 1, 3], [0, 0, 0], [2, 1, 0]])
def test_uneven_places_are_refused(places):
    with pytest.raises(ValueError, match="`places` must rise in even steps"):
        interpolated_minimum(places, [1.0, 2.0, 3.0])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"`places` and `values` must be `\[m\]`"):
        interpolated_minimum([0, 1], [1.0])


@pytest.mark.parametrize(("n", "ratio"), [(200, 1.143), (60, 1.429), (30, 1.75)])
def test_the_best_step_agrees_with_drawn_spectra(n, ratio):
    assert best_step(n, 10) / best_step(n, 40) == pytest.approx(ratio, abs=1e-3)
    rng = np.random.default_rng(0)

    def drawn(features):
        singular = np.linalg.svd(rng.normal(size=(n, features)), compute_uv=False) ** 2 / n
        return 2 / (singular[0] + singular[-1])

    ratios = [drawn(10) / drawn(40) for _ in range(200)]
    assert np.median(ratios) == pytest.approx(ratio, rel=0.06)


def test_no_features_are_refused():
    with pytest.raises(ValueError, match="`features` 0 must be at least 1"):
        best_step(10, 0)


def test_the_closed_form_is_gradient_descent():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(12, 4)), rng.normal(size=4)
    rates, steps = [0.05, 0.3], 7
    for rate, loss in zip(rates, descent_losses(x, w, rates, steps), strict=True):
        at = np.zeros(4)
        for _ in range(steps):
            at -= rate * x.T @ (x @ (at - w)) / len(x)
        assert loss == pytest.approx(np.mean((x @ (at - w)) ** 2))


@pytest.mark.parametrize(
    ("optimum", "most", "first", "last"), [(0, 9, -1, 3), (6, 9, 0, 7), (-7, 3, -3, 3)]
)
def test_the_grid_grows_where_the_optimum_lies_at_its_end(optimum, most, first, last):
    calls = []

    def train(rates):
        calls.append(rates)
        return {("sgd", r): np.full(4, 0.1 * (2 * np.log2(r) - optimum) ** 2 + 0.1) for r in rates}

    swept = sweep_rates(train, (0, 3), most)
    np.testing.assert_allclose(np.log2([swept.rates[0], swept.rates[-1]]) * 2, [first, last])
    assert sum(map(len, calls)) == len(swept.rates)  # no rate is trained twice
    if optimum > -7:
        np.testing.assert_allclose(2 * swept.best("sgd"), optimum, atol=0.2)
