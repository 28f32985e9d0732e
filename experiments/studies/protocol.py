"""What a study is: a question with its rule, its numbers, and the code that answers it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from lth_jax.measures.claims import Control, Evidence, Protocol, Row
from lth_jax.registry import Registry


class Study(NamedTuple):
    """A protocol with its numbers and the code that answers it.

    Attributes:
      protocol: the words.
      get_config: `size -> ConfigDict`: `study` (seeds, δ, grids) and what it trains, for a size of
        `"smoke"`, `"laptop"` or `"full"`.
      controls: `config -> [Control, …]`.
      gather: `(runner, config) -> Evidence`.
      draw: `rows -> Figure`: the picture that decides, from the tidy rows alone.
    """

    protocol: Protocol
    get_config: Callable[[str], ConfigDict]
    controls: Callable[[ConfigDict], Sequence[Control]]
    gather: Callable[[Any, ConfigDict], Evidence]
    draw: Callable[[Sequence[Row]], Figure]

    def register(self) -> None:
        """Adds the study to `STUDIES`."""
        STUDIES.register(self.protocol.claim, self)


STUDIES: Registry[Study] = Registry("study")
"""All studies by their claim, in the order of the atlas."""
