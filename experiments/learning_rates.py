"""Compares learning rates predicted from curvature with the best ones in training.

    python -m experiments.learning_rates RUN [--rates 0.05,0.1,0.2] [--level 3] [--chunk 16]

For a run trained with `sgd`, such as that of `experiments/configs/gradient_descent.py`.
"""

import sys
from functools import partial
from typing import Any

from experiments.finished import Finished, run_analysis
from lth_jax.analysis import learning_rates
from lth_jax.cli.programs import UserError


def by_sgd(run: Finished) -> dict[str, Any]:
    """Raises `UserError` unless `sgd` trained the run; adds no arguments."""
    optimizer = run.experiment.optimizer.name
    if optimizer != "sgd":
        name = run.result.path.name
        raise UserError(f"{name} was trained by '{optimizer}'; the prediction is for 'sgd'.")
    return {}


main = partial(
    run_analysis, "experiments.learning_rates", str(__doc__), learning_rates, further=by_sgd
)

if __name__ == "__main__":
    sys.exit(main())
