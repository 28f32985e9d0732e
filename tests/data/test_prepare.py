import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import chex
import filelock
import numpy as np
import pytest

from lth_jax.data import OnDisk, prepare
from lth_jax.data.made import Examples, Made, Source


def make():
    """Four examples, by a maker that reseeds the global generators."""
    random.seed(0)
    np.random.seed(0)
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    train, test = Examples(x, np.array([3, 1, 2, 0])), Examples(x, np.zeros(4, int))
    return Made(train, test, classes=10)


TINY = Source("tiny", make)


def in_another_process(body, *arguments):
    """Starts a process that prepares what `make`, defined in `body`, makes."""
    head = """
        import sys, time
        from pathlib import Path
        import numpy as np
        from lth_jax.data import prepare
        from lth_jax.data.made import Examples, Made, Source

        root, marker = Path(sys.argv[1]), Path(sys.argv[2])
        three = Examples(np.zeros((3, 2), np.float32), np.arange(3))
        made = Made(three, three, classes=10)
    """
    tail = "\nprint(prepare.prepare(Source('tiny', make), root))\n"
    code = textwrap.dedent(head) + textwrap.dedent(body) + tail
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def made(tmp_path):
    return prepare.prepare(TINY, tmp_path)


def test_examples_keep_their_order(made):
    ((x, y), group), classes = prepare.read(made, "train")
    assert group is None
    np.testing.assert_array_equal(x, np.arange(8, dtype=np.float32).reshape(4, 2))
    assert x.dtype == np.float32 and y.dtype == np.int32
    assert y.tolist() == [3, 1, 2, 0] and classes == 10


def test_preparing_leaves_no_trace_in_the_process(tmp_path, capfd):
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()
    prepare.prepare(TINY, tmp_path)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert capfd.readouterr() == ("", "")


def test_what_is_there_is_not_touched(made, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filelock, "FileLock", refuse)
    assert prepare.prepare(TINY, tmp_path) == made


@pytest.mark.slow
def test_processes_that_ask_at_once_all_get_the_data(tmp_path):
    body = """
        def make():
            with marker.open("a") as file:
                file.write("made\\n")
            time.sleep(2)
            return made
    """
    marker = tmp_path / "marker"
    processes = [in_another_process(body, tmp_path / "data", marker) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0] == outputs[1]
    assert marker.read_text() == "made\n"


def test_what_a_killed_process_left_is_made_again(tmp_path):
    body = """
        def make():
            return made

        def slow(examples):
            yield 0, {"x": examples.x[0], "y": 0}
            marker.touch()
            time.sleep(600)

        prepare._rows = slow
    """
    root, marker = tmp_path / "data", tmp_path / "marker"
    process = in_another_process(body, root, marker)
    deadline = time.monotonic() + 120
    while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list((root / "tiny").glob("incomplete.*"))
    folder = prepare.prepare(TINY, root)
    assert prepare.read(folder, "train")[0].data.y.tolist() == [3, 1, 2, 0]
    assert not list((root / "tiny").glob("incomplete.*"))


def tear_description(folder):
    file = folder / "dataset_info.json"
    file.write_bytes(file.read_bytes()[:50])


def lose_description(folder):
    (folder / "dataset_info.json").unlink()


def lose_examples(folder):
    next(folder.glob("*train.array_record*")).unlink()


@pytest.mark.parametrize("harm", [tear_description, lose_description, lose_examples])
def test_half_a_data_set_is_made_again(made, tmp_path, harm):
    harm(made)
    assert prepare.damage(made)
    assert prepare.prepare(TINY, tmp_path) == made
    assert prepare.damage(made) is None


def flip(file):
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def delete(file):
    file.unlink()


FILES = [
    "dataset_info.json",
    "features.json",
    "tiny-train.array_record-00000-of-00001",
    "tiny-test.array_record-00000-of-00001",
    "train.npz",
    "test.npz",
    "sha256",
]


@pytest.mark.parametrize("harm", [flip, halve, empty, delete])
@pytest.mark.parametrize("name", FILES)
def test_damaged_data_are_named_and_prepared_again(made, tmp_path, caplog, name, harm):
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    assert set(before) == set(FILES)
    harm(made / name)
    assert prepare.prepare(TINY, tmp_path) == made
    assert prepare.damage(made) is None
    assert prepare.read(made, "train")[0].data.y.tolist() == [3, 1, 2, 0]
    (record,) = caplog.records
    assert f"'{made}' is damaged (" in record.message and "is prepared again" in record.message
    assert name in record.message or name == "sha256"


def test_an_unknown_file_among_the_data_is_damage(made, tmp_path):
    (made / "tiny-train.array_record-00001-of-00002").write_bytes(b"more")
    assert "is not listed" in (prepare.damage(made) or "")
    prepare.prepare(TINY, tmp_path)
    assert {path.name for path in made.iterdir()} == set(FILES)


