"""What a study is: a question with its rule, written down before the data are drawn."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from lth_jax.registry import Registry

Row = dict[str, Any]
"""One line of a tidy table: who, where, `metric`, `value` (None where a network diverged)."""


class Protocol(NamedTuple):
    """What is asked, and how it will be answered; hashed before anything is drawn.

    Attributes:
      claim: its short name, `"C7"`.
      title: a few words.
      says: the article's claim, in our words.
      question: what is tested.
      setup: data, network and training, in two lines.
      arms: who is compared.
      statistic: the primary number of each seed.
      rule: when the claim counts as supported.
      expects: what was expected beforehand, and why.
      limits: what the verdict does not say.
      two_sided: whether the claim has no direction.
      in_family: whether its primary is one of those corrected together (Holm).
    """

    claim: str
    title: str
    says: str
    question: str
    setup: str
    arms: tuple[str, ...]
    statistic: str
    rule: str
    expects: str
    limits: str
    two_sided: bool = False
    in_family: bool = True


class Primary(NamedTuple):
    """One part of what a claim says.

    Attributes:
      name: what the number is.
      values: one per seed.
      delta: the smallest effect that matters.
      unit: of values and delta.
      two_sided: whether the sign is left open.
    """

    name: str
    values: NDArray[np.float64]
    delta: float
    unit: str
    two_sided: bool = False


class Control(NamedTuple):
    """A case whose answer is known, judged by the rule of the study at α = .001.

    Attributes:
      name: what it is, and why the answer is known.
      expected: the verdict that it must get.
      primaries: its numbers, on seeds of its own.
    """

    name: str
    expected: str
    primaries: Sequence[Primary]


class Evidence(NamedTuple):
    """What a study found.

    Attributes:
      primaries: the parts of the claim; all must hold. The first is the headline.
      rows: seed-level results, tidy.
      secondary: further numbers per seed, shown with intervals that nothing corrects.
      gate: TICKET − SHUFFLE per seed, where the study is about tickets: without an effect there,
        the setting has no ticket to ask about.
      member_steps: training steps of all networks together.
      flops: of the arms, by name, the search for the ticket counted.
      notes: sentences about what was found on the way (chosen learning rates and the like).
    """

    primaries: Sequence[Primary]
    rows: Sequence[Row]
    secondary: Sequence[Primary] = ()
    gate: NDArray[np.float64] | None = None
    member_steps: int = 0
    flops: Mapping[str, float] = MappingProxyType({})
    notes: tuple[str, ...] = ()


class Study(NamedTuple):
    """A protocol with its numbers and the code that answers it.

    Attributes:
      protocol: the words.
      get_config: `size -> ConfigDict`: `study` (seeds, δ, grids) and what it trains.
      controls: `(runner, config) -> [Control, …]`.
      gather: `(runner, config) -> Evidence`.
      draw: `rows -> Figure`: the picture that decides, from the tidy rows alone.
    """

    protocol: Protocol
    get_config: Callable[[str], ConfigDict]
    controls: Callable[[Any, ConfigDict], Sequence[Control]]
    gather: Callable[[Any, ConfigDict], Evidence]
    draw: Callable[[Sequence[Row]], Figure]


STUDIES: Registry[Study] = Registry("study")
"""All studies by their claim, in the order of the atlas."""
