"""The largest stable step of gradient descent, at any network's point of its own training loss."""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies.starts import Start
from experiments.studies.study_runner import StudyRunner
from lth_jax import keys, landscape, trees
from lth_jax.lottery.curvature import first_blocks, hessian_at, training_loss


def stability_edges(
    runner: StudyRunner,
    config: ConfigDict,
    starts: Sequence[Start],
    points: Sequence[Mapping[str, NDArray]],
    examples: int,
) -> NDArray[np.float64]:
    """log₂ of 2/λmax of the Hessian on each network's mask, where it stands.

    Args:
      runner: has the data.
      config: of a network without BatchNorm.
      starts: whose mask, and whose examples.
      points: parameters by the name of the leaf, masked.
      examples: how many of the first that it sees the Hessian is of.

    Returns:
      `[len(starts)]`.
    """
    task = runner.task(config)
    loss, key = (
        training_loss(task.trainer, None),
        keys.stream(runner.seeds(config).root, "lanczos", "edges"),
    )
    like, _ = task.shapes

    def edge(start: Start, point: Mapping[str, NDArray]) -> float:
        seen = trees.index(task.data.train, runner.own_rows(config, start.replicate))
        here, mask = (trees.from_named(dict(tree), like) for tree in (point, start.mask))
        operator = hessian_at(loss, here, {}, mask, first_blocks(seen, examples))
        ends = landscape.extremes(operator, key, smallest=0, tolerance=1e-2, exact_below=0)
        return float(np.log2(2 / ends.largest[0]))

    return np.array([edge(*both) for both in zip(starts, points, strict=True)])
