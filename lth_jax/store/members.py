"""Nodes that hold many results side by side, each with a key of its own.

A level's node is a population: every array has the member axis first, those of `history` second
(see `take_members`). Its `meta` lists `members`, in that order, and `member_keys`, the content key
of each. So a member that several runs have in common is trained once, whoever trains beside it.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax.store.errors import CorruptError
from lth_jax.store.nodes import Node, Store

LOG = logging.getLogger(__name__)


class NodeSlot(NamedTuple):
    """Where a member is: its node, and its place on the node's member axis."""

    node: str
    row: int


class MemberIndex:
    """Which node of a store holds which member.

    Args:
      store: the store; read at `refresh`, so that nodes of other processes are seen.

    >>> import tempfile
    >>> from lth_jax.store import content_key
    >>> store, key = Store(tempfile.mkdtemp()), content_key("a population")
    >>> meta = {"member_keys": ["first", "second"]}
    >>> _ = store.node(key, lambda partial: Node({}, meta))
    >>> index = MemberIndex(store)
    >>> index.refresh()
    >>> index.find("second") == NodeSlot(key, 1), index.find("third")
    (True, None)
    """

    def __init__(self, store: Store):
        self._store = store
        self._nodes: set[str] = set()
        self._seats: dict[str, NodeSlot] = {}

    def refresh(self) -> None:
        """Takes in the nodes that were finished since the last time."""
        for node in self._store.keys():
            if node not in self._nodes:
                self.add(node)

    def add(self, node: str) -> None:
        """Takes in one finished node; one whose facts cannot be read is reported in the log."""
        self._nodes.add(node)
        try:
            keys = self._store.facts(node).get("member_keys", [])
        except CorruptError as error:
            LOG.warning("Node %s is left aside: %s", node[:8], error)
            return
        for row, key in enumerate(keys):
            self._seats.setdefault(key, NodeSlot(node, row))

    def forget(self) -> None:
        """Forgets all nodes, after some were removed; `refresh` takes in those that are there."""
        self._nodes.clear()
        self._seats.clear()

    def find(self, key: str) -> NodeSlot | None:
        """Where a member is; None if no finished node holds it."""
        return self._seats.get(key)


def take_members(node: Node, rows: Sequence[int]) -> Node:
    """Some members of a level's node, as a node that holds only them.

    Args:
      node: a level's node: the arrays of `history` are `(evaluations, members)`, but for `step`;
        all others have the members first. In its `meta`, `members`, `member_keys` and `densities`
        go with the members, `density` is that of the first, and `seconds` are divided evenly.
      rows: their places on the member axis.

    >>> history = {"step": np.array([5]), "train_loss": np.array([[0.1, 0.2]])}
    >>> arrays = {"results": {"loss": np.array([1.0, 2.0])}, "history": history}
    >>> one = take_members(Node(arrays, {"members": ["a", "b"], "seconds": 4.0}), [1])
    >>> one.arrays["history"]["train_loss"].tolist(), one.meta["members"], one.meta["seconds"]
    ([[0.2]], ['b'], 2.0)
    """
    members = node.meta["members"]
    if list(rows) == list(range(len(members))):
        return node
    places = np.asarray(rows, np.intp)
    curves = {k: v if k == "step" else v[:, places] for k, v in node.arrays["history"].items()}
    others = {name: part for name, part in node.arrays.items() if name != "history"}
    lists = [name for name in ("members", "member_keys", "densities") if name in node.meta]
    mine = {name: [node.meta[name][row] for row in rows] for name in lists}
    shared = {"seconds": node.meta["seconds"] * len(rows) / len(members)}
    if "densities" in mine:
        shared["density"] = mine["densities"][0]
    arrays = {**jax.tree.map(lambda leaf: leaf[places], others), "history": curves}
    return Node(arrays, node.meta | mine | shared)


def read_entry(store: Store, entry: Mapping[str, Any]) -> Node:
    """The part of a node that a line of a run's manifest speaks of.

    Args:
      store: where the node lies.
      entry: `{"key": …, "rows": […]}`; without `rows`, all members.

    Raises:
      CorruptError, StoreError: as `Store.read` does.
    """
    node = store.read(entry["key"])
    return take_members(node, entry["rows"]) if "rows" in entry else node
