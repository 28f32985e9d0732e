"""Which factor of each reshaped axis is removable: walks through a graph until all choices work."""

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
    """Walks through a graph until no factor of a reshaped axis was chosen in vain.

    A choice is in vain if no index of an input or a result can go by it: all must stay, or all go
    together. Each walk starts afresh and gives up some of the factors that the last one chose in
    vain (see `_to_blame`), so it ends.
    """
    given_up: defaultdict[Site, set[int]] = defaultdict(set)
    while True:
        links = Links(prefer, given_up, flow)
        ins = start(links)
        outs = walk(links, block, ins)
        finish(links, outs)
        solution = links.solve()
        vain = _vain(links, solution, [*ins, *outs])
        if not vain:
            return links, solution
        for site in _to_blame(links, solution, vain):
            given_up[site].add(links.choices[site].factor)


def _vain(links: Links, solution: Solution, ends: Sequence[Axes]) -> list[Site]:
    """The sites by whose choice no index of `ends` can go, in the order of the graph."""
    held = [solution.component[atoms] for axes in ends for atoms in axes]
    useful = np.zeros(len(solution.is_pinned()), bool)
    useful[np.concatenate([*held, np.zeros(0, int)])] = True
    useful &= ~solution.is_pinned()

    def works(atoms: np.ndarray) -> bool:
        components = np.unique(solution.component[atoms])
        return len(components) > 1 and bool(useful[components].any())

    return [site for site, choice in links.choices.items() if not works(choice.atoms)]


def _to_blame(links: Links, solution: Solution, vain: Sequence[Site]) -> list[Site]:
    """Those of the vain choices that cannot work whatever the other vain ones are.

    With all vain choices undone, one side of such a choice still must stay or go all together.
    Where there is none, the choices spoil each other, and the last one of each component is given
    up. Not all combinations are tried.
    """
    undone = links.solve(without=set(vain))
    stuck = undone.is_pinned()[undone.component]

    def fails(site: Site) -> bool:
        atoms = links.choices[site].atoms
        together = (undone.component[atoms] == undone.component[atoms[0]]).all()
        return bool(together) or any(stuck[a].all() for a in (atoms, *links.sides(site)))

    blamed = [site for site in vain if fails(site)]
    if blamed:
        return blamed
    last = {int(solution.component[links.choices[site].atoms[0]]): site for site in vain}
    return list(last.values())
