"""Constraints between indices: every index of every axis is an atom; atoms are tied or pinned.

Atoms are integers. Axes that must lose the same indices share atoms or have tied atoms. An atom
that cannot be removed is pinned, with a reason. Each atom also has the content of its slice when
the parameters' slices of the unit are zero (`ZERO`, `FINITE`, `WILD`), which determines whether
removing an index is equivalent to masking it.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from lth_jax.structure.graph import Op, Value

Atoms = np.ndarray
"""int64 `[n]`: one atom for each index of an axis of length n."""

Axes = list[np.ndarray]
"""The atoms of a value: one array for each of its axes."""

ZERO, FINITE, WILD = 0, 1, 2
"""The content of a masked unit's slice: exact zeros, finite numbers, or possibly inf or NaN."""

Prefer = Callable[[tuple[int, ...]], Sequence[int]]
"""Sizes of the factors of one axis -> positions of these factors, preferred first."""


def major(sizes: tuple[int, ...]) -> Sequence[int]:
    """Prefers the slow factors: whole heads rather than the same feature of every head.

    >>> list(major((12, 64)))
    [0, 1]
    """
    return range(len(sizes))


def minor(sizes: tuple[int, ...]) -> Sequence[int]:
    """Prefers the fast factors: the same feature of every head rather than whole heads.

    >>> list(minor((12, 64)))
    [1, 0]
    """
    return range(len(sizes))[::-1]


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The content of `x * y`: zero if either is, unless the other may be infinite.

    >>> product(np.array([ZERO, ZERO, FINITE]), np.array([FINITE, WILD, FINITE])).tolist()
    [0, 2, 1]
    """
    worst = np.maximum(a, b)
    return np.where(worst == WILD, WILD, np.minimum(a, b))


class Solution(NamedTuple):
    """The components of the tied atoms.

    Attributes:
      component: int `[atoms]`, the component of each atom.
      pinned: reasons why a component cannot be removed, by component.
      inexact: reasons why removing a component differs from masking it.
      ordered: reasons why a component cannot be permuted with others.
    """

    component: np.ndarray
    pinned: dict[int, tuple[str, ...]]
    inexact: dict[int, tuple[str, ...]]
    ordered: dict[int, tuple[str, ...]]

    def is_pinned(self) -> np.ndarray:
        """Bool `[components]`, True = pinned."""
        flags = np.zeros(self.component.max(initial=-1) + 1, bool)
        flags[list(self.pinned)] = True
        return flags


class Site(NamedTuple):
    """A place in the graph where one factor of an axis is chosen to be removable."""

    op: Op
    place: Hashable


class Choice(NamedTuple):
    """The factor chosen at a site, and the atoms of its indices."""

    factor: int
    atoms: Atoms


class Tie(NamedTuple):
    """`a[i]` and `b[i]` are removed together: by which operation, and by which choice, if any."""

    a: Atoms
    b: Atoms
    site: Site | None
    op: Op | None


class Pin(NamedTuple):
    """Atoms that cannot be removed: why, by which operation, and by which choice, if any."""

    atoms: Atoms
    reason: str
    site: Site | None
    op: Op | None


class Links:
    """Collects ties, pins and sums during the walk through a graph.

    Attributes:
      op: the operation that is linked at present; None at the ends of the graph.
      ties: all ties so far.
      pins: all pins so far.
      labels: the atoms of every value visited so far.
      unknown: names of primitives without a rule.
      choices: site → chosen factor.
    """

    def __init__(
        self,
        prefer: Prefer = major,
        given_up: Mapping[Site, set[int]] | None = None,
        flow: bool = True,
    ):
        """Initialises without constraints.

        Args:
          prefer: the order of preference for the factors of a reshaped axis.
          given_up: site → factors that earlier walks excluded.
          flow: whether zeros propagate through products; else only through elementwise operations
            on parameters.
        """
        self.op: Op | None = None
        self.ties: list[Tie] = []
        self.pins: list[Pin] = []
        self.labels: dict[Value, Axes] = {}
        self.unknown: set[str] = set()
        self.choices: dict[Site, Choice] = {}
        self._prefer, self._given_up, self._flow = prefer, given_up or {}, flow
        self._content = np.zeros(1024, np.int8)
        self._stuck = np.zeros(1024, bool)
        self._size = 0
        self._notes: dict[str, list[tuple[Atoms, str]]] = {"sum": [], "order": []}

    def fresh(self, n: int, content: np.ndarray | int = FINITE) -> Atoms:
        """`n` new atoms without ties, with this content."""
        start, self._size = self._size, self._size + n
        while self._size > len(self._content):
            self._content = np.concatenate([self._content, np.zeros_like(self._content)])
            self._stuck = np.concatenate([self._stuck, np.zeros_like(self._stuck)])
        self._content[start : self._size] = content
        return np.arange(start, self._size)

    def stuck(self, n: int, reason: str) -> Atoms:
        """The atoms of an axis of length `n`, all pinned for the given reason."""
        return np.repeat(self.pin(self.fresh(1), reason), n)

    def tie(self, a: Atoms, b: Atoms, site: Site | None = None) -> None:
        """Ties `a[i]` to `b[i]`, possibly as a result of the choice at a site."""
        if a is b or np.array_equal(a, b):
            return
        self.ties.append(Tie(np.ravel(a), np.ravel(b), site, self.op))

    def pin(self, atoms: Atoms, reason: str, site: Site | None = None) -> Atoms:
        """Pins `atoms`, possibly as a result of the choice at a site; returns them."""
        if atoms.size:
            self._stuck[atoms] = True
            self.pins.append(Pin(np.ravel(atoms), reason, site, self.op))
        return atoms

    def order(self, atoms: Atoms, reason: str) -> Atoms:
        """Marks that the order of `atoms` matters; returns them."""
        self._notes["order"].append((np.ravel(atoms), reason))
        return atoms

    def content(self, atoms: Atoms) -> np.ndarray:
        """The content of the slices of `atoms` when masked."""
        return self._content[atoms]

    def declare(self, atoms: Atoms, content: np.ndarray | int) -> None:
        """Sets the content of the slices of `atoms` when masked."""
        self._content[atoms] = content

    def add_up(self, atoms: Atoms, content: np.ndarray | int, reason: str) -> None:
        """Records that the program combines the slices of `atoms`, of this content when masked.

        Removing a slice is equivalent to masking it if and only if it is zero and the combination
        is a sum; other cases are recorded as inexact.
        """
        loose = atoms[np.broadcast_to(np.asarray(content) != ZERO, atoms.shape)]
        if loose.size:
            self._notes["sum"].append((loose, reason))

    def with_content(self, atoms: Atoms, content: np.ndarray | int) -> Atoms:
        """`atoms` if they have this content, else new ones tied to them."""
        if np.array_equal(self.content(atoms), np.broadcast_to(content, atoms.shape)):
            return atoms
        new = self.fresh(len(atoms), content)
        self._stuck[new] = self._stuck[atoms]
        self.tie(atoms, new)
        return new

    def after_sum(self, atoms: Atoms) -> Atoms:
        """The atoms of a free axis of a sum of products; zero content is dropped unless `flow`."""
        return atoms if self._flow else self.with_content(atoms, FINITE)

    def is_stuck(self, atoms: Atoms) -> bool:
        """Whether all of `atoms` are pinned directly, not only through ties."""
        return bool(self._stuck[atoms].all())

    def choose(self, site: Site, options: Sequence[Atoms]) -> int | None:
        """Chooses the factor of an axis that may lose indices; None if all are pinned.

        Pinned factors are skipped. Useless choices are excluded in a later walk through the graph.
        """
        banned = self._given_up.get(site, set())
        for k in self._prefer(tuple(len(atoms) for atoms in options)):
            if k not in banned and not self.is_stuck(options[k]):
                self.choices[site] = Choice(k, options[k])
                return k
        return None

    def sides(self, site: Site) -> list[Atoms]:
        """The atoms on both sides of the ties of a choice."""
        return [side for tie in self.ties if tie.site == site for side in (tie.a, tie.b)]

    def solve(self, without: Collection[Site] = ()) -> Solution:
        """The components of all ties so far.

        Args:
          without: sites whose choices are ignored.
        """
        ties = [(tie.a, tie.b) for tie in self.ties if tie.site not in without]
        pins = [(pin.atoms, pin.reason) for pin in self.pins if pin.site not in without]
        ones = np.zeros(0, np.int64)
        a = np.concatenate([a for a, _ in ties] or [ones])
        b = np.concatenate([b for _, b in ties] or [ones])
        matrix = scipy.sparse.coo_matrix(
            (np.ones(len(a), bool), (a, b)), shape=(self._size, self._size)
        )
        component = scipy.sparse.csgraph.connected_components(matrix, directed=False)[1]
        notes = (pins, self._notes["sum"], self._notes["order"])
        return Solution(component, *(_by_component(found, component) for found in notes))


def _by_component(
    notes: Sequence[tuple[Atoms, str]], component: np.ndarray
) -> dict[int, tuple[str, ...]]:
    found: dict[int, dict[str, None]] = {}
    for atoms, reason in notes:
        for c in np.unique(component[atoms]).tolist():
            found.setdefault(c, {})[reason] = None
    return {c: tuple(reasons) for c, reasons in found.items()}
