"""One network of each family: found without a gap, and compact = masked, gradients included."""

import pytest

from lth_jax.models import from_linen
from tests.models.families import FAMILIES, family, fill

GROUPS = {
    "mlp": [6],
    "residual_mlp": [6],
    "convnet": [2, 3, 5],
    "vgg": [3, 4],
    "resnet": [2, 4, 4],
    "bottleneck": [2, 2, 2, 8],
    "wide_resnet": [2, 8, 8],
    "rnn": [4],
    "gru": [4, 4],
    "lstm": [4, 4],
    "untied": [4, 4],
    "encoder": [3, 5, 6],
    "decoder": [3, 5, 6],
    "vit": [3, 5, 6],
    "mixer": [3, 5, 6],
}
FAST = ("lstm", "decoder")


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]
)
def test_what_is_removed_is_what_is_masked(name, check):
    module, x = family(name)
    model = from_linen(module)
    variables = fill(model, x)
    found = check(lambda v, x: model.apply(*v, x, train=False)[0], variables, x, atol=1e-4)
    assert found.unknown == ()
    assert sorted(group.units for group in found.groups) == GROUPS[name]
    inexact = [group.name for group in found.groups if not group.exact]
    # What a mixer adds to every channel is not zero in those that are masked.
    assert inexact == (["0/Dense_0/bias:0"] if name == "mixer" else [])
