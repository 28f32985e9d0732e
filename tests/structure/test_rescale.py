"""A wide network's kernels, drawn as those of the small network that a mask of units leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import models
from lth_jax import structure as st
from lth_jax.layouts import conv

INITIALIZATIONS = {
    "glorot_normal": st.fan_average, "he_normal": st.fan_in, "fan_in_uniform": st.fan_in,
}  # fmt: skip
WIDE, KEPT = (3, 3, 64, 96), (3, 3, 16, 64)
MASK = {"kernel": jnp.zeros(WIDE, bool).at[:, :, ::4, :64].set(True), "bias": jnp.ones(96, bool)}
PRUNABLE = {"kernel": True, "bias": True}
LAYOUTS = {"kernel": conv(2)}


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_what_is_kept_is_distributed_as_the_small_kernel(name):
    draw = getattr(models, name).kernel
    wide = {"kernel": draw(jax.random.key(0), WIDE), "bias": jnp.ones(96)}
    scaled = st.rescale(wide, MASK, PRUNABLE, INITIALIZATIONS[name], layouts=LAYOUTS)
    kept = scaled["kernel"][:, :, ::4, :64]
    small = draw(jax.random.key(1), KEPT)
    np.testing.assert_allclose(kept.std(), small.std(), rtol=0.03)
    np.testing.assert_allclose(jnp.abs(kept).max(), jnp.abs(small).max(), rtol=0.05)
    assert wide["kernel"].std() < 0.8 * kept.std()
    np.testing.assert_array_equal(scaled["bias"], wide["bias"])


def test_a_kernel_that_keeps_all_or_is_not_prunable_stays():
    params = {"kernel": jnp.ones(WIDE), "bias": jnp.ones(96)}
    full = jax.tree.map(jnp.ones_like, MASK)
    for mask, prunable in ((full, PRUNABLE), (MASK, PRUNABLE | {"kernel": False})):
        same = st.rescale(params, mask, prunable, st.fan_in, layouts=LAYOUTS)
        jax.tree.map(np.testing.assert_array_equal, same, params)


def test_strict_promotion_holds_in_a_compiled_population():
    params = {"kernel": jnp.ones((2, 4, 6), jnp.bfloat16)}
    mask = {"kernel": jnp.ones((2, 4, 6), bool).at[1, :3].set(False)}
    options = {"fan": st.fan_average, "layouts": {"kernel": conv(0)}}
    run = jax.vmap(lambda p, m: st.rescale(p, m, {"kernel": True}, **options))
    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(run)(params, mask)["kernel"]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found[1].astype(float), np.sqrt((4 + 6) / (1 + 6)), rtol=1e-2)


def test_scales_and_biases_stay_whatever_their_axes():
    params = {"kernel": jnp.ones(WIDE), "bias": jnp.ones((1, 1, 1, 96))}  # Haiku's BatchNorm
    mask = MASK | {"bias": MASK["bias"].reshape(1, 1, 1, 96)}
    scaled = st.rescale(params, mask, PRUNABLE, st.fan_in, layouts=LAYOUTS)
    np.testing.assert_array_equal(scaled["bias"], params["bias"])
    with pytest.raises(ValueError, match="layout of 'kernel'"):
        st.rescale(params, mask, PRUNABLE, st.fan_in)
