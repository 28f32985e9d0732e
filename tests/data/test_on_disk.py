"""Training inputs that stay on disk are those that would have been read."""

import concurrent.futures

import numpy as np
import pytest

from lth_jax import data


def load(folder, **more):
    return data.load("digits", data_dir=folder, seed=0, validation=100, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def both(folder):
    return load(folder), load(folder, most_bytes=0)


@pytest.mark.parametrize("rows", [slice(3), slice(5, None, 400), [7, 2, 2], []])
def test_rows_are_those_in_memory(both, rows):
    there = rows if isinstance(rows, slice) else np.array(rows, int)
    read, stored = (loaded.train.x for loaded in both)
    np.testing.assert_array_equal(stored[there], read[there], strict=True)


def test_it_describes_itself_as_the_array_does(both):
    read, stored = (loaded.train.x for loaded in both)
    assert isinstance(stored, data.OnDisk) and isinstance(read, np.ndarray)
    for name in ("shape", "dtype", "nbytes"):
        assert getattr(stored, name) == getattr(read, name)
    assert len(stored) == len(read)


def test_where_data_are_does_not_change_what_they_are(both):
    read, stored = both
    assert stored.fingerprint == read.fingerprint
    np.testing.assert_array_equal(stored.train.y, read.train.y, strict=True)
    np.testing.assert_array_equal(stored.validation.x, read.validation.x, strict=True)
    part = stored.train.x.part(np.array([4, 1]))
    np.testing.assert_array_equal(part[:], read.train.x[[4, 1]], strict=True)


def test_threads_read_at_once(both):
    read, stored = (loaded.train.x for loaded in both)
    rows = [np.arange(i, 1300, 13) for i in range(8)]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for there, found in zip(rows, threads.map(stored.__getitem__, rows), strict=True):
            np.testing.assert_array_equal(found, read[there])


def test_only_what_is_too_large_stays_on_disk(folder, both):
    size = 1437 * 8 * 8 * 4  # of the split that validation is held out of
    assert isinstance(load(folder, most_bytes=size).train.x, np.ndarray)
    assert isinstance(load(folder, most_bytes=size - 1).train.x, data.OnDisk)
