"""Bytes on disk against accuracy: a finished run's tickets and dense parents at every precision.

    python -m experiments.frontier RUN [--root runs]

Each network is written as a `.ticket` file, read back, and tested as it was read; networks with a
state (BatchNorm statistics) keep it in the file. The rows go to `report/data/frontier.*` of the
run, the picture to `report/figures`, and both onto the run's page. What is measured is kept in the
store, so a command that was cut off continues.
"""

import sys
from collections.abc import Sequence

from experiments.finished import run_analysis
from lth_jax import analysis


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    return run_analysis("experiments.frontier", str(__doc__), analysis.frontier, argv)


if __name__ == "__main__":
    sys.exit(main())
