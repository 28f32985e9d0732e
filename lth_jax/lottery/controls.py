"""A ticket's twins, each with one thing broken on purpose.

A control is a pure function `control(mask, dense, fresh, *, key, prunable, layouts=None) ->
(mask, point)` of its ticket's mask, the point the ticket starts from before its mask, and a newly
drawn network. It sees the ticket's data order and schedule, keeps the exact number of weights, and
is trained beside the ticket as a further member.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from lth_jax import structure as st
from lth_jax.layouts import Layouts
from lth_jax.pruning.masks import shuffle, shuffle_globally
from lth_jax.registry import Registry
from lth_jax.report.arms import LOOKS
from lth_jax.types import TICKET, Key, Mask, Prunable, TrainState


class Control(Protocol):
    """How a control is called; the point it returns is masked by the ladder."""

    def __call__(
        self,
        mask: Mask,
        dense: TrainState,
        fresh: TrainState,
        *,
        key: Key,
        prunable: Prunable,
        layouts: Layouts | None = None,
    ) -> tuple[Mask, TrainState]:
        """Returns the control's mask and the point it starts from."""


def reinit(mask: Mask, dense: TrainState, fresh: TrainState, **_: Any) -> tuple[Mask, TrainState]:
    """The ticket's mask on newly drawn weights: is the initialisation what wins?

    (Frankle and Carbin 2019, "random reinitialisation".)
    """
    return mask, fresh


def layerwise_shuffle(
    mask: Mask,
    dense: TrainState,
    fresh: TrainState,
    *,
    key: Key,
    prunable: Prunable,
    layouts: Layouts | None = None,
) -> tuple[Mask, TrainState]:
    """The ticket's weights with its mask permuted within each layer: is the position what wins?

    Each layer keeps its number of weights (Frankle et al. 2021, "Missing the Mark").
    """
    del fresh
    return shuffle(key, mask, prunable=prunable, layouts=layouts), dense


def random_mask(
    mask: Mask, dense: TrainState, fresh: TrainState, *, key: Key, prunable: Prunable, **_: Any
) -> tuple[Mask, TrainState]:
    """The ticket's weights under a mask drawn at random over the whole network.

    The total number of weights is kept, the numbers per layer are not: is anything in the mask
    better than chance, its layer proportions included?
    """
    return shuffle_globally(key, mask, prunable=prunable), dense


CONTROLS: Registry[Control] = Registry("control")
"""Controls of any ticket by name, and so those of configs."""

CONTROLS.register("reinit", reinit)
CONTROLS.register("shuffle", layerwise_shuffle)
CONTROLS.register("random", random_mask)


def scratch(fan: st.Fan) -> Control:
    """The ticket's shape from scratch: newly drawn as a network of that small shape would be.

    For tickets of whole units. `reinit` draws every kernel with the fan of the wide network, which
    is too small a deviation for the few inputs that are left; here it is that of the small one
    (Liu et al. 2019, "Rethinking the value of network pruning", Scratch-E: as many steps as the
    ticket).

    Args:
      fan: what the initializer's variance is inverse to: `structure.fan_in` or `fan_average`.
    """

    def control(
        mask: Mask,
        dense: TrainState,
        fresh: TrainState,
        *,
        key: Key,
        prunable: Prunable,
        layouts: Layouts | None = None,
    ) -> tuple[Mask, TrainState]:
        del dense, key
        params = st.rescale(fresh.params, mask, prunable, fan, layouts=layouts)
        return mask, fresh._replace(params=params)

    return control


def random_units(structure: st.Structure) -> Control:
    """The ticket's weights under as many units of each group, drawn at random: the same shape.

    For tickets of whole units: is the choice of the units what wins?
    """

    def control(
        mask: Mask, dense: TrainState, fresh: TrainState, *, key: Key, prunable: Prunable, **_: Any
    ) -> tuple[Mask, TrainState]:
        return st.random_units(structure, key, mask, prunable), dense

    return control


