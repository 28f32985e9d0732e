"""Chooses the removable factor of each reshaped axis by repeated walks through the graph."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from lth_jax.structure.constraints import Axes, Links, Prefer, Site, Solution, major
from lth_jax.structure.graph import Block
from lth_jax.structure.rules import walk


def settle(
    block: Block,
    start: Callable[[Links], list[Axes]],
    finish: Callable[[Links, list[Axes]], None],
    prefer: Prefer = major,
    flow: bool = True,
) -> tuple[Links, Solution]:
    """Repeats the walk through a graph until every chosen factor is removable.

    A choice is useless if it allows no index of an input or result to be removed: all are pinned,
    or all are tied together. Each walk starts from the beginning and excludes some of the useless
    choices of the last one (see `_to_exclude`), so the loop ends.
    """
    given_up: defaultdict[Site, set[int]] = defaultdict(set)
    while True:
        links = Links(prefer, given_up, flow)
        ins = start(links)
        outs = walk(links, block, ins)
        finish(links, outs)
        solution = links.solve()
        useless = _useless(links, solution, [*ins, *outs])
        if not useless:
            return links, solution
        for site in _to_exclude(links, solution, useless):
            given_up[site].add(links.choices[site].factor)


def _useless(links: Links, solution: Solution, ends: Sequence[Axes]) -> list[Site]:
    """The sites whose choice allows no index of `ends` to be removed, in the order of the graph."""
    held = [solution.component[atoms] for axes in ends for atoms in axes]
    useful = np.zeros(len(solution.is_pinned()), bool)
    useful[np.concatenate([*held, np.zeros(0, int)])] = True
    useful &= ~solution.is_pinned()

    def works(atoms: np.ndarray) -> bool:
        components = np.unique(solution.component[atoms])
        return len(components) > 1 and bool(useful[components].any())

    return [site for site, choice in links.choices.items() if not works(choice.atoms)]


def _to_exclude(links: Links, solution: Solution, useless: Sequence[Site]) -> list[Site]:
    """The useless choices that stay useless without the other useless ones.

    Without all useless choices, one side of such a choice is still pinned or tied together. If
    there is none, the choices exclude each other, and the last one of each component is excluded.
    Not all combinations are tried.
    """
    undone = links.solve(without=set(useless))
    stuck = undone.is_pinned()[undone.component]

    def fails(site: Site) -> bool:
        atoms = links.choices[site].atoms
        together = (undone.component[atoms] == undone.component[atoms[0]]).all()
        return bool(together) or any(stuck[a].all() for a in (atoms, *links.sides(site)))

    blamed = [site for site in useless if fails(site)]
    if blamed:
        return blamed
    last = {int(solution.component[links.choices[site].atoms[0]]): site for site in useless}
    return list(last.values())
