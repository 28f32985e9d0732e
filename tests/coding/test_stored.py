from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lth_jax import cli, coding, keys, schema, store
from lth_jax.coding import run_size, stored
from lth_jax.lottery.spec import Seeds
from lth_jax.lottery.starts import starts_of
from tests.report import synthetic

LOST = (1, "ticket", 2)


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    nodes = synthetic.ladder(levels=1, replicates=3, diverged=[LOST])
    config = {"prune": {"criterion": "magnitude", "scope": "globally"}}
    return synthetic.write(tmp_path_factory.mktemp("runs"), nodes=nodes, config=config)


@pytest.fixture(scope="module")
def shelf(info):
    return store.Store(Path(info.path).parent)


@pytest.fixture(scope="module")
def ticket(shelf, info):
    return stored.find_stored(shelf, info, arm="ticket", level=1, replicate=1)


def node_of(shelf, info, level):
    return schema.read_entry(shelf, schema.read_entries(info.path)[level])


def test_the_networks_of_a_run_in_order(shelf, info):
    found = list(stored.read_stored(shelf, info.path))
    assert [(one.arm, one.level, one.replicate) for one in found] == [
        *(("dense", 0, i) for i in range(3)),
        *(("ticket", 1, i) for i in range(3)),
    ]
    assert [one.diverged_at for one in found] == [None] * 5 + [300]
    controls = stored.read_stored(shelf, info.path, arms=("random",))
    assert {one.arm for one in controls} == {"random"}


def test_a_stored_ticket_is_the_member_that_was_trained(shelf, info, ticket):
    node = node_of(shelf, info, 1)
    for name in synthetic.LEAVES:
        np.testing.assert_array_equal(ticket.mask[name], node.mask[name][1])
        np.testing.assert_array_equal(ticket.params[name], node.points["end"].params[name][1])
        assert ticket.prunable[name] and not ticket.prunable[synthetic.BIAS]


def test_a_shared_dense_level_does_not_say_which_leaves_a_run_prunes(tmp_path):
    dense, level = synthetic.ladder(levels=1, replicates=1)
    # Written by a run that prunes the bias too.
    leaves = tuple(leaf._replace(prunable=True) for leaf in dense.facts.leaves)
    dense = dense._replace(facts=dense.facts._replace(leaves=leaves))
    info = synthetic.write(tmp_path, nodes=[dense, level])
    found = list(stored.read_stored(store.Store(tmp_path), info.path))
    found.append(stored.find_stored(store.Store(tmp_path), info, arm="dense", level=0, replicate=0))
    assert [one.arm for one in found] == ["dense", "ticket", "dense"]
    assert all(one.prunable == found[1].prunable for one in found)
    assert not found[0].prunable[synthetic.BIAS]


@pytest.mark.parametrize("values", [stored.TRAINED, stored.REWOUND])
def test_a_saved_ticket_decodes_to_what_the_run_holds(shelf, info, ticket, values):
    back = coding.decode(
        stored.encode_stored(shelf, info, ticket, values=values), like=ticket.params
    )
    expected = ticket.params
    if values == stored.REWOUND:
        dense = node_of(shelf, info, 0).points["rewound"].params
        expected = {name: leaf[1] * ticket.mask[name] for name, leaf in dense.items()}
    for name, leaf in expected.items():
        np.testing.assert_array_equal(back.params[name], leaf)
        np.testing.assert_array_equal(back.mask[name], ticket.mask[name])
    about = back.manifest.provenance
    assert about["config_hash"] == info.config_hash and about["values"] == values
    assert (about["criterion"], about["scope"]) == ("magnitude", "globally")


def test_each_node_is_read_once(shelf, info, monkeypatch):
    """Starts of many replicates read a node of dense networks once, and no other levels."""
    reads, read = [], store.Store.read
    monkeypatch.setattr(store.Store, "read", lambda self, key: reads.append(key) or read(self, key))
    tickets = list(stored.read_stored(shelf, info.path, ("ticket",), levels=(1,)))
    assert {one.level for one in tickets} == {1} and len(tickets) == 3
    found = stored.rewound(shelf, info, tickets)
    dense = node_of(shelf, info, 0).points["rewound"].params
    for i, (params, _) in enumerate(found):
        for name, leaf in dense.items():
            np.testing.assert_array_equal(params[name], leaf[i] * tickets[i].mask[name])
    levels = [entry.key for entry in schema.read_entries(info.path)]
    assert Counter(reads) == {levels[1]: 1, levels[0]: 2}  # `node_of` reads it, too
    reads.clear()
    starts_of(shelf, info.path, Seeds(keys.from_seed(0), 3), ("ticket",), 1)
    assert Counter(reads) == {levels[0]: 2, levels[1]: 1}  # as networks, and as rewind points


def test_rewound_values_are_the_tickets_alone(shelf, info):
    control = stored.find_stored(shelf, info, arm="shuffle", level=1, replicate=0)
    with pytest.raises(store.StoreError, match="'shuffle' is a control"):
        stored.encode_stored(shelf, info, control, values=stored.REWOUND)


def test_sizes_of_a_run_are_those_of_its_files(shelf, info):
    rows = {(row["level"], row["metric"]): row for row in run_size.size_rows(shelf, info.path)}
    tickets = [
        stored.find_stored(shelf, info, arm="ticket", level=1, replicate=i) for i in range(2)
    ]
    for name, precision in run_size.PRECISIONS.items():
        files = [
            len(coding.encode(t.mask, t.params, prunable=t.prunable, precision=precision))
            for t in tickets
        ]
        row = rows[1, f"file_{name}_bytes"]
        assert row["values"] == files and row["mean"] == pytest.approx(np.mean(files))
        assert row["replicates"] == 2  # the third diverged
        assert rows[0, f"file_{name}_bytes"]["arm"] == "dense"
    assert rows[0, "mask_bytes"]["mean"] == 0
    assert rows[1, "mask_enumerative_bytes"]["mean"] <= rows[1, "mask_entropy_layers_bytes"]["mean"]
    entries = sum(int(np.prod(shape)) for shape in synthetic.LEAVES.values()) + 50
    assert rows[1, "dense_8_bytes"]["mean"] == entries


def test_one_replicate_has_no_interval(tmp_path):
    info = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=0, replicates=1))
    for row in run_size.size_rows(store.Store(tmp_path), info.path):
        assert row["low"] is row["high"] is None and row["values"] == [row["mean"]]


def test_a_run_without_levels_has_no_sizes(tmp_path):
    info = synthetic.write(tmp_path, nodes=[])
    assert run_size.size_rows(store.Store(tmp_path), info.path) == []


def test_the_command_line_knows_every_precision(info, tmp_path, capsys):
    place = ["--root", str(Path(info.path).parent), "--level", "1", "--replicate", "0"]
    for name, precision in run_size.PRECISIONS.items():
        path = tmp_path / f"{name}.ticket"
        assert cli.main(["export", info.run, str(path), "--precision", name, *place]) == 0
        leaves = {leaf.name: leaf for leaf in coding.inspect(path).manifest.leaves}
        assert leaves["Dense_0/kernel"].precision == precision
    assert capsys.readouterr().err == ""
