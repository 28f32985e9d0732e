"""Keras networks: their groups, and the proof that removing is masking."""

import jax
import numpy as np
import pytest

from lth_jax import structure as st
from lth_jax.models import as_model
from tests.keras_networks import NETWORKS, keras
from tests.thinning import sampled

IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
# For each network: its inputs, and the units of its groups, exact ones and others.
CASES = {
    "convnet": (
        np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32"),
        [2, 2, 3, 5],
        [],
    ),
    "reader": (np.array([[1, 2, 3, 4], [6, 5, 0, 1]]), [2, 3, 3, 5], [6]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_removed_is_masked(name, compare_units, random_units):
    keras.utils.clear_session()
    x, exact, inexact = CASES[name]
    model = as_model(NETWORKS[name]())
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda v: np.asarray(v) + rng.uniform(0.1, 0.3, v.shape).astype(v.dtype),
        {"params": params, "state": state},
    )

    def apply(variables, x):
        return model.apply(variables["params"], variables["state"], x, train=False)[0]

    found = st.find_groups(apply, variables, x)
    assert found.unknown == found.unused == ()
    assert sorted(g.units for g in found.groups if g.exact) == exact
    assert sorted(g.units for g in found.groups if not g.exact) == inexact
    compare_units(found, apply, (x,), random_units(found), variables)


@pytest.mark.parametrize("name", sampled(["MobileNetV2", "EfficientNetB0"], 2))
def test_an_architecture_of_keras_applications(name):
    from experiments.benchmarks import keras_zoo

    row = keras_zoo.measured(name, keras_zoo.architectures()[name])
    assert row["met"] and row["inexact"] == 0
    assert row["pinned"].keys() <= {"the function does not read this leaf"}  # Normalization's
    assert 0.3 < row["weights_left"] < 0.6
