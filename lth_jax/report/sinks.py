"""Training curves of a run for TensorBoard and Weights & Biases."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lth_jax.extras import needed_by
from lth_jax.report.levels import RunRecord
from lth_jax.report.tables import curve_rows

EXTRA = "log"


class Point(NamedTuple):
    """The mean of a metric over the replicates of an arm.

    Attributes:
      arm: the arm.
      level: the level.
      metric: name of the metric.
      step: training steps at this level.
      value: the mean over the replicates with a finite value.
    """

    arm: str
    level: int
    metric: str
    step: int
    value: float


Write = Callable[[Point], None]


def mean_curves(run: RunRecord) -> Iterator[Point]:
    """The means of the training curves of all finished levels, with increasing steps."""
    groups: dict[tuple[str, int, str, int], list[float]] = defaultdict(list)
    for row in curve_rows(run):
        place = (row["arm"], row["level"], row["metric"], row["step"])
        if row["value"] is not None and np.isfinite(row["value"]):
            groups[place].append(row["value"])
    for place, values in groups.items():
        yield Point(*place, float(np.mean(values)))


@contextlib.contextmanager
def tensorboard(run: RunRecord, folder: str | Path) -> Iterator[Write]:
    """Writes points as TensorBoard's event files, one folder for each arm, by tensorboardX.

    Tags are `METRIC/level_LEVEL`.

    Args:
      run: the run.
      folder: the folder for `tensorboard --logdir`.

    Raises:
      MissingExtraError: tensorboardX is not installed.
    """
    with needed_by("A log for TensorBoard", EXTRA):
        from tensorboardX import SummaryWriter
    with contextlib.ExitStack() as stack:
        writers: dict[str, SummaryWriter] = {}

        def write(point: Point) -> None:
            if point.arm not in writers:
                place = Path(folder) / run.info.run / point.arm
                writers[point.arm] = SummaryWriter(str(place))
                stack.callback(writers[point.arm].close)
            tag = f"{point.metric}/level_{point.level}"
            writers[point.arm].add_scalar(tag, point.value, point.step)

        yield write


@contextlib.contextmanager
def wandb(run: RunRecord, folder: str | Path) -> Iterator[Write]:
    """Writes points as a run of Weights & Biases, offline unless `WANDB_MODE` is set.

    `wandb sync` uploads an offline run. Metrics are `level LEVEL/ARM/METRIC`, against the steps of
    their level.

    Args:
      run: the run, whose config becomes that of the run of Weights & Biases.
      folder: the folder of its files.

    Raises:
      MissingExtraError: wandb is not installed.
    """
    with needed_by("A log for Weights & Biases", EXTRA):
        import wandb as client
    os.environ.setdefault("WANDB_MODE", "offline")
    Path(folder).mkdir(parents=True, exist_ok=True)
    with client.init(
        project="lth-jax",
        name=run.info.run,
        dir=str(folder),
        config=run.config,
        settings=client.Settings(silent=True),
    ) as opened:
        defined: set[int] = set()

        def write(point: Point) -> None:
            level = f"level {point.level}"
            if point.level not in defined:
                defined.add(point.level)
                opened.define_metric(f"{level}/*", step_metric=f"{level}/step")
            name = f"{level}/{point.arm}/{point.metric}"
            opened.log({name: point.value, f"{level}/step": point.step})

        yield write


SINKS = {"tensorboard": tensorboard, "wandb": wandb}
