"""Controls: variants of a ticket that differ from it in one respect.

A control is a pure function `control(mask, dense, fresh, *, key, prunable, layouts=None) ->
(mask, state)` of the ticket's mask, the unmasked state that the ticket starts from, and the state
of a newly initialised network. It keeps the number of weights, and trains as a further member with
the data order and the schedule of the ticket.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lth_jax import structure as st
from lth_jax.layouts import Layouts
from lth_jax.legal import check_name
from lth_jax.pruning.masks import shuffle, shuffle_globally
from lth_jax.registry import Registry
from lth_jax.report.arms import LOOKS
from lth_jax.types import TICKET, Key, Mask, Prunable, TrainState


class Control(Protocol):
    """The signature of a control; the ladder masks the state that it returns."""

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
        """Returns the control's mask and the state that it starts from."""


def reinit(mask: Mask, dense: TrainState, fresh: TrainState, **_: Any) -> tuple[Mask, TrainState]:
    """The ticket's mask on newly initialised weights.

    Tests whether the initial weights matter (Frankle and Carbin 2019, "random reinitialisation").
    """
    return mask, fresh


def layerwise_shuffle(
    mask: Mask,
    dense: TrainState,
    fresh: TrainState,
    *,
    key: Key,
    prunable: Prunable,
    **options: Any,
) -> tuple[Mask, TrainState]:
    """The ticket's weights with its mask permuted within each layer.

    Tests whether the positions of the weights matter; each layer keeps its number of weights
    (Frankle et al. 2021, "Pruning Neural Networks at Initialization: Why Are We Missing the
    Mark?").
    """
    return shuffle(key, mask, prunable=prunable, **options), dense


def random_mask(
    mask: Mask, dense: TrainState, fresh: TrainState, *, key: Key, prunable: Prunable, **_: Any
) -> tuple[Mask, TrainState]:
    """The ticket's weights under a random mask over the whole network.

    Tests whether the mask, including its densities per layer, is better than chance: the total
    number of weights is kept, the numbers per layer are not.
    """
    return shuffle_globally(key, mask, prunable=prunable), dense


def signs(
    mask: Mask, dense: TrainState, fresh: TrainState, *, prunable: Prunable, **_: Any
) -> tuple[Mask, TrainState]:
    """The signs of the ticket's weights, with one magnitude for each leaf.

    Tests whether only the signs matter. Each prunable leaf becomes `sign(w) σ(w)`, with σ the
    standard deviation over the leaf, masked weights included (Zhou et al. 2019, "signed constant").
    """

    def constant(w: Any, use: bool) -> Any:
        return jnp.sign(w) * jnp.std(w) if use else w

    return mask, dense._replace(params=jax.tree.map(constant, dense.params, prunable))


CONTROLS: Registry[Control] = Registry("control")
"""Controls of any ticket by name; configs use these names."""

CONTROLS.register("reinit", reinit)
CONTROLS.register("shuffle", layerwise_shuffle)
CONTROLS.register("random", random_mask)
CONTROLS.register("signs", signs)


def scratch(fan: st.Fan) -> Control:
    """The ticket's shape, initialised like a dense network of this smaller shape.

    For tickets of whole units. `reinit` draws every kernel with the fan of the wide network, which
    gives too small a standard deviation for the remaining inputs; here the fan is that of the small
    network (Liu et al. 2019, "Rethinking the value of network pruning", Scratch-E: as many steps as
    the ticket).

    Args:
      fan: `structure.fan_in` or `structure.fan_average`; the initial variance is proportional to
        its inverse.
    """

    def control(
        mask: Mask, dense: TrainState, fresh: TrainState, **inputs: Any
    ) -> tuple[Mask, TrainState]:
        layouts = inputs.get("layouts")
        params = st.rescale(fresh.params, mask, inputs["prunable"], fan, layouts=layouts)
        return mask, fresh._replace(params=params)

    return control


def random_units(structure: st.Structure) -> Control:
    """The ticket's weights under the same number of random units of each group.

    For tickets of whole units. Tests whether the choice of the units matters.
    """

    def control(
        mask: Mask, dense: TrainState, fresh: TrainState, *, key: Key, prunable: Prunable, **_: Any
    ) -> tuple[Mask, TrainState]:
        return st.random_units(structure, key, mask, prunable), dense

    return control


