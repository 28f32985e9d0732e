import json
import resource
import struct

import jax
import numpy as np
import pytest

from lth_jax import coding
from lth_jax.coding import codecs, container
from tests.coding import fuzz_tickets

MASK = {"a": np.arange(4000).reshape(40, 100) % 9 == 0, "b": np.ones(5, bool)}
DATA = coding.encode(MASK, prunable={"a": True, "b": False}, provenance={"level": 1})


def test_thousands_of_damaged_and_forged_files():
    seen = fuzz_tickets.fuzz(cases=500, seed=0)
    assert {mutation for mutation, _ in seen} == {
        m.__name__ for m in (*fuzz_tickets.ACCIDENTS, *fuzz_tickets.FORGERIES)
    }
    refused = sum(count for (_, got), count in seen.items() if got == "refused")
    assert refused > 430


@pytest.mark.exhaustive
def test_many_thousands_of_damaged_and_forged_files():
    assert fuzz_tickets.fuzz(cases=20_000, seed=1).total() == 20_000


def test_every_single_bit_of_a_file_is_guarded():
    mask = {"w": np.arange(90).reshape(9, 10) % 7 == 0}
    data = coding.encode(mask, prunable={"w": True})
    original = coding.decode(data)
    for at in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        assert fuzz_tickets.outcome(bytes(damaged), original, None) != "another"


def test_every_truncation_is_refused():
    for length in range(len(DATA)):
        with pytest.raises(coding.TicketError):
            coding.decode(DATA[:length])


def forged(**changes):
    opened = container.read(DATA, len(DATA))
    blobs = {name: DATA[blob.start : blob.stop] for name, blob in opened.blobs.items()}
    leaves = [{**leaf, **changes.pop("leaf", {})} for leaf in opened.manifest["leaves"][:1]]
    about = {**opened.manifest, "leaves": leaves + opened.manifest["leaves"][1:], **changes}
    return container.write(fuzz_tickets._sign(about), blobs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2; this library reads versions up to 1"),
        ({"leaves": [{}]}, "no str 'name'"),
        ({"values": "elsewhere"}, "'elsewhere', which is not one of"),
        ({"values": "initializer"}, "'initializer', which is not one of"),
        ({"extra": 1}, "SHA-256"),
        ({"leaf": {"shape": [2**20, 2**20]}}, "`max_bytes` allows"),
        ({"leaf": {"shape": [-1, 4]}}, "not the shape"),
        ({"leaf": {"shape": [1] * 33}}, "not the shape"),
        ({"leaf": {"kept": 4001}}, "cannot keep 4001 of 4000"),
        ({"leaf": {"kept": True}}, "no int 'kept'"),
        ({"leaf": {"prunable": False}}, "cannot keep"),
        ({"leaf": {"name": "../a"}}, "cannot be the name"),
        ({"leaf": {"name": "b"}}, "two of its leaves have one name"),
        ({"leaf": {"name": "c"}}, "entries do not match its leaves"),
        ({"leaf": {"dtype": "object"}}, "unknown dtype 'object'"),
        ({"leaf": {"codec": "zip"}}, "'a': a mask is coded by 'zip'"),
        ({"leaf": {"codec": "packbits"}}, "at leaf 'a'"),
        ({"leaf": {"kept": 444}}, "at leaf 'a'"),
        ({"leaf": {"sha256": "0" * 64}}, "at leaf 'a': it does not decode to"),
        ({"leaf": {"precision": {"kind": "exact", "bits": 3, "channel_axis": None}}}, "precision"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(coding.TicketError, match=message):
        coding.decode(forged(**changes))


def raw(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too short"),
        (b"PK\3\4" * 8, "states"),
        (struct.pack("<Q", 2**63) + b"{}", "states"),
        (raw(b"{" * 100_000), "not JSON"),
        (raw(b'{"a":' * 5000), "not JSON"),
        (raw(b"\xff\xfe"), "not JSON"),
        (raw(b"[]"), "not a JSON object"),
        (raw(b'{"a":1,"a":2}'), "has a key twice"),
        (raw(b'{"a":NaN}'), "NaN"),
        (raw(b'{"a":-1e999}'), "-1e999"),
        (raw(b"{}"), "not a ticket"),
        (raw(b'{"a":' + b"9" * 5000 + b"}"), "not JSON"),
        (raw(json.dumps({"__metadata__": {container.METADATA: "{}", "x": 1}}).encode()), "no int"),
        (DATA + b"\0", "describes"),
    ],
)
def test_containers_that_are_none_are_refused(data, message):
    with pytest.raises(coding.TicketError, match=message):
        coding.decode(data)


@pytest.mark.parametrize(
    "entry",
    [
        1,
        {"dtype": "U8", "shape": [1]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "U8", "shape": [1, 1], "data_offsets": [0, 1]},
        {"dtype": "U8", "shape": [-1], "data_offsets": [0, -1]},
        {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]},
        {"dtype": "U8", "shape": [2**62], "data_offsets": [0, 2**62]},
        {"dtype": "U8", "shape": ["1"], "data_offsets": [0, "1"]},
    ],
)
def test_blobs_that_do_not_follow_each_other_are_refused(entry):
    header = {"__metadata__": {container.METADATA: "{}"}, "mask:a": entry}
    with pytest.raises(coding.TicketError):
        coding.decode(raw(json.dumps(header).encode(), b"x"))