@pytest.mark.parametrize("harm", [halve, empty, delete])
@pytest.mark.parametrize("name", FILES[:-1])
def test_damage_of_a_copy_without_a_seal_is_one_sentence(made, name, harm):
    """TFDS's own builders seal nothing, and only their user can prepare their data again."""
    (made / "sha256").unlink()
    if not name.endswith(".npz"):
        without_arrays(made)
    harm(made / name)
    if name.endswith(".npz") and harm is delete:  # the examples are decoded instead
        assert len(prepare.read(made, name.removesuffix(".npz"))[0].data.y) == 4
        return
    if (problem := prepare.prepared_folders(made.parent).get(made, "no description")) is None:
        with pytest.raises(ValueError, match=f"^'{made}' is damaged; delete it and") as error:
            for split in ("train", "test"):
                prepare.read(made, split)
        problem = str(error.value)
    assert "\n" not in problem


def test_damage_after_loading_is_one_sentence(made):
    """Inputs on disk are read while a network trains."""
    with pytest.raises(ValueError, match=rf"^'{made}' is damaged; delete it and load again: check"):
        OnDisk(prepare._Source(made, Broken()), "x", np.arange(4), np.asarray)


class Broken:
    def __len__(self):
        return 4

    def __getitems__(self, rows):
        raise RuntimeError("checksum\nand more lines")


def without_arrays(folder):
    """Only the files that TFDS writes."""
    for arrays in folder.glob("*.npz"):
        arrays.unlink()


def test_arrays_are_what_tfds_decodes(made):
    stored = [prepare.read(made, split)[0] for split in ("train", "test")]
    without_arrays(made)
    for split, found in zip(("train", "test"), stored, strict=True):
        chex.assert_trees_all_equal(found, prepare.read(made, split)[0])


def test_large_splits_are_not_kept_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_MOST_DECODED", 10)
    folder = prepare.prepare(TINY, tmp_path)
    assert not list(folder.glob("*.npz"))
    assert prepare.read(folder, "train")[0].data.y.tolist() == [3, 1, 2, 0]


def test_damaged_examples_are_refused(made):
    without_arrays(made)
    file = next(made.glob("*train.array_record*"))
    raw = bytearray(file.read_bytes())
    raw[70] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ValueError, match="is damaged; delete it and load again"):
        prepare.read(made, "train")


def test_files_that_need_tensorflow_are_refused(made):
    file = made / "dataset_info.json"
    file.write_text(file.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=r"prepared with file_format='array_record'.*tfrecord"):
        prepare.read(made, "train")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"`data_dir` '.*file' cannot store the data: .*directory"):
        prepare.prepare(TINY, tmp_path / "file")


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(examples):
        yield 0, {"x": examples.x[0], "y": 0}
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_rows", full)
        with pytest.raises(
            ValueError, match=r"`data_dir` .* cannot store the data: .*No space left"
        ):
            prepare.prepare(TINY, tmp_path)
    assert not [path for path in (tmp_path / "tiny").iterdir() if path.is_dir()]
    assert prepare.damage(prepare.prepare(TINY, tmp_path)) is None


@pytest.mark.parametrize("limit", [0, 300, 20_000])
def test_a_write_that_the_system_refuses_is_one_sentence(tmp_path, limit):
    """A real refusal inside array_record: no file of this process may grow beyond the limit."""

    def large():
        """Examples of 40 kB that do not compress."""
        x = np.random.default_rng(0).random((10, 10_000)).astype(np.float32)
        y = np.zeros(10, int)
        return Made(Examples(x, y), Examples(x[:1], y[:1]), classes=10)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ValueError, match=r"`data_dir` '.*' cannot store the data: .*too large"):
            prepare.prepare(Source("large", large), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not [path for path in (tmp_path / "large").iterdir() if path.is_dir()]
    assert prepare.damage(prepare.prepare(Source("large", large), tmp_path)) is None


def test_a_seal_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(prepare.files, "seal", full)
        with pytest.raises(ValueError, match=r"cannot store the data: .*No space left"):
            prepare.prepare(TINY, tmp_path)
    assert not [path for path in (tmp_path / "tiny").iterdir() if path.is_dir()]


def test_other_errors_of_a_maker_pass(tmp_path):
    def broken():
        raise RuntimeError("a fault in the maker")

    with pytest.raises(RuntimeError, match=r"^a fault in the maker"):
        prepare.prepare(Source("tiny", broken), tmp_path)


def test_only_finished_data_sets_are_found(made, tmp_path):
    shutil.copytree(made, made.parent / "incomplete.ABCDEF_1.0.0")
    shutil.copytree(made, made.parent / "2.0.0")
    lose_examples(made.parent / "2.0.0")
    lost = "tiny-train.array_record-00000-of-00001 is missing"
    assert prepare.prepared_folders(tmp_path) == {made: None, made.parent / "2.0.0": lost}
