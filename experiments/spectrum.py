"""Curvature of a finished run's networks, computed into the store at points that are named.

    python -m experiments.spectrum RUN [--levels 0,3,7] [--points masked,retrained] [--arms ticket]

Points: `dense`, the trained parent θ; of a ticket or control with mask m, `dense_on_mask`, its
parent's θ with the rows and columns of m alone; `masked`, θ⊙m; `retrained`, where its own training
ended; and `start`, where the training of a dense parent or a ticket began. A subnetwork is never
sharper than the whole at the same point, so no number here goes without its point.

For each network and point: the largest and smallest eigenvalues of the Hessian of the training loss
with bounds, and its spectral density. One loss surface is drawn for each arm. `lth spectrum RUN`
shows what is there; a command that was cut off continues. A point where the loss or its curvature
is not finite is left out, with a line that says so.
"""

import sys
from collections.abc import Sequence

from experiments.finished import run_analysis
from lth_jax import analysis


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    return run_analysis("experiments.spectrum", str(__doc__), analysis.spectrum, argv)


if __name__ == "__main__":
    sys.exit(main())
