"""Index from member keys to nodes of a store."""

import logging
from typing import NamedTuple

from lth_jax import schema
from lth_jax.store import CorruptError, Store

LOG = logging.getLogger(__name__)


class NodeSlot(NamedTuple):
    """The location of a member in a store.

    Attributes:
      node: the key of the node.
      row: the index of the member on the node's first axis.
    """

    node: str
    row: int


class MemberIndex:
    """Finds the node of a store that holds a member.

    Args:
      store: the store; `refresh` also adds the nodes of other processes.

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
        """Adds the nodes that were finished since the last call."""
        for node in self._store.keys():
            if node not in self._nodes:
                self.add(node)

    def add(self, node: str) -> None:
        """Adds one finished node; logs a warning if its facts cannot be read.

        Nodes of other kinds, or of another version, hold no member of a ladder.
        """
        self._nodes.add(node)
        try:
            meta = self._store.facts(node)
        except CorruptError as error:
            LOG.warning("Node %s is skipped: %s", node[:8], error)
            return
        if schema.is_level(meta):
            for row, member in enumerate(schema.facts_of(meta).members):
                self._slots.setdefault(member.key, NodeSlot(node, row))

    def forget(self) -> None:
        """Removes all nodes from the index; `refresh` adds the existing ones again."""
        self._nodes.clear()
        self._slots.clear()

    def find(self, key: str) -> NodeSlot | None:
        """The location of a member; None if no finished node holds it."""
        return self._slots.get(key)
