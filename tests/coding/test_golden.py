"""Golden `.ticket` files of version 1: our reader and one written from the page alone read them.

`python -m tests.coding.test_golden` writes files that are missing. A file is never written again:
every later release must read it.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import coding, trees
from lth_jax.coding import codecs
from lth_jax.coding.values import DTYPES
from tests.coding import page_reader
from tests.coding.page_reader import phases, read

FOLDER = Path(__file__).parent / "golden"


def mixed(size, modulus=101):
    """Integers without a visible order, the same on every machine."""
    i = np.arange(size, dtype=np.uint64)
    return ((i * np.uint64(2654435761) + (i >> np.uint64(3)) ** 2) % np.uint64(modulus)).astype(int)


def sparse(shape, percent):
    return (mixed(np.prod(shape, dtype=int), 10_007) % 100 < percent).reshape(shape)


def uneven():
    """Empty rows and columns, and two densities."""
    mask = sparse((60, 50), 40)
    mask[::3], mask[:, 40:] = False, False
    mask[1::6, :20] = True
    return mask


def two_of_four():
    ranks = mixed(8 * 6 * 5).reshape(6, 2, 4, 5).argsort(2, kind="stable")
    return (ranks < 2).reshape(6, 8, 5)


MASKS = {
    "constant": np.ones((3, 4), bool),
    "packbits": sparse((9, 7), 50),
    "enumerative": sparse((5, 8), 30),
    "rice": sparse((40, 25), 6),
    "n_of_m": two_of_four(),
    "gaps": sparse((30, 40), 20),
    "blocks": uneven(),
}


def ramp(shape, dtype):
    found = (mixed(np.prod(shape, dtype=int), 29) - 14).reshape(shape) / 8
    kind = np.dtype(dtype)
    if dtype == "bool" or not (jnp.issubdtype(kind, jnp.inexact)):
        return (np.abs(found * 8).astype(np.int8) % 2).astype(kind)
    return found.astype(np.float32).astype(kind)


def init(key):
    return {"w": jax.random.randint(key, (4, 3), -8, 8).astype(jnp.float32)}


def codes():
    """Each mask by its own code."""
    return MASKS, None, {}


def whole():
    """Masks that keep nothing, nearly all, and arrays without entries or axes."""
    masks = {
        "none": np.zeros((4, 4), bool),
        "most": sparse((20, 20), 90),
        "deep": sparse((2, 3, 4, 5), 30),
    }
    masks |= {"empty": np.zeros((0, 3), bool), "scalar": np.ones((), bool)}
    return masks, {name: ramp(mask.shape, "float32") for name, mask in masks.items()}, {}


def large():
    """Streams of several lanes, in masks and values."""
    masks = {"w": sparse((150, 200), 15), "even": sparse((64, 400), 50)}
    return masks, {n: ramp(m.shape, "int8").astype("float16") for n, m in masks.items()}, {}


def dtypes():
    params = {name: ramp((4, 5), name) for name in DTYPES if "complex" not in name}
    return {name: sparse((4, 5), 60) for name in params}, params, {}


def rounded(precision):
    def made():
        masks = {"w": sparse((30, 20), 40), "half": sparse((6, 5, 4), 50), "bias": np.ones(7, bool)}
        params = {name: ramp(mask.shape, "float32") * 1.7 for name, mask in masks.items()}
        params["half"] = params["half"].astype("float16")
        return masks, params, {"precision": precision}

    return made


def key():
    return {"w": sparse((4, 3), 50)}, None, {"initializer": ("integers", 7)}


MADE = {
    "codes": codes,
    "whole": whole,
    "large": large,
    "dtypes": dtypes,
    "bfloat16": rounded(coding.bfloat16()),
    "int8": rounded(coding.integers(8, -1)),
    "int3": rounded(coding.integers(3)),
    "key": key,
}


def write(name, path):
    masks, params, options = MADE[name]()
    if "initializer" in options:
        words, seed = options["initializer"]
        options = {"initializer": coding.Initializer(words, init, jax.random.key(seed))}
    prunable = {leaf: leaf != "bias" for leaf in masks}
    about = {"name": name, "from": "tests/coding/test_golden.py"}
    coding.save(path, masks, params, prunable=prunable, provenance=about, **options)


def write_missing():
    original = codecs.encode
    codecs.encode = lambda mask: original(
        mask, next((n for n, m in MASKS.items() if m is mask), None)
    )
    for name in MADE:
        path = FOLDER / f"{name}.ticket"
        if not path.exists():
            write(name, path)


def assert_bits(found, wanted):
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", MADE)
def test_both_readers_read_the_golden_file(name):
    data = (FOLDER / f"{name}.ticket").read_bytes()
    masks, params, options = MADE[name]()
    found, about = read(data)
    ours = coding.decode(data, init=init if name == "key" else None)
    assert about["provenance"]["name"] == name and list(found) == sorted(masks)
    for leaf, (mask, values) in found.items():
        assert_bits(mask, masks[leaf])
        assert_bits(ours.mask[leaf], masks[leaf])
        if values is not None:
            assert_bits(values, ours.params[leaf])
            if "precision" not in options:
                assert_bits(values, np.where(mask, params[leaf], np.zeros((), values.dtype)))
            else:
                step = np.abs(params[leaf]).max() / (3 if name == "int3" else 64)
                assert np.abs(values - params[leaf] * mask).max() <= step


def test_the_files_hold_every_code_and_every_precision():
    leaves = [
        leaf
        for name in MADE
        for leaf in read((FOLDER / f"{name}.ticket").read_bytes())[1]["leaves"]
    ]
    assert {leaf["codec"] for leaf in leaves} == set(codecs.CODECS)
    assert {leaf["precision"]["kind"] for leaf in leaves} == {"exact", "bfloat16", "integers"}
    assert {leaf["dtype"] for leaf in leaves} >= set(DTYPES) - {"complex64", "complex128"}
    sizes = [path.stat().st_size for path in FOLDER.glob("*.ticket")]
    assert sum(sizes) < 60_000


def test_a_file_holds_streams_of_many_lanes(monkeypatch):
    lanes = set()

    def seen(tables, uses):
        plan = phases(tables, uses)
        lanes.update(number for number, _, _ in plan)
        return plan

    monkeypatch.setattr(page_reader, "phases", seen)
    read((FOLDER / "large.ticket").read_bytes())
    assert {1, 4, 16} <= lanes


def test_the_first_file_is_read_too():
    found, about = read((FOLDER / "version_1.ticket").read_bytes())
    assert about["provenance"] == {"level": 5}
    ours = coding.load(FOLDER / "version_1.ticket").params
    for name, leaf in trees.to_named(ours).items():
        assert_bits(found[name][1], leaf)


@pytest.mark.parametrize("name", MADE)
def test_the_reader_of_the_page_reads_what_is_written_today(name, tmp_path):
    write(name, tmp_path / "new.ticket")
    found, _ = read((tmp_path / "new.ticket").read_bytes())
    for leaf, mask in MADE[name]()[0].items():
        assert_bits(found[leaf][0], mask)


if __name__ == "__main__":
    write_missing()
