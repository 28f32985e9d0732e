"""ImageNet from a copy with the layout of TFDS: resized once, and read as bytes."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lth_jax import data
from lth_jax.data import imagenet, prepare
from lth_jax.data.made import Examples, Made, Source
from tests.data import made_imagenet


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory):
    return made_imagenet.write(tmp_path_factory.mktemp("manual"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def load(folder, manual_dir=None, **more):
    more = {"seed": 0, "validation": 0, "size": 16} | more
    return data.load("imagenet", data_dir=folder, manual_dir=manual_dir, **more)


@pytest.fixture(scope="module")
def loaded(folder, manual_dir):
    return load(folder, manual_dir)


def test_the_centre_of_every_image_is_resized_and_stays_bytes(loaded):
    assert loaded.train.x.shape == (12, 16, 16, 3) and loaded.test.x.shape == (5, 16, 16, 3)
    assert loaded.train.x.dtype == loaded.test.x.dtype == np.uint8
    for split, count in ((loaded.train, 12), (loaded.test, 5)):
        colours = made_imagenet.COLOURS[:count, None, None].astype(int)
        assert np.abs(split.x - colours).max() <= 3  # JPEG; the frame is 0
        assert split.y.tolist() == [i % 4 for i in range(count)]
    assert loaded.classes == made_imagenet.CLASSES


def test_images_are_resized_once_and_may_stay_on_disk(loaded, folder, manual_dir):
    again, on_disk = load(folder), load(folder, most_bytes=0)
    assert isinstance(on_disk.train.x, data.OnDisk) and on_disk.train.x.dtype == np.uint8
    assert on_disk.train.x.nbytes == 12 * 16 * 16 * 3
    assert loaded.fingerprint == again.fingerprint == on_disk.fingerprint
    np.testing.assert_array_equal(on_disk.train.x[[7, 2]], loaded.train.x[[7, 2]], strict=True)


def test_a_copy_that_cannot_be_read_is_named(tmp_path, folder, loaded, manual_dir):
    with pytest.raises(ValueError, match="holds 'imagenet2012' as TFDS prepared it"):
        load(folder, size=17)
    with pytest.raises(ValueError, match=r"`manual_dir` must hold one copy .* has 0"):
        load(tmp_path, tmp_path)
    other = shutil.copytree(manual_dir, tmp_path / "other")
    description = imagenet.find(other) / "dataset_info.json"
    description.write_text(description.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="file_format='array_record'"):
        load(tmp_path, other)


def test_large_data_are_written_in_shards_in_their_order(tmp_path, monkeypatch):
    # TFDS's writer of one piece needs TensorFlow for more than this.
    monkeypatch.setattr(tfds.core.shuffle, "MAX_MEM_BUFFER_SIZE", 1000)
    monkeypatch.setattr(prepare, "_SHARD_BYTES", 16 * 30)
    x, y = np.arange(400, dtype=np.float32).reshape(100, 4), np.arange(100) % 3
    made = Made(Examples(x, y, y), Examples(x[:10], y[:10], y[:10]), classes=3, groups=3)
    folder = prepare.prepare(Source("own", lambda: made), tmp_path)
    found, _ = prepare.read(folder, "train")
    np.testing.assert_array_equal(found.data.x, x, strict=True)
    assert found.data.y.tolist() == found.group.tolist() == y.tolist()
    assert len(list(folder.glob("own-train.array_record-*-of-00004"))) == 4
