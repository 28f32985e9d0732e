from pathlib import Path

import numpy as np
import pytest

from lth_jax import store
from lth_jax.report.levels import level_of, read_run
from tests.report import synthetic


def split(node, size):
    """The node as two chunks of its members."""

    rows = list(range(len(node.facts.members)))
    return [node.take(rows[:size]), node.take(rows[size:])]


def test_what_was_written_is_read(run, written):
    assert run.info == written
    assert [level.level for level in run.levels] == [0, 1, 2, 3]
    assert run.arms == ["dense", "ticket", "reinit", "shuffle", "random"]
    assert run.plan == {"chunk": 20, "driver": "vmap"}
    assert run.config == {"dataset": "mnist1d", "levels": 6}
    assert "versions" in run.environments[0]


def test_masks_are_reduced_to_prunable_leaves(run):
    level = run.levels[2]
    assert level.leaf_sizes == {k: int(np.prod(v)) for k, v in synthetic.LEAVES.items()}
    kept = sum(level.leaf_densities[k][0] * size for k, size in level.leaf_sizes.items())
    assert kept / sum(level.leaf_sizes.values()) == pytest.approx(level.density)


def test_overlaps_leave_out_the_ticket_that_diverged(run):
    assert len(run.levels[1].overlaps) == 10
    assert sorted(run.levels[2].overlaps) == [(0, 1), (0, 2), (0, 4), (1, 2), (1, 4), (2, 4)]
    assert run.levels[0].overlaps == {}


def test_chunks_of_a_level_are_joined():
    node = synthetic.ladder(levels=1)[1]
    whole, joined = level_of([node]), level_of(split(node, 7))
    assert joined.members == whole.members
    assert joined.overlaps == whole.overlaps
    for name in ("results", "curves", "leaf_densities"):
        for key, value in getattr(whole, name).items():
            np.testing.assert_array_equal(getattr(joined, name)[key], value)
    assert joined.seconds == pytest.approx(whole.seconds)


def test_chunks_that_do_not_belong_together_are_refused():
    node = synthetic.ladder(levels=1)[1]
    with pytest.raises(store.CorruptError, match="level 1 holds the same arm and replicate twice"):
        level_of([node, node])
    first, second = split(node, 7)
    second = second._replace(eval_steps=second.eval_steps + 1)
    with pytest.raises(store.CorruptError, match="level 1 were evaluated at different steps"):
        level_of([first, second])


def test_a_run_without_a_finished_level_has_none(read):
    run = read([], finish=False)
    assert (run.levels, run.arms, run.info.status) == ((), [], "interrupted")


def test_nodes_that_are_no_level_are_passed_over(tmp_path):
    info = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=1), finish=False)
    shelf = store.Store(tmp_path)
    key = store.content_key("a measure")
    shelf.node(key, lambda _: ({"value": np.zeros(1)}, {"kind": "stability"}))
    with store.open_run(
        tmp_path, name="ladder", config=read_run(shelf, info.path).config, env={}
    ) as r:
        r.add(key)
    assert len(read_run(shelf, info.path).levels) == 2


def test_a_flipped_bit_is_found(tmp_path):
    info = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=1))
    meta = next((tmp_path / "nodes").rglob("meta.json"))
    meta.write_text(meta.read_text().replace("1500", "1501"))
    with pytest.raises(store.CorruptError, match="does not match its SHA-256"):
        read_run(store.Store(tmp_path), info.path)


def test_a_torn_manifest_is_one_sentence(tmp_path):
    info = synthetic.write(tmp_path, nodes=[])
    manifest = Path(info.path, "manifest.json")
    manifest.write_text(manifest.read_text()[:-9])
    with pytest.raises(store.CorruptError, match=r"manifest\.json is damaged"):
        read_run(store.Store(tmp_path), info.path)
