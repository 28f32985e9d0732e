"""Dense blocks made of unstructured masks: found where they were hidden, and never too heavy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import structure as st
from lth_jax.layouts import DENSE, conv

SHAPES = {"conv": (3, 3, 4, 24), "dense": (20, 10), "bias": (10,)}
PRUNABLE = {"conv": True, "dense": True, "bias": False}
LAYOUTS = {"conv": conv(2), "dense": DENSE}
regroup = jax.jit(lambda mask: st.regroup(mask, PRUNABLE, height=8, layouts=LAYOUTS))


def ticket(density, seed=0):
    rng = np.random.default_rng(seed)
    mask = {name: jnp.asarray(rng.random(shape) < density) for name, shape in SHAPES.items()}
    return mask | {"bias": jnp.ones(10, bool)}


def rows(mask):
    """One row for each output."""
    return np.asarray(mask).reshape(-1, mask.shape[-1]).T


def hidden_blocks(seed=0):
    """24 x 36 with three blocks of 8 rows and 5 to 9 columns, rows and columns shuffled."""
    rng = np.random.default_rng(seed)
    full = np.zeros((24, 36), bool)
    for i, width in enumerate((9, 7, 5)):
        full[8 * i : 8 * i + 8, 12 * i : 12 * i + width] = True
    return full[rng.permutation(24)][:, rng.permutation(36)]


@pytest.mark.parametrize("seed", range(3))
def test_blocks_hidden_by_the_order_of_rows_and_columns_are_found(seed):
    planted = hidden_blocks(seed)
    mask = ticket(0.3) | {"conv": jnp.asarray(planted.T.reshape(SHAPES["conv"]))}
    np.testing.assert_array_equal(rows(regroup(mask)["conv"]), planted)


def test_blocks_under_noise_are_found():
    rng, planted = np.random.default_rng(5), hidden_blocks()
    noisy = planted & (rng.random(planted.shape) < 0.9) | (rng.random(planted.shape) < 0.03)
    mask = ticket(0.3) | {"conv": jnp.asarray(noisy.T.reshape(SHAPES["conv"]))}
    found = rows(regroup(mask)["conv"])
    assert (found & planted).sum() > 0.9 * planted.sum()


@pytest.mark.parametrize("density", [0.05, 0.3, 0.8])
def test_a_regrouped_ticket_is_dense_blocks_and_no_heavier(density):
    mask = ticket(density)
    found = regroup(mask)
    for name, height in (("conv", 8), ("dense", 8)):
        blocks, alike = np.unique(rows(found[name]), axis=0, return_counts=True)
        assert len(blocks) <= -(-SHAPES[name][-1] // height) and (alike >= 2).all()
        assert 0 < found[name].sum() <= mask[name].sum()
        assert found[name].sum() > mask[name].sum() - height
    assert found["bias"].all()


def test_more_of_the_ticket_is_held_than_by_blocks_in_random_places():
    mask = ticket(0.3) | {"conv": jnp.asarray(hidden_blocks().T.reshape(SHAPES["conv"]))}
    found = regroup(mask)
    drawn = st.shuffle_blocks(jax.random.key(0), found, PRUNABLE, layouts=LAYOUTS)
    for name in ("conv", "dense"):
        assert (found[name] & mask[name]).sum() > (drawn[name] & mask[name]).sum()


def test_an_empty_kernel_keeps_one_column_and_a_dense_one_everything():
    empty = regroup(ticket(0.3) | {"dense": jnp.zeros((20, 10), bool)})
    assert rows(empty["dense"]).any(0).sum() == 1
    dense = ticket(1.1)
    jax.tree.map(np.testing.assert_array_equal, regroup(dense), dense)


def test_regrouping_a_population_is_regrouping_its_members():
    tickets = [ticket(0.3, seed) for seed in range(3)]
    together = jax.vmap(regroup)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *tickets))
    for i, mask in enumerate(tickets):
        alone = regroup(mask)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a, b[i]), alone, together)


def test_shuffled_blocks_have_the_same_sizes_in_other_places():
    found = regroup(ticket(0.3))
    drawn = [
        st.shuffle_blocks(jax.random.key(k), found, PRUNABLE, layouts=LAYOUTS) for k in range(2)
    ]
    for one in drawn:
        for name in ("conv", "dense"):
            old, new = rows(found[name]), rows(one[name])
            assert sorted(old.sum(0)) == sorted(new.sum(0))
            assert sorted(old.sum(1)) == sorted(new.sum(1))
            assert len(np.unique(old, axis=0)) == len(np.unique(new, axis=0))
        assert one["bias"].all()
    assert (drawn[0]["conv"] != drawn[1]["conv"]).any()


def test_strict_promotion_holds():
    with jax.numpy_dtype_promotion("strict"):
        found = st.regroup(ticket(0.3), PRUNABLE, layouts=LAYOUTS)
        st.shuffle_blocks(jax.random.key(0), found, PRUNABLE, layouts=LAYOUTS)


def test_a_block_without_rows_is_refused():
    with pytest.raises(ValueError, match="`height` is 0; a block has at least 1 row"):
        st.regroup(ticket(0.3), PRUNABLE, height=0)
