"""The type of a study: protocol, numbers and code."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from lth_jax.measures.claims import Control, Evidence, Protocol, Row
from lth_jax.registry import Registry


class Study(NamedTuple):
    """A pre-registered protocol with the code that answers its question.

    Attributes:
      protocol: the texts.
      get_config: `size -> ConfigDict`: `study` (seeds, δ, grids) and the experiment, for a size of
        `"smoke"`, `"laptop"` or `"full"`.
      controls: `config -> [Control, …]`.
      gather: `(runner, config) -> Evidence`.
      draw: `rows -> Figure`: the figure, from the tidy rows.
      train: `(runner, config) -> …`, of a study that measures time: trains the networks that
        `gather` times. It may run beside other studies; `gather` may not.
      minutes: about what a round takes at laptop size on one core; workers start with the longest.
    """

    protocol: Protocol
    get_config: Callable[[str], ConfigDict]
    controls: Callable[[ConfigDict], Sequence[Control]]
    gather: Callable[[Any, ConfigDict], Evidence]
    draw: Callable[[Sequence[Row]], Figure]
    train: Callable[[Any, ConfigDict], Any] | None = None
    minutes: float = 3.0


STUDIES: Registry[Study] = Registry("study")
"""All studies by their claim, in the order of the atlas."""
