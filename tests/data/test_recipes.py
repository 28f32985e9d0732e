"""Generated data, text and tables: prepared and read like all others."""

import functools
import importlib
import json
import shutil
import sys

import numpy as np
import pytest

from lth_jax import data
from lth_jax.data import prepare, sequences, sources

ASKED = {"seed": 0, "validation": 0}


def test_what_is_read_is_what_was_made(tmp_path):
    options = {"length": 3, "delay": 2, "train": 40, "test": 5}
    loaded, made = (
        data.load("copy", data_dir=tmp_path, **ASKED, **options),
        sequences.copy(**options),
    )
    for part, whole in ((loaded.train, made.train), (loaded.test, made.test)):
        np.testing.assert_array_equal(part.x, whole.x)
        np.testing.assert_array_equal(part.y, whole.y)
        assert part.x.dtype == part.y.dtype == np.int32
    assert loaded.classes == made.classes and loaded.groups == {}


def test_groups_stay_with_their_examples(tmp_path):
    options = {"visible": True, "train": 60, "test": 20}
    loaded = data.load("grouped", data_dir=tmp_path, seed=0, validation=15, **options)
    for split in ("train", "validation", "test"):
        x = getattr(loaded, split).x
        np.testing.assert_array_equal(loaded.groups[split], x[:, -1] > 0)
    assert [len(group) for group in loaded.groups.values()] == [45, 15, 20]


def test_a_minority_of_signals_is_upside_down(tmp_path):
    asked = {"data_dir": tmp_path, **ASKED, "data_seed": 3, "train": 300, "test": 20}
    plain, grouped = data.load("mnist1d", **asked), data.load("mnist1d", **asked, minority=0.2)
    assert plain.groups == {}
    for split in ("train", "test"):
        sign = 1 - 2 * grouped.groups[split][:, None]
        np.testing.assert_array_equal(getattr(grouped, split).x, sign * getattr(plain, split).x)
    assert 0.1 < grouped.groups["train"].mean() < 0.3  # 300 of which 60 are expected
    assert grouped.groups["test"].mean() == 0.5


def test_each_choice_of_options_is_prepared_once(tmp_path):
    def fingerprint(**options):
        return data.load(
            "grouped", data_dir=tmp_path, **ASKED, train=9, test=2, **options
        ).fingerprint

    first = fingerprint()
    assert fingerprint(minority=0.1) == first  # the default
    assert len(prepare.prepared_folders(tmp_path)) == 1
    assert fingerprint(data_seed=1) != first
    assert len(prepare.prepared_folders(tmp_path)) == 2


@pytest.mark.parametrize("is_partial", [False, True])
def test_a_generator_whose_code_changed_makes_other_data(tmp_path, monkeypatch, is_partial):
    text = """
import numpy as np
from lth_jax.data.made import Examples, Made

def steps(*, train: int = 8):
    part = Examples(SCALE * np.ones((train, 2), np.float32), np.arange(train) % 2)
    return Made(part, part, classes=2)
"""
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for scale in (1, 1, 2):
        (tmp_path / "own_steps.py").write_text(text.replace("SCALE", str(scale)))
        importlib.invalidate_caches()
        sys.modules.pop("own_steps", None)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        make = importlib.import_module("own_steps").steps
        make = functools.partial(make) if is_partial else make
        monkeypatch.setitem(sources.GENERATED, "own_steps", make)
        loaded = data.load("own_steps", data_dir=tmp_path / "data", **ASKED)
        found.append(loaded.train.x.max())
        assert len(prepare.prepared_folders(tmp_path / "data")) == (2 if scale == 2 else 1)
    assert found == [1, 1, 2]


def test_a_table_of_the_user_keeps_its_hash(tmp_path):
    (tmp_path / "people.csv").write_text("a,b,c\n" + "1,x,m\n2,y,f\n3,x,f\n" * 4)
    asked = {"manual_dir": tmp_path, **ASKED, "file": "people.csv", "target": "b", "group": "c"}
    loaded = data.load("csv", data_dir=tmp_path / "data", **asked)
    assert loaded.train.x.shape == (10, 3) and len(loaded.groups["test"]) == 2
    (tmp_path / "people.csv").write_text("a,b,c\n" + "7,x,m\n2,y,f\n3,x,f\n" * 4)
    assert data.load("csv", data_dir=tmp_path / "data", **asked).fingerprint != loaded.fingerprint


def test_text_is_stored_under_its_options_its_file_and_the_code(tmp_path, monkeypatch):
    (tmp_path / "tale").write_bytes(b"once upon a time " * 9)
    data.load("text", data_dir=tmp_path / "d", file=str(tmp_path / "tale"), window=4, **ASKED)
    (folder,) = prepare.prepared_folders(tmp_path / "d")
    monkeypatch.setattr(sources, "_code_of", lambda make: "other code")
    data.load("text", data_dir=tmp_path / "d", file=str(tmp_path / "tale"), window=4, **ASKED)
    assert len(prepare.prepared_folders(tmp_path / "d")) == 2
    info = json.loads((folder / "dataset_info.json").read_text())
    described = json.loads(info["configDescription"])
    assert described["options"] == {"window": 4, "unit": "characters", "limit": None}
    assert len(described["file"]) == 64


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("copy", {"lenght": 3}, "`lenght` is not an option of 'copy', .*; did you mean 'length'?"),
        ("copy", {"length": 0}, "`length` must lie in 1"),
        ("iris", {"train": 3}, "`train` is not an option of 'iris', which takes none"),
        ("text", {"file": "nowhere"}, "`file` 'nowhere' cannot be read"),
    ],
)
def test_bad_options_are_refused(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, data_dir=tmp_path, **ASKED, **options)
