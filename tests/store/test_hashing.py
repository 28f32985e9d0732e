import json
import math
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax.store import canonical, content_key, fingerprint, source_fingerprint
from lth_jax.store.hashing import plain

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


class Rates(NamedTuple):
    decay: float
    levels: tuple[int, ...]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(VALUES)
def test_canonical_json_says_all_there_is(value):
    assert json.loads(canonical(value)) == value
    assert canonical(json.loads(canonical(value))) == canonical(value)


def test_order_of_keys_and_kind_of_sequence_do_not_matter():
    assert canonical({"a": (1, 2), "b": None}) == canonical({"b": None, "a": [1, 2]})


def test_different_types_have_different_keys():
    values = [1, 1.0, True, "1", None, [1], {"1": 1}, [], {}, 0, 0.0, -0.0, False, "", "None"]
    assert len({content_key(value) for value in values}) == len(values)


def test_numpy_scalars_and_named_tuples_are_their_plain_selves():
    assert canonical(np.float64(0.1)) == canonical(0.1)
    assert canonical(np.int32(3)) == canonical(3)
    assert canonical(np.bool_(True)) == "true"
    assert canonical(Rates(0.1, (1, 2))) == '{"decay":0.1,"levels":[1,2]}'


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_not_finite_is_refused_by_place(bad):
    with pytest.raises(ValueError, match=r"`obj.optimizer\[1\].rate` must be a finite number"):
        canonical({"optimizer": [{}, {"rate": bad}]})


def test_what_is_not_finite_can_become_null():
    assert plain({"loss": [math.nan, 1.0, -math.inf]}, nan_as_null=True) == {
        "loss": [None, 1.0, None]
    }


@pytest.mark.parametrize("bad", [np.zeros(2), jnp.zeros(()), {1, 2}, b"bytes", len, 1j])
def test_what_has_no_json_is_refused_by_place(bad):
    with pytest.raises(TypeError, match=r"`obj\.a` must be None, a bool"):
        canonical({"a": bad})


def test_keys_must_be_strings():
    with pytest.raises(TypeError, match=r"`obj\.a` must have strings as keys, got 1"):
        canonical({"a": {1: 2}})


def test_a_key_is_fixed_forever():
    # Stored results are found by these: a change here orphans every store there is.
    assert content_key({"rate": 0.1, "levels": (1, 2)}) == (
        "ddec5a99b80d6701787e601cd3b3ab615ede70c573d4e8d07224dea235e39b22"
    )


def test_fingerprint_sees_names_dtypes_shapes_bytes_and_key_kinds():
    key = jax.random.key(0)
    trees = [
        {"w": np.zeros(4, np.float32)},
        {"v": np.zeros(4, np.float32)},
        {"w": np.zeros(4, np.int32)},
        {"w": np.zeros((2, 2), np.float32)},
        {"w": np.array([0, 0, 0, 1e-45], np.float32)},
        {"w": -np.zeros(4, np.float32)},
        {"w": jnp.zeros(4, jnp.bfloat16)},
        {"w": np.zeros(4, bool)},
        {"w": np.zeros((0, 4), np.float32)},
        {"w": key},
        {"w": jax.random.key_data(key)},
        {"w": jax.random.key(0, impl="rbg")},
        {},
    ]
    assert len({fingerprint(tree) for tree in trees}) == len(trees)


def test_fingerprint_does_not_see_where_or_how_arrays_lie():
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    assert fingerprint([array]) == fingerprint([jnp.asarray(array)])
    assert fingerprint([array]) == fingerprint([np.asfortranarray(array)])


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "made_for_hashing"
    (root / "inner").mkdir(parents=True)
    for name in ("__init__.py", "a.py", "inner/__init__.py", "inner/b.py"):
        (root / name).write_text("raise AssertionError('sources are read, not run')\n")
    (root / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield root
    sys.modules.pop("made_for_hashing", None)


@pytest.mark.parametrize("name", ["__init__.py", "a.py", "inner/b.py"])
def test_source_fingerprint_sees_every_file_of_a_package(package, name):
    before = source_fingerprint("made_for_hashing")
    assert source_fingerprint("made_for_hashing") == before
    (package / name).write_text("changed = True\n")
    assert source_fingerprint("made_for_hashing") != before


def test_source_fingerprint_sees_code_and_not_comments(package):
    def of(source):
        (package / "a.py").write_text(source)
        return source_fingerprint("made_for_hashing")

    plain = of("def f(x):\n    return x + 1\n")
    reported = '"""A module."""\ndef f(x):  # adds\n    """Adds."""\n\n    return (x + 1)\n'
    assert of(reported) == plain
    assert of(f"{reported}x = 1\n'One.'\n") == of("def f(x):\n    return x + 1\nx = 1\n") != plain
    changed = ["def f(x):\n    return x + 2\n", "def f(x, y=0):\n    return x + 1\n"]
    assert len({plain, of("def f("), *map(of, changed)}) == 4  # one of them cannot be parsed


def test_source_fingerprint_of_a_module_sees_that_module_only(package):
    before = source_fingerprint("made_for_hashing.a")
    (package / "inner" / "b.py").write_text("changed = True\n")
    assert source_fingerprint("made_for_hashing.a") == before
    (package / "a.py").rename(package / "c.py")
    assert source_fingerprint("made_for_hashing.c") != before


@pytest.mark.parametrize("name", ["no_such_module", "lth_jax.no_such", "math", "no.such"])
def test_source_fingerprint_names_what_it_cannot_read(name):
    with pytest.raises(ValueError, match=f"`modules` must name .*'{name}'"):
        source_fingerprint(name)
