"""Reports of pruning by layer, and of refinement by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lth_jax import text
from lth_jax.reconstruct.layers import Layer


class PrunedLayer(NamedTuple):
    """One layer after pruning.

    Attributes:
      layer: the layer.
      rows: calibration rows that are not all 0; of the group with the fewest.
      kept: weights kept.
      error: `‖X W − X W'‖² / ‖X W‖²` on the calibration rows, with the new weights in their dtype.
      masked_error: the same with the old weights on the new mask.
    """

    layer: Layer
    rows: int
    kept: int
    error: float
    masked_error: float

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.layer.name

    @property
    def density(self) -> float:
        """The fraction kept."""
        return self.kept / self.layer.size


@dataclass(frozen=True)
class PruneReport:
    """The pruned layers, in order; iterable, and a table when shown.

    Attributes:
      method: name of the method.
      layers: a row for each layer.
    """

    method: str
    layers: tuple[PrunedLayer, ...]

    @property
    def density(self) -> float:
        """The fraction kept of the weights of all pruned layers."""
        return sum(x.kept for x in self.layers) / sum(x.layer.size for x in self.layers)

    def __iter__(self) -> Iterator[PrunedLayer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> PrunedLayer:
        """The row of the layer of this name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer is called {name!r}; there are {[x.name for x in self.layers]}")

    def __repr__(self) -> str:
        header = ("layer", "matrix", "rows", "density", "error", "without update")
        rows = [
            (
                x.name,
                x.layer.matrix,
                f"{x.rows:,}",
                f"{100 * x.density:.4g} %",
                f"{x.error:.3g}",
                f"{x.masked_error:.3g}",
            )
            for x in self.layers
        ]
        return text.table(header, rows)


class RefinedBlock(NamedTuple):
    """One block after refinement.

    Attributes:
      layers: the names of its layers.
      before: the error of its outputs before, the mean over them of `‖y − y'‖² / ‖y‖²`.
      error: the same with the new weights.
    """

    layers: tuple[str, ...]
    before: float
    error: float


@dataclass(frozen=True)
class RefineReport:
    """The refined blocks, in order; iterable, and a table when shown.

    Attributes:
      blocks: one row for each.
    """

    blocks: tuple[RefinedBlock, ...]

    def __iter__(self) -> Iterator[RefinedBlock]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, number: int) -> RefinedBlock:
        return self.blocks[number]

    def __repr__(self) -> str:
        header = ("first layer", "layers", "error before", "error")
        rows = [
            (x.layers[0], str(len(x.layers)), f"{x.before:.3g}", f"{x.error:.3g}")
            for x in self.blocks
        ]
        return text.table(header, rows)
