import errno
import os
import shutil

import numpy as np
import pytest

from lth_jax.store import (
    CorruptError,
    Node,
    Partial,
    Store,
    StoreError,
    checkpoints,
    content_key,
    files,
)
from lth_jax.store import locks as store_locks

KEY = content_key("a node")
OTHER = content_key("another node")


def constant(value=1.0):
    return lambda partial: Node({"x": np.full(3, value)}, {"value": value})


def latest(partial, like=None):
    progress = partial.load(like)
    assert progress is not None
    return progress


def never(partial):
    raise AssertionError("computed again")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_node_is_computed_once_and_read_ever_after(store):
    assert not store.has(KEY)
    first = store.node(KEY, constant())
    again = Store(store.root).node(KEY, never)
    assert first.arrays["x"].tolist() == again.arrays["x"].tolist() == [1.0, 1.0, 1.0]
    assert first.meta == again.meta == store.read(KEY).meta == {"value": 1.0}
    assert store.has(KEY) and not store.has(OTHER)


def test_a_node_lies_where_the_layout_says(store):
    store.node(KEY, constant())
    folder = store.root / "nodes" / KEY[:2] / KEY
    assert {path.name for path in folder.iterdir()} == {"meta.json", "arrays", "sha256"}


def test_making_a_store_writes_nothing(store):
    assert not store.root.exists()


@pytest.mark.parametrize("key", ["", "short", "../" + KEY[3:], KEY.upper(), KEY + "0"])
def test_keys_are_hashes(store, key):
    with pytest.raises(ValueError, match="`key` must be a SHA-256 of 64 hex digits"):
        store.node(key, never)


def test_a_missing_node_is_named(store):
    with pytest.raises(StoreError, match=f"{KEY} does not exist"):
        store.read(KEY)


def copy_of_another(store, folder):
    store.node(OTHER, constant(7.0))
    shutil.rmtree(folder)
    shutil.copytree(store.root / "nodes" / OTHER[:2] / OTHER, folder)


HARM = {
    "meta.json does not match": lambda store, folder: flip(folder / "meta.json"),
    "arrays/manifest.ocdbt is missing": lambda store, folder: (
        folder / "arrays" / "manifest.ocdbt"
    ).unlink(),
    "sha256 cannot be read": lambda store, folder: (folder / "sha256").write_text(""),
    f"it is a copy of '{OTHER}'": copy_of_another,
}


@pytest.mark.parametrize("reported", HARM)
def test_a_damaged_node_is_named_and_made_again(store, caplog, reported):
    store.node(KEY, constant())
    folder = store.root / "nodes" / KEY[:2] / KEY
    HARM[reported](store, folder)
    reported = (
        "is not listed in sha256" if "cannot be read" in reported else reported
    )  # an empty seal
    with pytest.raises(CorruptError, match=reported):
        store.read(KEY)
    assert reported in store.problem(KEY)
    assert store.node(KEY, constant(2.0)).meta == {"value": 2.0}
    assert reported in caplog.text and str(folder) in caplog.text
    assert store.problem(KEY) is None
    assert [path.name for path in folder.parent.iterdir()] == [KEY]


def test_a_node_that_cannot_be_read_is_not_removed(store, monkeypatch):
    def denied(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    store.node(KEY, constant())
    with monkeypatch.context() as patch:
        patch.setattr(files, "digest", denied)
        with pytest.raises(PermissionError):
            store.node(KEY, never)
    assert store.node(KEY, never).meta == {"value": 1.0}


def test_facts_are_believed_only_if_they_are_sealed(store):
    store.node(KEY, constant())
    meta = store.root / "nodes" / KEY[:2] / KEY / "meta.json"
    meta.write_text(meta.read_text().replace('"value": 1.0', '"value": 2.0'))
    with pytest.raises(CorruptError, match=r"meta\.json does not match its SHA-256"):
        store.facts(KEY)


def test_a_failing_computation_leaves_no_node_but_its_progress(store):
    def fails(partial):
        partial.save(1, {"x": np.ones(2)})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.node(KEY, fails)
    assert not store.has(KEY)

    def goes_on(partial):
        progress = partial.load()
        return Node(progress.tree, {"step": progress.step})

    assert store.node(KEY, goes_on).meta == {"step": 1}
    assert list((store.root / "partial").iterdir()) == []


def test_progress_keeps_the_last_two_steps(tmp_path):
    partial = Partial(tmp_path)
    assert partial.load() is None
    for step in range(5):
        partial.save(step, {"x": np.full(2, step)}, {"at": step})
    step, tree, meta = latest(partial, {"x": np.zeros(2, int)})
    assert (step, tree["x"].tolist(), meta) == (4, [4, 4], {"at": 4})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003", "00000004"]


def test_damaged_progress_steps_back_and_says_so(tmp_path, caplog):
    partial = Partial(tmp_path)
    for step in (1, 2):
        partial.save(step, {"x": np.full(2, step)})
    partial.load()
    flip(tmp_path / "00000002" / "meta.json")
    assert latest(partial).step == 1
    assert "Stepping back behind step 2" in caplog.text and "meta.json" in caplog.text
    flip(tmp_path / "00000001" / "sha256")
    assert partial.load() is None


def test_a_copy_of_an_earlier_step_or_of_another_node_is_no_progress(tmp_path, caplog):
    one, other = Partial(tmp_path / "one"), Partial(tmp_path / "other")
    for step in (1, 2):
        one.save(step, {"x": np.full(2, step)})
    shutil.copytree(tmp_path / "one" / "00000001", tmp_path / "one" / "00000009")
    assert latest(one).step == 2 and "it is a copy of 'one/00000001'" in caplog.text
    other.save(1, {"x": np.zeros(2)})
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "other").rename(tmp_path / "one")
    assert one.load() is None and "it is a copy of 'other/00000001'" in caplog.text