def test_the_error_names_the_path(tmp_path):
    path = tmp_path / "broken.ticket"
    path.write_bytes(DATA[:-1])
    for read in (coding.load, coding.inspect, lambda p: coding.load_leaf(p, "a")):
        with pytest.raises(coding.TicketError, match=r"broken.ticket' is not a readable ticket"):
            read(path)


def test_a_small_file_cannot_ask_for_much_memory():
    """A mask that is all True takes no bytes: only the limit stands between it and the memory."""
    huge = forged(leaf={"shape": [2**15, 2**15], "kept": 2**30, "codec": "constant"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(coding.TicketError, match=r"`max_bytes` allows 1000000"):
        coding.decode(huge, max_bytes=1_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_a_forged_key_is_refused():
    start = coding.Initializer("zeros", lambda _: {"w": np.zeros((2, 2))}, jax.random.key(0))
    data = coding.encode({"w": np.eye(2, dtype=bool)}, prunable={"w": True}, initializer=start)
    opened = container.read(data, len(data))
    blobs = {name: data[blob.start : blob.stop] for name, blob in opened.blobs.items()}
    for change in ({"data": [1]}, {"implementation": "none"}, {"data": [-1, 2]}, {"name": 3}):
        about = {**opened.manifest, "initializer": {**opened.manifest["initializer"], **change}}
        with pytest.raises(coding.TicketError, match=r"key|no str"):
            coding.decode(container.write(fuzz_tickets._sign(about), blobs), init=start.init)


@pytest.mark.parametrize("value", [{}, [], "", 0, False, {"name": "z"}, {"name": None}], ids=str)
@pytest.mark.parametrize("init", [None, lambda _: {"w": np.zeros((2, 2))}], ids=["none", "init"])
def test_a_forged_initializer_is_refused(value, init):
    start = coding.Initializer("zeros", lambda _: {"w": np.zeros((2, 2))}, jax.random.key(0))
    data = coding.encode({"w": np.eye(2, dtype=bool)}, prunable={"w": True}, initializer=start)
    opened = container.read(data, len(data))
    blobs = {name: data[blob.start : blob.stop] for name, blob in opened.blobs.items()}
    about = fuzz_tickets._sign({**opened.manifest, "initializer": value})
    with pytest.raises(coding.TicketError):
        coding.decode(container.write(about, blobs), init=init)


HUGE = [[2**63 - 1, 2**63 - 1, 0], [2**40, 0, 2**40], [0, 2**63 - 1], [2**62, 0], [2**59, 0]]


@pytest.mark.parametrize("shape", HUGE, ids=str)
@pytest.mark.parametrize("codec", codecs.CODECS)
def test_a_zero_axis_beside_huge_ones_is_refused(shape, codec):
    """It has no entries, so no limit on bytes objects, but numpy cannot make every such array."""
    data = coding.encode({"w": np.zeros((0, 4), bool)}, prunable={"w": True})
    opened = container.read(data, len(data))
    about = opened.manifest
    about["leaves"][0] |= {"shape": shape, "codec": codec}
    forged_ = container.write(fuzz_tickets._sign(about), {"mask:w": b""})
    with pytest.raises(coding.TicketError, match="is not the shape of a leaf"):
        coding.decode(forged_)
