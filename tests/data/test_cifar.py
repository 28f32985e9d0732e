import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from lth_jax import data
from lth_jax.data import cifar

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 32, 32, 3), np.uint8)
LABELS = np.arange(10) % 10


def write(root, layout, binary):
    """A folder of the authors' layout; every file holds the same ten images."""
    folder = root / (layout.binary if binary else layout.python)
    folder.mkdir(parents=True)
    pixels = IMAGES.transpose(0, 3, 1, 2).reshape(10, -1)  # a plane per colour, as documented
    for stem in (*layout.train, *layout.test):
        if binary:
            coarse = np.full((10, layout.labels - 1), 7, np.uint8)
            rows = np.concatenate([coarse, LABELS[:, None].astype(np.uint8), pixels], axis=1)
            (folder / f"{stem}.bin").write_bytes(rows.tobytes())
        else:
            content = {b"data": pixels, layout.key: LABELS.tolist(), b"batch_label": b"some"}
            (folder / stem).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def packed(root, layout, binary):
    """The archive of such a folder, which is removed."""
    folder = write(root, layout, binary)
    with tarfile.open(root / layout.archives[0 if binary else 1], "w:gz") as archive:
        archive.add(folder, folder.name)
    shutil.rmtree(folder)
    return root


@pytest.mark.parametrize("layout", [cifar.CIFAR10, cifar.CIFAR100], ids=["10", "100"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "python"])
@pytest.mark.parametrize("place", [write, packed])
def test_all_versions_are_read_alike(tmp_path, layout, binary, place):
    place(tmp_path, layout, binary)
    for split, files in (("train", len(layout.train)), ("test", 1)):
        images, labels = cifar.read_split(tmp_path, layout, split)
        np.testing.assert_array_equal(images, np.tile(IMAGES, (files, 1, 1, 1)))
        assert labels.tolist() == LABELS.tolist() * files


def test_the_archives_have_the_names_of_their_authors():
    assert cifar.CIFAR10.archives == ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
    assert cifar.CIFAR100.archives == ("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz")


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_an_archive_is_prepared_once_and_then_not_needed(tmp_path, name, classes):
    files = packed(tmp_path / "files", getattr(cifar, name.upper()), False)
    asked = {"data_dir": tmp_path / "data", "seed": 0, "validation": 2}
    first = data.load(name, manual_dir=files, **asked)
    np.testing.assert_array_equal(first.test.x, IMAGES.astype(np.float32) / 255)
    assert first.test.y.tolist() == LABELS.tolist() and first.classes == classes
    shutil.rmtree(files)
    assert data.load(name, **asked).fingerprint == first.fingerprint


def test_a_pickle_that_could_run_code_is_refused(tmp_path):
    class Call:
        def __reduce__(self):
            return print, ("ran",)

    folder = write(tmp_path, cifar.CIFAR10, False)
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Call()}))
    with pytest.raises(
        ValueError, match=r"damaged or does not have the format of its name: it loads '.*print"
    ):
        cifar.read_split(tmp_path, cifar.CIFAR10, "test")


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def mislabel(file):
    file.write_bytes(b"\x0a" + file.read_bytes()[1:])


@pytest.mark.parametrize(
    ("harm", "message"),
    [(cut, "damaged"), (mislabel, "a label 0 … 9"), (Path.unlink, "damaged")],
)
def test_damaged_files_are_refused(tmp_path, harm, message):
    file = write(tmp_path, cifar.CIFAR10, True) / "test_batch.bin"
    harm(file)
    with pytest.raises(ValueError, match=message):
        cifar.read_split(tmp_path, cifar.CIFAR10, "test")


def test_a_folder_without_archives_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`manual_dir` must hold one of 'cifar-10-batches-bin'"):
        cifar.read_split(tmp_path, cifar.CIFAR10, "train")