def coarsened(coarsen: Callable[..., Mask], then: Control | None = None) -> Control:
    """The ticket's weights under a structured mask derived from the ticket's mask.

    Args:
      coarsen: `(mask, prunable, *, layouts) -> mask`: `structure.refill` of a network's units, or
        `structure.regroup`, after IMP-Refill and IMP-Regroup (Chen et al. 2022).
      then: a control that is applied to the coarsened ticket.
    """

    def control(
        mask: Mask, dense: TrainState, fresh: TrainState, **inputs: Any
    ) -> tuple[Mask, TrainState]:
        coarse = coarsen(mask, inputs["prunable"], layouts=inputs.get("layouts"))
        return then(coarse, dense, fresh, **inputs) if then else (coarse, dense)

    return control


def _refilled(structure: st.Structure, then: Control | None = None) -> Control:
    def coarsen(mask: Mask, prunable: Prunable, **_: Any) -> Mask:
        return st.refill(structure, mask, prunable)

    return coarsened(coarsen, then)


def _random_blocks(
    mask: Mask,
    dense: TrainState,
    fresh: TrainState,
    *,
    key: Key,
    prunable: Prunable,
    **options: Any,
) -> tuple[Mask, TrainState]:
    """The ticket's weights under blocks of the same sizes in other rows and columns."""
    return st.shuffle_blocks(key, mask, prunable, **options), dense


class StructuredControl(NamedTuple):
    """A control that depends on a network's structure.

    Attributes:
      build: `(structure, fan) -> control` for a network's units and the fan of its initializers.
      granularity: that of the tickets to which it applies: `"units"` or `"weights"`.
      needs_units: whether `build` uses `structure`.
    """

    build: Callable[[Any, st.Fan], Control]
    granularity: str = "weights"
    needs_units: bool = True


STRUCTURED_CONTROLS: Registry[StructuredControl] = Registry("control")
"""Controls that depend on a network's structure, by name; configs use these names.

`refill` and `regroup` are the structured versions of an unstructured ticket; names such as
`refill_reinit` are controls of these versions.
"""

for _name, _control in {
    "scratch": StructuredControl(lambda structure, fan: scratch(fan), "units"),
    "random_units": StructuredControl(lambda structure, fan: random_units(structure), "units"),
    "refill": StructuredControl(lambda structure, fan: _refilled(structure)),
    "refill_reinit": StructuredControl(lambda structure, fan: _refilled(structure, reinit)),
    "refill_scratch": StructuredControl(lambda structure, fan: _refilled(structure, scratch(fan))),
    "refill_random": StructuredControl(
        lambda structure, fan: _refilled(structure, random_units(structure))
    ),
    "regroup": StructuredControl(lambda *_: coarsened(st.regroup), needs_units=False),
    "regroup_reinit": StructuredControl(
        lambda *_: coarsened(st.regroup, reinit), needs_units=False
    ),
    "regroup_random": StructuredControl(
        lambda *_: coarsened(st.regroup, _random_blocks), needs_units=False
    ),
}.items():
    STRUCTURED_CONTROLS.register(_name, _control)

SAME_MASK = {
    "reinit": TICKET,
    "signs": TICKET,
    "scratch": TICKET,
    "refill_reinit": "refill",
    "refill_scratch": "refill",
    "regroup_reinit": "regroup",
}
"""`{control: arm}` for controls that have the mask of `arm` but other weights."""


def described(controls: Mapping[str, Control]) -> dict[str, dict[str, str]]:
    """The record of user-defined controls in a run's environment, for the run's page.

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
    """Looks up controls by name.

    Args:
      names: names of controls, or one name.
      table: the available controls: `CONTROLS`, and those built from `STRUCTURED_CONTROLS`.

    Returns:
      `{name: control}` in the order of `names`.

    Raises:
      ValueError: a name is unknown or occurs twice.

    >>> list(named(["shuffle", "reinit"]))
    ['shuffle', 'reinit']
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        check_name("controls", name, table)
    if len(set(names)) < len(names):
        raise ValueError(f"`controls` is {names}; each may be named once.")
    return {name: table[name] for name in names}