def coarsened(coarsen: Callable[..., Mask], then: Control | None = None) -> Control:
    """The ticket's weights under a structured mask made from its own: its twin on hardware.

    Args:
      coarsen: `(mask, prunable, *, layouts) -> mask`: `structure.refill` of a network's units, or
        `structure.regroup`, after IMP-Refill and IMP-Regroup (Chen et al. 2022).
      then: what to break in the twin: a control of it.
    """

    def control(
        mask: Mask, dense: TrainState, fresh: TrainState, **inputs: Any
    ) -> tuple[Mask, TrainState]:
        twin = coarsen(mask, inputs["prunable"], layouts=inputs.get("layouts"))
        return then(twin, dense, fresh, **inputs) if then else (twin, dense)

    return control


def _refilled(structure: st.Structure, then: Control | None = None) -> Control:
    def coarsen(mask: Mask, prunable: Prunable, *, layouts: Layouts | None) -> Mask:
        del layouts  # the structure names the axes
        return st.refill(structure, mask, prunable)

    return coarsened(coarsen, then)


def _random_blocks(
    mask: Mask,
    dense: TrainState,
    fresh: TrainState,
    *,
    key: Key,
    prunable: Prunable,
    layouts: Layouts | None = None,
) -> tuple[Mask, TrainState]:
    """The ticket's weights under blocks of the same sizes in other rows and columns."""
    del fresh
    return st.shuffle_blocks(key, mask, prunable, layouts=layouts), dense


UnitControl = Callable[[st.Structure, st.Fan], Control]
"""Makes a control from a network's units and the fan that its initializers read."""

UNIT_CONTROLS: dict[str, UnitControl] = {
    "scratch": lambda structure, fan: scratch(fan),
    "random_units": lambda structure, fan: random_units(structure),
}
"""Further controls of tickets that are whole units."""

REFILL_CONTROLS: dict[str, UnitControl] = {
    "refill": lambda structure, fan: _refilled(structure),
    "refill_reinit": lambda structure, fan: _refilled(structure, reinit),
    "refill_scratch": lambda structure, fan: _refilled(structure, scratch(fan)),
    "refill_random": lambda structure, fan: _refilled(structure, random_units(structure)),
}
"""The refilled twin of unstructured tickets, and the twin's own controls."""

REGROUP_CONTROLS: dict[str, Control] = {
    "regroup": coarsened(st.regroup),
    "regroup_reinit": coarsened(st.regroup, reinit),
    "regroup_random": coarsened(st.regroup, _random_blocks),
}
"""The regrouped twin of unstructured tickets, and the twin's own controls."""

SAME_MASK = {
    "reinit": TICKET,
    "scratch": TICKET,
    "refill_reinit": "refill",
    "refill_scratch": "refill",
    "regroup_reinit": "regroup",
}
"""Controls that have another arm's mask and other weights, and that arm."""


def described(controls: Mapping[str, Control]) -> dict[str, dict[str, str]]:
    """What a run's environment records of own controls, so that its page can describe them.

    Returns:
      `{"controls": {name: first line of the docstring}}`; empty where all controls are built in.

    >>> def halved(mask, dense, fresh, **_):
    ...     "The ticket's mask on weights of half the size."
    >>> described({"reinit": reinit, "halved": halved})
    {'controls': {'halved': "The ticket's mask on weights of half the size."}}
    """
    own = {name: getattr(one, "func", one) for name, one in controls.items() if name not in LOOKS}
    texts = {name: inspect.getdoc(function) for name, function in own.items()}
    lines = {name: text.partition("\n")[0] for name, text in texts.items() if text}
    return {"controls": lines} if lines else {}


def named(names: Iterable[str], table: Mapping[str, Control] = CONTROLS) -> dict[str, Control]:
    """The controls of these names, in this order.

    Args:
      names: the arms trained beside each ticket.
      table: what there is: `CONTROLS`, `REGROUP_CONTROLS`, and those made from `UNIT_CONTROLS` or
        `REFILL_CONTROLS`.

    Raises:
      ValueError: if a control is unknown or named twice.

    >>> list(named(["shuffle", "reinit"]))
    ['shuffle', 'reinit']
    """
    names = tuple(names)
    for name in names:
        if name not in table:
            raise ValueError(f"`controls` holds {name!r}; each must be one of {sorted(table)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"`controls` is {names}; each may be named once.")
    return {name: table[name] for name in names}
