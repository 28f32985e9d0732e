"""Curvature of a finished run's networks at named points, kept in the store.

    python -m experiments.spectrum RUN [--levels 0,3,7] [--points masked,retrained] [--arms ticket]

`lth spectrum RUN` shows the results.
"""

import sys
from functools import partial

from experiments.finished import run_analysis
from lth_jax.analysis import spectrum

main = partial(run_analysis, "experiments.spectrum", str(__doc__), spectrum)

if __name__ == "__main__":
    sys.exit(main())
