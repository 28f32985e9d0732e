"""Learning rates predicted from curvature, beside those that training likes best.

    python -m experiments.learning_rates RUN [--rates 0.05,0.1,0.2] [--level 3] [--chunk 16]

For a run trained with `sgd`; with batches of the whole training set and no momentum it is gradient
descent, of which the prediction speaks (`experiments/configs/gradient_descent.py`). The dense
parents, the tickets and the random masks of a level are trained again from the rewind point at
every rate, all replicates and rates of an arm as one population, while their sharpness is measured.

Predicted at the named points `start` and `trained`, the latter where the run's own training ended:
the stability edge 2/λmax, and, where the curvature is positive definite, the step of fastest
convergence 2/(λmin + λmax). Measured: the rate of the smallest training loss at the end. Both are
drawn on the run's page, and so is λmax·η/2 over the steps. Where a curvature is not finite there is
NaN, and the node says why, under `unmeasured`.
"""

import sys
from collections.abc import Sequence
from typing import Any

from experiments.finished import Finished, run_analysis
from experiments.flags import UserError
from lth_jax import analysis


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    name, measure = "experiments.learning_rates", analysis.learning_rates
    return run_analysis(name, str(__doc__), measure, argv, _by_sgd)


def _by_sgd(run: Finished) -> dict[str, Any]:
    optimizer = run.experiment.optimizer.name
    if optimizer != "sgd":
        name = run.result.path.name
        raise UserError(f"{name} was trained by '{optimizer}'; the prediction is for 'sgd'.")
    return {}


if __name__ == "__main__":
    sys.exit(main())
