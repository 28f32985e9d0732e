"""`encode` refuses what its own reader would refuse; whatever it writes, `decode` reads."""

import functools
import struct

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax import coding
from lth_jax.coding import container, manifest

MASK, PRUNABLE = {"w": np.eye(2, dtype=bool)}, {"w": True}


def ones(key):
    return {"w": np.ones((2, 2), np.float32)}


def initializer(name="ones", keys=()):
    key = jax.random.key(0)
    return coding.Initializer(name, ones, jax.random.split(key, keys) if keys else key)


def nested(depth):
    return functools.reduce(lambda inner, _: {"k": inner}, range(depth), {})


cyclic: dict = {}
cyclic["self"] = cyclic


@pytest.mark.parametrize(
    ("provenance", "error", "message"),
    [
        ([1, 2], TypeError, r"`provenance` is '\[1, 2\]'; a dictionary is needed"),
        ([], TypeError, "`provenance` is"),
        ("run 7", TypeError, "`provenance` is 'run 7'"),
        (0, TypeError, "`provenance` is"),
        ({1: 2}, ValueError, "the key 1 is not a str"),
        ({"a": {1: 2, "b": 3}}, ValueError, "at '/a' the key 1 is not a str"),
        ({"a": [0, float("nan")]}, ValueError, "at '/a/1' nan is not JSON"),
        ({"a": float("-inf")}, ValueError, "-inf is not JSON"),
        ({"a": 10**4400}, ValueError, "more than 4300 digits"),
        ({"a": np.int64(3)}, ValueError, "'3' of type int64 is not JSON"),
        ({"a": {1, 2}}, ValueError, "of type set is not JSON"),
        ({"a": b"x"}, ValueError, "of type bytes is not JSON"),
        (nested(101), ValueError, "nested more than 100 deep"),
        (cyclic, ValueError, "nested more than 100 deep"),
    ],
)
def test_provenance_that_is_no_json_object(provenance, error, message):
    with pytest.raises(error, match=message):
        coding.encode(MASK, prunable=PRUNABLE, provenance=provenance)


@pytest.mark.parametrize(
    "provenance",
    [None, {}, nested(100), {"a": 10**4299, "b": [None, True, -0.0, "\ud800", (1, 2)]}],
    ids=["none", "empty", "deep", "odd"],
)
def test_provenance_at_the_limits_comes_back(provenance):
    data = coding.encode(MASK, prunable=PRUNABLE, provenance=provenance)
    expected = provenance or {}
    if "b" in expected:
        expected = {**expected, "b": [None, True, -0.0, "\ud800", [1, 2]]}
    assert coding.decode(data).manifest.provenance == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=3))
def test_every_json_object_is_provenance(provenance):
    data = coding.encode(MASK, prunable=PRUNABLE, provenance=provenance)
    assert coding.decode(data).manifest.provenance == provenance


def test_a_header_that_is_too_long(monkeypatch):
    monkeypatch.setattr(container, "_MAX_HEADER", 4096)
    with pytest.raises(ValueError, match=r"its header takes \d+ bytes; at most 4096"):
        coding.encode(MASK, prunable=PRUNABLE, provenance={"x": "y" * 4096})
    forged = struct.pack("<Q", 5000) + b" " * 5000
    with pytest.raises(coding.TicketError, match="its header takes 5000 bytes; at most 4096"):
        coding.decode(forged)


def test_too_many_leaves(monkeypatch):
    monkeypatch.setattr(manifest, "_MAX_LEAVES", 3)
    mask = {name: np.ones(1, bool) for name in "abcd"}
    prunable = dict.fromkeys(mask, False)
    with pytest.raises(ValueError, match=r"`mask` .* it has 4 leaves; at most 3 are allowed"):
        coding.encode(mask, prunable=prunable)
    del mask["d"], prunable["d"]
    assert set(coding.decode(coding.encode(mask, prunable=prunable)).mask) == set("abc")


