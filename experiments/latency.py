"""Accuracy against measured latency, for a finished run's networks without dead units.

python -m experiments.latency RUN [--batch 256] [--repeats 50]
"""

import sys
from functools import partial

from experiments.finished import run_analysis
from lth_jax.analysis import latency

main = partial(run_analysis, "experiments.latency", str(__doc__), latency)

if __name__ == "__main__":
    sys.exit(main())
