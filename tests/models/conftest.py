"""Networks with arbitrary weights, for all tests of this folder."""

import pytest

from tests.models.families import fill


@pytest.fixture(scope="session")
def filled():
    """`(model, x) -> (params, state)`: arbitrary parameters and statistics."""
    return fill
