"""Which node of a store holds which member."""

import logging
from typing import NamedTuple

from lth_jax import schema
from lth_jax.store import CorruptError, Store

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
    >>> index = MemberIndex(Store(tempfile.mkdtemp()))
    >>> index.refresh()
    >>> index.find("a member's key") is None
    True
    """

    def __init__(self, store: Store):
        self._store = store
        self._nodes: set[str] = set()
        self._slots: dict[str, NodeSlot] = {}

    def refresh(self) -> None:
        """Takes in the nodes that were finished since the last time."""
        for node in self._store.keys():
            if node not in self._nodes:
                self.add(node)

    def add(self, node: str) -> None:
        """Takes in one finished node; one whose facts cannot be read is reported in the log.

        Nodes of other kinds, or of another version, hold no member of a ladder.
        """
        self._nodes.add(node)
        try:
            meta = self._store.facts(node)
        except CorruptError as error:
            LOG.warning("Node %s is left aside: %s", node[:8], error)
            return
        if schema.is_level(meta):
            for row, member in enumerate(schema.facts_of(meta).members):
                self._slots.setdefault(member.key, NodeSlot(node, row))

    def forget(self) -> None:
        """Forgets all nodes, after some were removed; `refresh` takes in those that are there."""
        self._nodes.clear()
        self._slots.clear()

    def find(self, key: str) -> NodeSlot | None:
        """Where a member is; None if no finished node holds it."""
        return self._slots.get(key)
