import errno
import resource
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax import store
from lth_jax.store import checkpoints, files
from lth_jax.store.errors import CorruptError, StoreError

DTYPES = ("bool", "int4", "int8", "uint32", "int64", "bfloat16", "float16", "float32", "float64")
ARRAYS = st.builds(
    lambda dtype, shape, seed: (
        np.random.default_rng(seed).integers(0, 2, shape).astype(jnp.dtype(dtype))
    ),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 9),
)
NAMES = st.text("ab.é -_", min_size=1, max_size=3)
TREES = st.recursive(
    ARRAYS,
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=6,
)


def same(a, b):
    """Equal structure, types, dtypes and bits (NaN included)."""
    assert str(jax.tree.structure(a)) == str(jax.tree.structure(b))
    assert store.fingerprint(a) == store.fingerprint(b)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "whole"
    store.save(path, {"w": np.arange(3.0), "mask": np.ones((2, 2), bool)}, {"level": 1})
    return path


@pytest.fixture
def copied(saved, tmp_path):
    subprocess.run(["cp", "-r", saved, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


@settings(derandomize=True, max_examples=20, deadline=None)
@given(tree=TREES)
def test_any_tree_of_dicts_and_lists_round_trips(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("any") / "tree"
    store.save(path, tree)
    same(store.restore(path).tree, tree)
    same(store.restore(path, like=tree).tree, tree)


def test_states_of_optimizers_and_keys_round_trip_with_like(tmp_path):
    params = {"w": jnp.full((2, 3), jnp.nan), "b": jnp.ones(3, jnp.bfloat16)}
    tree = {
        "params": params,
        "opt": optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(4, impl="rbg"), 5),
        "batch_stats": {},
        "step": 7,
    }
    store.save(tmp_path / "a", tree, {"level": np.int64(2), "arms": ("ticket",)})
    again, meta = store.restore(tmp_path / "a", like=tree)
    same(again, tree)
    assert isinstance(again["opt"][1][0], optax.ScaleByAdamState)
    assert again["key"].dtype == tree["key"].dtype
    assert meta == {"level": 2, "arms": ["ticket"]}


def test_without_like_named_tuples_are_dicts_and_keys_stay_keys(tmp_path):
    keys = jax.random.split(jax.random.key(0), 2)
    store.save(tmp_path / "a", {"trace": optax.TraceState({"w": np.ones(2)}), "keys": keys})
    again = store.restore(tmp_path / "a").tree
    assert again["trace"]["trace"]["w"].tolist() == [1.0, 1.0]
    assert jnp.issubdtype(again["keys"].dtype, jax.dtypes.prng_key)


def test_shape_dtype_structs_serve_as_like(saved):
    tree = store.restore(saved).tree
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    same(store.restore(saved, like).tree, tree)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": np.arange(3.0)}, "differs from the saved tree at 'mask'"),
        (
            {"w": np.zeros(3, np.float32), "mask": np.ones((2, 2), bool)},
            r"'w' is float32\[3\], but float64\[3\] was saved",
        ),
        (
            {"w": np.zeros(3), "mask": np.ones(4, bool)},
            r"'mask' is bool\[4\], but bool\[2, 2\] was saved",
        ),
    ],
)
def test_like_must_be_what_was_saved(saved, like, message):
    with pytest.raises(ValueError, match=f"`like` .*{message}"):
        store.restore(saved, like)


