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
