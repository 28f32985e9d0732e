"""Large trees are compacted leaf by leaf."""

import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import structure as st
from lth_jax.structure import rules

LEAVES, SIDE = 40, 1024  # of 4 MiB each


def large_chain(make):
    """A chain of layers, its structure, and half of the units of each group."""
    params = {f"w{i:02d}": make(i) for i in range(LEAVES)}

    def apply(p, x):
        for w in p.values():
            x = jnp.tanh(x @ w)
        return x

    shapes = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), params)
    found = st.find_groups(apply, shapes, jax.ShapeDtypeStruct((1, SIDE), jnp.float32))
    return params, found, {g.name: np.arange(g.units) >= g.units // 2 for g in found.groups}


def test_host_leaves_are_cut_one_by_one_and_keep_nothing_of_the_whole():
    params, found, units = large_chain(lambda i: np.full((SIDE, SIDE), i, np.float32))
    leaf = params["w00"].nbytes
    tracemalloc.start()
    small = st.take(found, params, units)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(w.nbytes for w in small.values()) <= held < LEAVES * leaf / 4 + 2 * leaf
    assert peak < LEAVES * leaf / 4 + 3 * leaf  # all but the ends keep a quarter
    assert not np.shares_memory(small["w00"], params["w00"])
    assert small["w07"].shape == (SIDE // 2, SIDE // 2) and (small["w07"] == 7).all()


def test_files_of_weights_are_read_where_slices_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    params = {"v": rng.normal(size=(6, 2)), "w": rng.normal(size=(4, 6))}
    params, x = jax.tree.map(np.float32, params), np.ones((3, 4), np.float32)
    found = st.find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, x)
    units = {"v:0": np.array([True, False, True, True, False, False])}
    for name, leaf in params.items():
        np.save(tmp_path / f"{name}.npy", leaf)
    files = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in params}
    small, apply_small = st.compact(found, files, units)
    wanted, reference = st.compact(found, params, units)
    jax.tree.map(np.testing.assert_array_equal, small, wanted)
    assert {type(leaf) for leaf in small.values()} == {np.ndarray}
    np.testing.assert_array_equal(apply_small(small, x), reference(wanted, x))


def test_donated_arrays_are_freed_leaf_by_leaf(monkeypatch):
    params, found, units = large_chain(lambda i: jnp.full((SIDE, SIDE), i, jnp.float32))
    leaf, total = params["w00"].nbytes, LEAVES * params["w00"].nbytes
    before = sum(x.nbytes for x in jax.live_arrays()) - total
    seen = []

    def pick(*args):
        seen.append(sum(x.nbytes for x in jax.live_arrays()) - before)
        return rules.pick(*args)

    monkeypatch.setattr(sys.modules["lth_jax.structure.compact"], "pick", pick)
    small, _ = st.compact(found, params, units, donate=True)
    assert max(seen) <= total + leaf and seen[-1] < total / 2
    assert all(w.is_deleted() for w in params.values())
    assert (np.asarray(small["w39"]) == 39).all()
