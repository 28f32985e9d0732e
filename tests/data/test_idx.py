import gzip
import struct

import numpy as np
import pytest

from lth_jax.data import idx


def encode(array):
    """An array of bytes as an idx file's contents."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


LABELS = np.arange(10)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 28, 28))


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(encode(IMAGES))
        (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encode(LABELS)))
    return tmp_path


@pytest.mark.parametrize("shape", [(3,), (0,), (2, 3, 4), (1, 1, 1, 1)])
def test_what_is_written_is_read(tmp_path, shape):
    array = np.random.default_rng(1).integers(0, 256, shape)
    (tmp_path / "file").write_bytes(encode(array))
    (tmp_path / "file.gz").write_bytes(gzip.compress(encode(array)))
    for name in ("file", "file.gz"):
        got = idx.read_idx(tmp_path / name)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, array)


GOOD = encode(LABELS)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "begins with nothing"),
        (b"\x00\x00\x0d\x01" + GOOD[4:], "begins with 00000d"),
        (b"\x01" + GOOD[1:], "begins with 010008"),
        (GOOD[:6], "truncated or damaged"),
        (GOOD[:-1], "must hold .10,. bytes.* but 9 follow"),
        (GOOD + b"\x00", "but 11 follow"),
        (b"\x00\x00\x08\x00", "truncated or damaged"),
        (bytes([0, 0, 8, 4]) + b"\xff" * 16, "but 0 follow"),
    ],
)
def test_damaged_files_are_refused(tmp_path, raw, message):
    (tmp_path / "file").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        idx.read_idx(tmp_path / "file")


@pytest.mark.parametrize(
    "raw",
    [b"not gzip", gzip.compress(GOOD)[:-9], gzip.compress(GOOD)[:12]],
    ids=["no gzip", "without its end", "header only"],  # the bytes hold the time of day
)
def test_damaged_gzip_is_refused(tmp_path, raw):
    (tmp_path / "file.gz").write_bytes(raw)
    with pytest.raises(ValueError, match=r"file.gz' cannot be read"):
        idx.read_idx(tmp_path / "file.gz")


def test_a_split_is_images_with_a_channel_and_labels(folder):
    images, labels = idx.read_split(folder, "test")
    np.testing.assert_array_equal(images, IMAGES[..., None])
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", LABELS[:9], r"got shapes \(10, 28, 28\) and \(9,\)"),
        ("train-labels-idx1-ubyte", LABELS + 1, "labels 0 … 9, got 10"),
        ("train-images-idx3-ubyte", IMAGES[0], r"must hold \(n, h, w\) images"),
        ("train-images-idx3-ubyte", IMAGES[:, :, :27], "images-idx3-ubyte' .* 28 × 28 .* 28 × 27"),
        ("train-images-idx3-ubyte", np.zeros((10, 32, 32)), "of 28 × 28 pixels, got 32 × 32"),
        ("train-images-idx3-ubyte", np.zeros((10, 0, 28)), "of 28 × 28 pixels, got 0 × 28"),
    ],
)
def test_images_and_labels_must_match(folder, name, array, message):
    (folder / name).write_bytes(encode(array))
    with pytest.raises(ValueError, match=message):
        idx.read_split(folder, "train")


def test_a_missing_file_is_named(folder):
    (folder / "t10k-images-idx3-ubyte").unlink()
    for read in (idx.digest, lambda folder: idx.read_split(folder, "test")):
        with pytest.raises(ValueError, match="`manual_dir` must hold 't10k-images-idx3-ubyte'"):
            read(folder)


def test_the_digest_tells_contents_apart(folder):
    before = idx.digest(folder)
    assert before == idx.digest(folder)
    (folder / "train-images-idx3-ubyte").write_bytes(encode(255 - IMAGES))
    assert idx.digest(folder) != before
