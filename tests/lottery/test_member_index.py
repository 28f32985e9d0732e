"""Members of nodes are found by their own keys."""

import pytest

from lth_jax import store
from lth_jax.lottery import MemberIndex, NodeSlot
from lth_jax.schema import to_node
from lth_jax.store import Node, content_key
from tests.test_schema import population

KEYS = [content_key(name) for name in ("first", "second")]


@pytest.fixture
def shelf(tmp_path):
    shelf = store.Store(tmp_path)
    for key, names in zip(KEYS, ("ab", "bc"), strict=True):
        shelf.node(key, lambda partial, names=names: to_node(population(names)))
    return shelf


def test_members_are_found_wherever_they_are(shelf):
    index = MemberIndex(shelf)
    assert index.find("a") is None
    index.refresh()
    first, second = KEYS
    assert (index.find("a"), index.find("c")) == (NodeSlot(first, 0), NodeSlot(second, 1))
    # Two nodes hold it; the result is always the same.
    assert index.find("b") == min(NodeSlot(first, 1), NodeSlot(second, 0))
    assert index.find("d") is None


def test_a_refresh_sees_what_others_finished(shelf):
    index = MemberIndex(shelf)
    index.refresh()
    key = content_key("third")
    shelf.ensure(key, lambda partial: to_node(population("d")))
    index.refresh()
    assert index.find("d") == NodeSlot(key, 0)


def test_other_nodes_and_damaged_ones_are_left_aside(shelf, caplog):
    shelf.node(content_key("other"), lambda partial: Node({}, {"what": "no population"}))
    arrays, meta = to_node(population("e"))
    shelf.node(content_key("old"), lambda partial: Node(arrays, {**meta, "version": 0}))
    path = shelf.root / "nodes" / KEYS[0][:2] / KEYS[0] / "meta.json"
    path.write_text("{")
    index = MemberIndex(shelf)
    index.refresh()
    assert index.find("e") is None
    assert index.find("a") is None and KEYS[0][:8] in caplog.text
    assert index.find("b") == NodeSlot(KEYS[1], 0)
