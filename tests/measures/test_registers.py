"""Masks on linear recurrences of known support, and radii against the circular law."""

import numpy as np
import pytest

from lth_jax.measures.registers import even_recurrence, masked_fits, shift_register
from lth_jax.measures.spectra import spectral_radius


def test_the_support_of_a_register_is_found_and_chance_is_not_enough():
    found = [masked_fits(np.random.default_rng(i), shift_register(12), kept=11) for i in range(8)]
    best, drawn = np.mean(found, axis=0)
    assert best > 97 and drawn < 25


def test_where_all_weights_are_alike_no_mask_is_much_better():
    rng = np.random.default_rng(0)
    found = [masked_fits(rng, even_recurrence(rng, 12), kept=36, steps=4000) for _ in range(20)]
    best, drawn = np.mean(found, axis=0)
    assert abs(best - drawn) < 2 and drawn == pytest.approx(25, abs=3)


@pytest.mark.parametrize(
    ("kind", "density", "radius"),
    [
        ("random", 0.5, 0.707),
        ("random", 0.2, 0.447),
        ("magnitude", 0.5, 0.964),
        ("magnitude", 0.2, 0.806),
    ],
)
def test_radii_follow_the_circular_law(kind, density, radius):
    """The root of the remaining variance: `√ρ`, or `√(ρ + 2 t φ(t))` with `t = Φ⁻¹(1 − ρ/2)`."""
    rng, n = np.random.default_rng(1), 300
    w = rng.normal(size=(n, n)) / np.sqrt(n)
    chance = rng.random((n, n)) if kind == "random" else np.abs(w)
    kept = np.where(chance >= np.quantile(chance, 1 - density), w, 0)
    assert spectral_radius(kept)[0] == pytest.approx(radius, rel=0.06)
