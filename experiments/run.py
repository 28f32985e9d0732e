"""Runs one experiment from one config.

    python -m experiments.run --config=experiments/configs/mnist1d_ladder.py
    python -m experiments.run --config=experiments/configs/mnist1d_ladder.py:smoke \
        --config.experiment.replicates=8

Running the same command again continues where it was cut off, or shows the finished result.
"""

from experiments import flags
from experiments.runner import run

DEFAULT = "experiments/configs/mnist1d_ladder.py"
CONFIG = flags.define(DEFAULT)


def main(argv: list[str]) -> int:
    if argv[1:]:
        raise flags.UserError(f"there is no argument {argv[1]!r}; fields are --config.FIELD=VALUE.")
    run(CONFIG.value)
    return 0


if __name__ == "__main__":
    flags.run_main(main, DEFAULT)
