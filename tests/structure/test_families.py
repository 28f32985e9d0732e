"""Networks that the zoo lacks: bottlenecks, embedded tokens, and unequal time steps."""

import pytest

from lth_jax.models import from_linen
from tests.models.families import family, fill

GROUPS = {"bottleneck": [2, 2, 2, 8], "gru": [4, 4], "untied": [4, 4], "decoder": [3, 5, 6]}


@pytest.mark.parametrize(
    "name", ["gru", *(pytest.param(n, marks=pytest.mark.slow) for n in GROUPS if n != "gru")]
)
def test_what_is_removed_is_what_is_masked(name, check):
    module, x = family(name)
    model = from_linen(module)
    found = check(lambda v, x: model.apply(*v, x, train=False)[0], fill(model, x), x, atol=1e-4)
    assert found.unknown == () and all(group.exact for group in found.groups)
    assert sorted(group.units for group in found.groups) == GROUPS[name]