def test_saving_forgets_later_steps_of_an_earlier_attempt(tmp_path):
    partial = Partial(tmp_path)
    partial.save(7, {"x": np.ones(2)})
    partial.save(3, {"x": np.zeros(2)})
    assert latest(partial).step == 3


def test_steps_are_counted_from_zero(tmp_path):
    with pytest.raises(ValueError, match="`step` must be ≥ 0, got -1"):
        Partial(tmp_path).save(-1, {"x": np.ones(2)})


def test_a_like_of_another_shape_is_an_error_and_no_reason_to_step_back(tmp_path):
    partial = Partial(tmp_path)
    partial.save(1, {"x": np.ones(2)})
    with pytest.raises(ValueError, match="`like` at 'x'"):
        partial.load({"x": np.ones(3)})
    assert latest(partial).step == 1


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_and_earlier_nodes_stay(store, monkeypatch):
    store.node(OTHER, constant())
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_write_arrays", full)
        with pytest.raises(StoreError, match="cannot be written: No space left on device"):
            store.node(KEY, constant())
    assert not store.has(KEY)
    assert store.read(OTHER).meta == {"value": 1.0}
    assert store.node(KEY, constant()).meta == {"value": 1.0}


def test_a_failed_write_of_progress_is_told_at_once(tmp_path, monkeypatch):
    partial = Partial(tmp_path)
    partial.save(1, {"x": np.ones(2)})
    monkeypatch.setattr(checkpoints, "_write_arrays", full)
    with pytest.raises(StoreError, match="No space left"):
        partial.save(2, {"x": np.ones(2)})
    assert latest(partial).step == 1


def test_an_unwritable_root_is_told_before_anything_is_computed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        Store(tmp_path / "file" / "store").node(KEY, never)


def leftovers(store):
    """What a killed writer leaves: half a node, progress of a finished node, and of another."""
    store.node(KEY, constant())
    half = files.temporary(store.root / "nodes" / OTHER[:2] / OTHER)
    done, going = store.root / "partial" / KEY, store.root / "partial" / OTHER
    for folder in (half, done, going):
        (folder / "arrays").mkdir(parents=True)
    return half, done, going


def test_leftovers_of_the_dead_are_swept_and_progress_is_not(store):
    half, done, going = leftovers(store)
    Store(store.root)
    assert (half.exists(), done.exists(), going.exists()) == (False, False, True)


def test_a_killed_save_of_progress_leaves_nothing_once_the_next_is_saved(tmp_path):
    partial = Partial(tmp_path)
    left = files.temporary(tmp_path / "00000007")
    (left / "arrays").mkdir(parents=True)
    partial.save(8, {"x": np.ones(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["00000008"]


def test_nothing_of_a_living_writer_is_swept(store):
    half, *_ = leftovers(store)
    with store_locks.hold(store.root / "locks" / f"{OTHER}.lock", what="the node"):
        Store(store.root)
    assert half.exists()


def test_ensure_computes_once_and_reads_nothing(tmp_path):
    shelf, key = Store(tmp_path), content_key("a node")
    assert shelf.ensure(key, lambda partial: Node({}, {"n": 1}))
    assert shelf.ensure(key, lambda partial: pytest.fail("computed twice"))
    assert shelf.facts(key) == {"n": 1} and list(shelf.keys()) == [key]


def test_ensure_does_not_wait_if_told_so(tmp_path):
    shelf, key = Store(tmp_path), content_key("a node")

    def busy(partial):
        assert not shelf.ensure(key, lambda partial: pytest.fail("computed twice"), wait=False)
        return Node({}, {})

    assert shelf.ensure(key, busy, wait=False)
    assert shelf.ensure(key, busy, wait=False)