def test_too_many_axes():
    mask = {"w": np.ones((1,) * 32, bool)}
    assert coding.decode(coding.encode(mask, prunable=PRUNABLE)).mask["w"].ndim == 32
    with pytest.raises(ValueError, match=r"`mask` at 'w' .* is not the shape of a leaf"):
        coding.encode({"w": mask["w"][None]}, prunable=PRUNABLE)


@pytest.mark.parametrize(
    "names",
    [("a", "a/b"), ("a/b/c", "a"), ("a/b", "a/b/c/d"), ("x", "a", "a/b")],
    ids=str,
)
def test_leaves_inside_leaves(names):
    mask = {name: np.ones(2, bool) for name in names}
    with pytest.raises(ValueError, match=r"`mask` .* lies inside the leaf"):
        coding.encode(mask, prunable=dict.fromkeys(names, True))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (initializer(keys=2), r"`initializer` has keys of shape \(2,\); one key is needed"),
        (initializer(keys=9), "one key is needed"),
        (initializer(name=None), "named by a str, not by 'None'"),
        (initializer(name=7), "named by a str"),
        (coding.Initializer("ones", ones, np.arange(3, dtype=np.uint32)), r"the key \[0 1 2\]"),
        (coding.Initializer("ones", ones, "key"), "`initializer` has the key"),  # type: ignore
    ],
    ids=["two keys", "nine keys", "no name", "number", "three words", "str"],
)
def test_initializers_that_cannot_be_stored(start, message):
    with pytest.raises((ValueError, TypeError), match=message):
        coding.encode(MASK, prunable=PRUNABLE, initializer=start)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_key_of_every_kind_comes_back(impl):
    def draw(key):
        return {"w": jax.random.uniform(key, (2, 2))}

    start = coding.Initializer("draw", draw, jax.random.key(3, impl=impl))
    found = coding.decode(coding.encode(MASK, prunable=PRUNABLE, initializer=start), init=draw)
    np.testing.assert_array_equal(found.params["w"], np.where(MASK["w"], draw(start.key)["w"], 0))


def test_a_raw_key_comes_back():
    start = coding.Initializer("ones", ones, jax.random.PRNGKey(5))
    found = coding.decode(coding.encode(MASK, prunable=PRUNABLE, initializer=start), init=ones)
    assert found.manifest.initializer == ("ones", "threefry2x32", (0, 5))


@pytest.mark.parametrize(
    "precision",
    [
        coding.Precision("zip"),
        coding.Precision("exact", 3),
        coding.Precision("integers"),
        coding.Precision("integers", 9),
        coding.Precision("integers", 4.0),  # type: ignore[arg-type]
        coding.Precision("integers", 4, 0.0),  # type: ignore[arg-type]
        coding.Precision("bfloat16", 0, 1),
        coding.Precision("exact", np.int64(0)),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_precisions_that_no_reader_takes(precision):
    with pytest.raises(ValueError, match="`precision` cannot make a readable ticket"):
        coding.encode(MASK, ones(0), prunable=PRUNABLE, precision=precision)


def test_integers_of_numpy_are_integers():
    precision = coding.integers(np.int64(4), np.int32(-1))
    data = coding.encode(MASK, ones(0), prunable=PRUNABLE, precision=precision)
    assert coding.decode(data).manifest.leaves[0].precision == coding.integers(4, -1)
    with pytest.raises(TypeError, match=r"`bits` is 4.0; an integer is needed"):
        coding.integers(4.0)  # type: ignore[arg-type]


EMPTY = [(0,), (0, 4), (4, 0), (2, 0, 3)]
LONG = [(2**40, 0), (0, 2**40)]


@pytest.mark.parametrize(
    ("shape", "precision"),
    [
        *((shape, coding.exact()) for shape in EMPTY + LONG),
        *((s, coding.integers(4, 0)) for s in EMPTY),
    ],
    ids=str,
)
def test_empty_leaves_come_back_and_are_tabulated(shape, precision):
    leaf, mask = {"w": np.zeros(shape, np.float32)}, {"w": np.zeros(shape, bool)}
    data = coding.encode(mask, leaf, prunable=PRUNABLE, precision=precision)
    assert coding.decode(data).params["w"].shape == shape
    assert coding.table(data).total.size == 0
