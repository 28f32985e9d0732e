import numpy as np
import pytest

from lth_jax.measures import spectra


def test_a_density_has_the_mass_and_the_moments_of_its_eigenvalues():
    values, weights = np.array([-1.0, 0.0, 3.0]), np.array([0.2, 0.5, 0.3])
    points = np.linspace(-8, 10, 4001)
    density = spectra.broadened(values, weights, points, 0.5)
    step = points[1] - points[0]
    mean = values @ weights
    assert density.sum() * step == pytest.approx(1)
    assert (density * points).sum() * step == pytest.approx(mean)
    variance = values**2 @ weights - mean**2 + 0.25
    assert (density * (points - mean) ** 2).sum() * step == pytest.approx(variance)


@pytest.mark.parametrize(
    ("largest", "count"),
    [([8, 7, 6, 2, 1.9], 3), ([5, 1, 0.9, -3], 1), ([4, -1, -2], 0), ([-1, -2], 0), ([], 0)],
)
def test_outliers_stand_above_the_widest_relative_gap(largest, count):
    assert spectra.outliers(largest) == count


@pytest.mark.parametrize("gates", [1, 3])
def test_spectral_radius_of_matrices_with_known_eigenvalues(gates):
    rng = np.random.default_rng(0)
    eigenvalues = rng.normal(size=(2, gates, 5))
    bases = rng.normal(size=(2, gates, 5, 5))
    blocks = bases @ (eigenvalues[..., None] * np.linalg.inv(bases))
    kernel = np.concatenate(np.moveaxis(blocks, 1, 0), axis=-1)
    assert kernel.shape == (2, 5, gates * 5)
    expected = np.abs(eigenvalues).max(-1)
    np.testing.assert_allclose(spectra.spectral_radius(kernel, gates), expected, rtol=1e-8)


def test_spectral_radius_wants_square_blocks():
    with pytest.raises(ValueError, match=r"`kernel` must have shape .*`gates=3`, got \(4, 8\)"):
        spectra.spectral_radius(np.ones((4, 8)), gates=3)
