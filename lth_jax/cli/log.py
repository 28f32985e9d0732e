"""`lth log`: the training curves of a run for TensorBoard or Weights & Biases."""

import argparse
import time

from lth_jax.cli import arguments as shared

TO = ("tensorboard", "wandb")
EVERY = 5.0
"""Seconds between two reads of a run in training."""


def add_commands(commands: shared.Commands) -> None:
    """Adds `log`."""
    log = shared.add_command(
        commands,
        "log",
        _log,
        "write a run's mean training curves for TensorBoard or Weights & Biases",
        "lth log lenet-1a2b3c4d --to tensorboard --folder logs",
        "lth log lenet-1a2b3c4d --to wandb --folder logs --follow",
        one_run=True,
    )
    log.add_argument("--to", choices=TO, required=True, help="the program that reads the files")
    log.add_argument("--folder", default="logs", help="folder of the files (default: %(default)s)")
    text = "write each level when it is finished, until the run has ended"
    log.add_argument("--follow", action="store_true", help=text)


def _log(arguments: argparse.Namespace) -> None:
    from lth_jax.report import read_run
    from lth_jax.report.sinks import SINKS, mean_curves
    from lth_jax.store import Store

    info = shared.find(arguments, arguments.run)
    store, written, points = Store(shared.root_of(info)), set[tuple[str, int]](), 0
    run = read_run(store, info.path)
    with SINKS[arguments.to](run, arguments.folder) as write:
        while True:
            new = [p for p in mean_curves(run) if (p.arm, p.level) not in written]
            for point in new:
                write(point)
            written |= {(point.arm, point.level) for point in new}
            points += len(new)
            if not arguments.follow or run.info.status != "running":
                break
            time.sleep(EVERY)
            run = read_run(store, info.path)
    print(f"{points:,} points are written to {arguments.folder}")
