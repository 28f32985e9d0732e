"""Overlap of masks: intersection over union and Cohen's kappa, with chance levels.

Two random masks of densities `a` and `b` share about `a·b` of the weights, so an overlap must be
compared with its chance level: the overlap of masks shuffled within their leaves.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from lth_jax import trees
from lth_jax.types import Mask, Prunable


class Overlap(NamedTuple):
    """The overlap of two masks on the weights of one leaf, or of several together.

    Attributes:
      size: the number of weights.
      first: number of weights that the first mask keeps.
      second: number of weights that the second mask keeps.
      both: number of weights that both keep.
      chance: expected number that both keep if kept weights are placed at random in each leaf, `Σ
        first · second / size` over leaves.
    """

    size: int
    first: int
    second: int
    both: int
    chance: float

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard, 1901), in [0, 1]; NaN if both masks are empty."""
        return _ratio(self.both, self.first + self.second - self.both)

    @property
    def chance_iou(self) -> float:
        """The intersection over union at the chance intersection.

        The expectation of the ratio itself differs from it by a term of order `1 / size`.
        """
        return _ratio(self.chance, self.first + self.second - self.chance)

    @property
    def kappa(self) -> float:
        """Agreement beyond chance, `(p_observed − p_chance) / (1 − p_chance)` (Cohen, 1960).

        1 for equal masks, about 0 for independent ones; NaN if chance gives full agreement (both
        masks full, or both empty).
        """
        return _ratio(2 * (self.both - self.chance), self.first + self.second - 2 * self.chance)


def overlaps(first: Mask, second: Mask, *, prunable: Prunable) -> dict[str, Overlap]:
    """The overlap of two masks in every prunable leaf.

    Args:
      first: tree of boolean arrays.
      second: tree of boolean arrays of the same structure and shapes.
      prunable: static tree of booleans; leaves marked False are excluded.

    Returns:
      One `Overlap` per prunable leaf, by the leaf's name; `total` joins them into one.

    Raises:
      ValueError: if the structures or shapes differ.
      TypeError: if a prunable leaf is not boolean.

    >>> a, b = {"w": np.array([True, True, False])}, {"w": np.array([False, True, True])}
    >>> overlaps(a, b, prunable={"w": True})["w"].iou.__round__(3)
    0.333
    """
    trees.check_same_structure("second", second, "first", first)
    if trees.names(prunable) != trees.names(first):
        raise ValueError(
            "`prunable` must have the structure of `first`, "
            f"got leaves {trees.names(prunable)} against {trees.names(first)}."
        )
    leaves = zip(
        trees.names(first),
        jax.tree.leaves(first),
        jax.tree.leaves(second),
        jax.tree.leaves(prunable),
        strict=True,
    )
    return {name: _overlap(name, a, b) for name, a, b, counts in leaves if counts}


def total(parts: Iterable[Overlap]) -> Overlap:
    """The overlap over several leaves: the sum of all counts.

    >>> total([Overlap(4, 2, 2, 1, 1.0), Overlap(4, 2, 2, 2, 1.0)])
    Overlap(size=8, first=4, second=4, both=3, chance=2.0)
    """
    columns = list(zip(*parts, strict=True)) or [()] * len(Overlap._fields)
    size, first, second, both, chance = (sum(column) for column in columns)
    return Overlap(size, first, second, both, float(chance))


def member_kappas(first: Mask, second: Mask) -> NDArray[np.float64]:
    """Cohen's κ between two populations' masks, member by member, chance by leaf.

    Only leaves whose members have at least two axes (kernels) are used.

    Args:
      first: tree of boolean arrays `[members, ...]`.
      second: the same of the other population.

    Returns:
      float64 `[members]`.

    >>> masks = {"w": np.array([[[True, True, False]], [[False, True, True]]])}
    >>> member_kappas(masks, {"w": masks["w"][[0, 0]]}).round(2).tolist()
    [1.0, -0.5]
    """
    prunable = jax.tree.map(lambda leaf: leaf.ndim > 2, first)
    pairs = zip(trees.unstack(first), trees.unstack(second), strict=True)
    each = (overlaps(a, b, prunable=prunable).values() for a, b in pairs)
    return np.array([total(leaves).kappa for leaves in each])


def kappas_between(first: tuple[Mask, Mask], second: tuple[Mask, Mask]) -> NDArray[np.float64]:
    """κ between masks of two recipes on different data orders, mean of both directions.

    `(κ(first₁, second₂) + κ(first₂, second₁)) / 2`, with `member_kappas` for κ.

    Args:
      first: the masks of one recipe on two data orders, as for `member_kappas`.
      second: those of the other recipe, on the same two orders.

    Returns:
      float64 `[members]`, at most 1; NaN where κ is.

    Raises:
      ValueError: if structures, shapes or numbers of members differ.
      TypeError: if a kernel's mask is not boolean.

    >>> one, other = ({"w": np.array([[[True, False, x, not x]]])} for x in (True, False))
    >>> kappas_between((one, one), (one, other))
    array([0.5])
    """
    (a, b), (c, d) = first, second
    return (member_kappas(a, d) + member_kappas(b, c)) / 2


def kappas_apart(first: tuple[Mask, Mask], second: tuple[Mask, Mask]) -> NDArray[np.float64]:
    """κ within two recipes, mean of both, minus `kappas_between` them.

    It is 0 on average if the masks of both recipes have one distribution.

    >>> one, other = ({"w": np.array([[[True, False, x, not x]]])} for x in (True, False))
    >>> kappas_apart((one, one), (one, one)), kappas_apart((one, one), (other, other))
    (array([0.]), array([1.]))
    """
    within = (member_kappas(*first) + member_kappas(*second)) / 2
    return within - kappas_between(first, second)


def between_members(
    masks: Mask, *, prunable: Prunable
) -> dict[tuple[int, int], dict[str, Overlap]]:
    """`overlaps` of every pair of a population's members.

    The pairs share members, so they are not independent replicates: show their mean and range,
    not a standard error over pairs.

    Args:
      masks: tree of boolean arrays `[members, ...]`.
      prunable: static tree of booleans, one per leaf.

    Returns:
      `{(i, j): {leaf name: Overlap}}` for `i < j`.

    >>> pairs = between_members({"w": np.eye(3, dtype=bool)}, prunable={"w": True})
    >>> {pair: leaves["w"].both for pair, leaves in pairs.items()}
    {(0, 1): 0, (0, 2): 0, (1, 2): 0}
    """
    members = trees.unstack(jax.tree.map(np.asarray, masks))
    return {
        (i, j): overlaps(members[i], members[j], prunable=prunable)
        for i, j in combinations(range(len(members)), 2)
    }


def _overlap(name: str, first: jax.Array, second: jax.Array) -> Overlap:
    a, b = np.asarray(first), np.asarray(second)
    if a.dtype != bool or b.dtype != bool:
        raise TypeError(f"masks must be boolean, got {a.dtype} and {b.dtype} at '{name}'.")
    kept_a, kept_b, both = (int(np.count_nonzero(kept)) for kept in (a, b, a & b))
    return Overlap(a.size, kept_a, kept_b, both, kept_a * kept_b / a.size if a.size else 0.0)


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")
