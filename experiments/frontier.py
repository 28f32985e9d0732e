"""Accuracy against file size, for the tickets and dense networks of a finished run.

python -m experiments.frontier RUN [--root runs]
"""

import sys
from functools import partial

from experiments.finished import run_analysis
from lth_jax.analysis import frontier

main = partial(run_analysis, "experiments.frontier", str(__doc__), frontier)

if __name__ == "__main__":
    sys.exit(main())
