"""Mixup preserves the minimiser of centred least squares; CutMix changes it."""

import numpy as np
import pytest

from lth_jax.measures.mixing import mixed_least_squares


def _data(seed=0, n=300, d=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ (np.eye(d) + 0.8 * np.eye(d, k=1))
    y = x @ rng.normal(size=d) + 0.3 * rng.normal(size=n)
    return rng, x - x.mean(axis=0), y - y.mean()


def test_mixup_shrinks_moments_by_one_factor():
    """`E[λ² + (1 − λ)²] = (α + 1) / (2α + 1)` for λ ~ Beta(α, α)."""
    rng, x, _ = _data()
    drawn = []
    for _ in range(400):
        share, other = rng.beta(0.4, 0.4, len(x)), rng.permutation(len(x))
        u = share[:, None] * x + (1 - share[:, None]) * x[other]
        drawn.append(u.T @ u / len(x))
    np.testing.assert_allclose(np.mean(drawn, axis=0), 1.4 / 1.8 * x.T @ x / len(x), atol=0.03)


def test_mixup_keeps_the_minimiser_and_cutmix_moves_it():
    rng, x, y = _data()
    plain, mixup, cutmix = (
        mixed_least_squares(rng, x, y, kind, rounds=400) for kind in ("plain", "mixup", "cutmix")
    )
    np.testing.assert_allclose(plain, np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-9)
    np.testing.assert_allclose(mixup, plain, atol=0.03)
    assert np.abs(cutmix - plain).max() > 0.1


def test_what_cannot_be_mixed():
    rng, x, y = _data()
    with pytest.raises(ValueError, match="`kind` is 'mix'"):
        mixed_least_squares(rng, x, y, "mix")