def test_bad_trees_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="two leaves named 'a/b'"):
        store.save(tmp_path / "x", {"a/b": 1.0, "a": {"b": 2.0}})
    with pytest.raises(ValueError, match="two leaves named 'value'"):
        store.save(tmp_path / "x", {"": 1.0, "value": 2.0})
    with pytest.raises(TypeError, match="`tree` at 'a' must be an array"):
        store.save(tmp_path / "x", {"a": "text"})
    with pytest.raises(ValueError, match=r"`meta\.loss` must be a finite number"):
        store.save(tmp_path / "x", {}, {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(copied):
    before = store.fingerprint(store.restore(copied).tree)
    with pytest.raises(StoreError, match="exists already"):
        store.save(copied, {})
    assert store.fingerprint(store.restore(copied).tree) == before


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match="nothing does not exist"):
        store.restore(tmp_path / "nothing")


def every_file(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_flipped_bit_in_any_file_is_found(copied):
    random = np.random.default_rng(0)
    for path in every_file(copied):
        whole = path.read_bytes()
        for position in random.integers(0, max(len(whole), 1), 5 if whole else 0):
            torn = bytearray(whole)
            torn[position] ^= 1 << random.integers(8)
            path.write_bytes(torn)
            with pytest.raises(CorruptError, match=f"{copied} is damaged: .*makes it again"):
                store.restore(copied)
        path.write_bytes(whole)
    store.restore(copied)


def test_a_file_cut_short_is_found(copied):
    for path in every_file(copied):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if whole else b"grown")
        with pytest.raises(CorruptError):
            store.restore(copied)
        path.write_bytes(whole)


def test_a_missing_file_is_named(copied):
    for path in every_file(copied):
        aside = path.rename(copied.parent / "aside")
        with pytest.raises(CorruptError, match=path.name):
            store.restore(copied)
        aside.rename(path)


def test_an_unknown_file_is_named(copied):
    (copied / "arrays" / "extra").touch()
    with pytest.raises(CorruptError, match="arrays/extra is not listed"):
        store.restore(copied)


def test_the_seal_can_be_checked_without_this_library(saved):
    done = subprocess.run(["sha256sum", "--quiet", "-c", "sha256"], cwd=saved, check=False)
    assert done.returncode == 0


def test_another_format_is_named(copied):
    meta = copied / "meta.json"
    meta.write_text(meta.read_text().replace('"format": 2', '"format": 3'))
    files.seal(copied)
    with pytest.raises(StoreError, match="written in store format 3, but this version reads"):
        store.restore(copied)


def test_a_copy_of_another_checkpoint_is_named(tmp_path):
    store.save(tmp_path / "a", {"w": np.ones(2)}, name="a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert store.restore(tmp_path / "b").tree["w"].tolist() == [1.0, 1.0]
    with pytest.raises(CorruptError, match="b is damaged: it is a copy of 'a'"):
        store.restore(tmp_path / "b", name="b")


@pytest.mark.parametrize("place", ["arrays", "seal"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, place):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    where, name = {"arrays": (checkpoints, "_write_arrays"), "seal": (files, "seal")}[place]
    monkeypatch.setattr(where, name, full)
    with pytest.raises(StoreError, match="a cannot be written: No space left on device"):
        store.save(tmp_path / "a", {"w": np.ones(3)})
    assert list(tmp_path.iterdir()) == []


def test_a_write_the_system_refuses_is_one_sentence(tmp_path, caplog):
    # A real refusal inside Orbax: no file of this process may grow beyond 20 kB.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(StoreError, match="a cannot be written: File too large") as error:
            store.save(tmp_path / "a", {"w": np.random.default_rng(0).standard_normal(50_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert caplog.records == []


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        store.save(tmp_path / "file" / "a", {"w": np.ones(3)})


def test_packed_or_not_the_same_tree_comes_back(tmp_path):
    tree = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": jnp.ones(3, jnp.bfloat16),
        "mask": np.array([[True], [False]]),
        "scalar": np.float32(2.5),
        "none": np.zeros((0, 4), np.int8),
        "more": {"w": np.full(2, 7, np.float32)},
        "key": jax.random.key(3),
    }
    restored = []
    for packed in (False, True):
        checkpoints.save(tmp_path / str(packed), tree, packed=packed)
        restored.append(checkpoints.restore(tmp_path / str(packed), like=tree).tree)
    kinds = ["bfloat16", "bool", "float32", "uint32"]  # the last is the key's
    arrays = checkpoints._read_arrays(tmp_path / "True" / "arrays", kinds)
    assert sorted(arrays) == kinds and all(array.ndim == 1 for array in arrays.values())
    for one, other, saved in zip(*map(jax.tree.leaves, (*restored, tree)), strict=True):
        assert one.dtype == other.dtype == jnp.asarray(saved).dtype
        assert one.shape == other.shape == jnp.shape(saved)
        if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(one, saved)
