"""Members of a node: found by their own keys, and taken out of a population."""

import numpy as np
import pytest

from lth_jax import store
from lth_jax.store import MemberIndex, Node, NodeSlot, content_key, read_entry, take_members

KEYS = [content_key(name) for name in ("first", "second")]


def population(names, **meta):
    n = len(names)
    return Node(
        {
            "results": {"loss": np.arange(n) / 10},
            "history": {
                "step": np.array([5, 10, 15]),
                "train_loss": np.arange(3 * n).reshape(3, n),
            },
            "mask": {"w": np.arange(2 * n).reshape(n, 2) % 3 == 0},
            "end": {"params": {"w": np.arange(2.0 * n).reshape(n, 2)}, "state": {}},
        },
        {
            "members": [{"arm": name} for name in names],
            "member_keys": [content_key(name) for name in names],
            "densities": [1 / (i + 1) for i in range(n)],
            "density": 1.0,
            "seconds": 3.0,
            **meta,
        },
    )


@pytest.fixture
def shelf(tmp_path):
    shelf = store.Store(tmp_path)
    for key, names in zip(KEYS, ("ab", "bc"), strict=True):
        shelf.node(key, lambda partial, names=names: population(names))
    return shelf


def test_members_are_found_wherever_they_are(shelf):
    index = MemberIndex(shelf)
    assert index.find(content_key("a")) is None
    index.refresh()
    a, b, c = (index.find(content_key(name)) for name in "abc")
    first, second = KEYS
    assert (a, c) == (NodeSlot(first, 0), NodeSlot(second, 1))
    assert b == min(
        NodeSlot(first, 1), NodeSlot(second, 0)
    )  # two hold it; always the same one is named
    assert index.find(content_key("d")) is None


def test_a_refresh_sees_what_others_finished(shelf):
    index = MemberIndex(shelf)
    index.refresh()
    key = content_key("third")
    shelf.ensure(key, lambda partial: population("d"))
    index.refresh()
    assert index.find(content_key("d")) == NodeSlot(key, 0)


def test_nodes_of_other_kinds_and_damaged_ones_are_left_aside(shelf, caplog):
    shelf.node(content_key("other"), lambda partial: Node({}, {"what": "no population"}))
    path = shelf.root / "nodes" / KEYS[0][:2] / KEYS[0] / "meta.json"
    path.write_text("{")
    index = MemberIndex(shelf)
    index.refresh()
    assert index.find(content_key("a")) is None and KEYS[0][:8] in caplog.text
    assert index.find(content_key("b")) == NodeSlot(KEYS[1], 0)


def test_some_members_make_a_node_of_their_own():
    whole = population("abc")
    node = take_members(whole, [2, 0])
    np.testing.assert_array_equal(node.arrays["results"]["loss"], [0.2, 0.0])
    np.testing.assert_array_equal(node.arrays["history"]["step"], [5, 10, 15])
    np.testing.assert_array_equal(
        node.arrays["history"]["train_loss"], whole.arrays["history"]["train_loss"][:, [2, 0]]
    )
    np.testing.assert_array_equal(node.arrays["end"]["params"]["w"], [[4, 5], [0, 1]])
    assert [member["arm"] for member in node.meta["members"]] == ["c", "a"]
    assert node.meta["densities"] == [1 / 3, 1] and node.meta["density"] == 1 / 3
    assert node.meta["seconds"] == 2.0
    assert take_members(whole, [0, 1, 2]) is whole


def test_a_manifests_entry_names_its_rows(shelf):
    node = read_entry(shelf, {"key": KEYS[0], "rows": [1]})
    assert [member["arm"] for member in node.meta["members"]] == ["b"]
    assert len(read_entry(shelf, {"key": KEYS[0]}).meta["members"]) == 2
