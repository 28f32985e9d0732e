"""Runs one experiment from one config.

    python -m experiments.run --config=experiments/configs/mnist1d_ladder.py
    python -m experiments.run --config=experiments/configs/mnist1d_ladder.py:smoke \
        --config.experiment.replicates=8

Running the same command again continues where it was cut off, or shows the finished result.
"""

import sys

from experiments import flags
from experiments.runner import run

DEFAULT = "experiments/configs/mnist1d_ladder.py"


def main() -> None:
    run(flags.parse(sys.argv, DEFAULT), ["python", "-m", "experiments.run", *sys.argv[1:]])


if __name__ == "__main__":
    flags.run_main(main)
