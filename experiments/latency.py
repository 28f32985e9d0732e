"""Accuracy at equal measured latency: a finished run's networks, shrunk to their live units.

    python -m experiments.latency RUN [--batch 256] [--repeats 50]

Dead units of every network are removed, which changes no output (it is checked), and each shape
that comes out is timed in alternated rounds. A structured ticket, its `scratch` (the same shape
newly drawn), its `reinit` and its `random_units` have one shape and so one latency; an unstructured
ticket has few dead units, so its latency hardly moves. Rows and pictures go into the run's report.
What is measured is kept in the store, and holds for this machine.
"""

import sys
from collections.abc import Sequence

from experiments.finished import run_analysis
from lth_jax import analysis


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    return run_analysis("experiments.latency", str(__doc__), analysis.latency, argv)


if __name__ == "__main__":
    sys.exit(main())
