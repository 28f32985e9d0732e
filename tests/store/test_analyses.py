"""The list of what was measured on a run: twice on disk, so that neither copy can be lost."""

import pytest

from lth_jax.store import CorruptError, Store, open_run
from lth_jax.store.analyses import COPIES, add_analysis, analyses, mend_list
from lth_jax.store.verify import verify_run

KEYS = ["a" * 64, "b" * 64]


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path, name="demo", config={}, env={}) as run:
        run.finish()
    for level, key in enumerate(KEYS):
        add_analysis(run.path, key, {"kind": "spectrum", "level": level})
    return run.path


def listed(run):
    return [entry["key"] for entry in analyses(run, "spectrum")]


def problems(run):
    return [p.path.name for p in verify_run(Store(run.parent), run) if "nodes" not in p.path.parts]


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"nodes": []}'])
def test_either_copy_is_enough_and_makes_the_other(run, name, content):
    (run / name).unlink() if content is None else (run / name).write_bytes(content)
    assert listed(run) == KEYS
    assert problems(run) == [name]
    mend_list(run)
    assert problems(run) == [] and listed(run) == KEYS
    assert (run / COPIES[0]).read_bytes() == (run / COPIES[1]).read_bytes()


def test_two_damaged_copies_are_named_and_begun_anew(run):
    for name in COPIES:
        (run / name).write_bytes(b"{")
    with pytest.raises(CorruptError, match="analyses"):
        analyses(run, "spectrum")
    add_analysis(run, KEYS[0], {"kind": "spectrum", "level": 0})
    assert listed(run) == KEYS[:1]


def test_a_run_without_measurements_has_no_list(tmp_path):
    with open_run(tmp_path, name="demo", config={}, env={}) as run:
        run.finish()
    assert analyses(run.path, "spectrum") == [] == problems(run.path)
