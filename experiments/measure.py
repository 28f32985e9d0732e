"""How the networks of a finished run behave on its test set, beyond their accuracy.

    python -m experiments.measure RUN [--examples 1000]

Of every network that did not diverge: of a classifier, calibration (expected calibration error,
negative log-likelihood, Brier score) and what is taken for what, group by group where examples have
groups;
the norm of the gradient that gets past its mask; and what its kind allows: units that are never on
(MLPs, plain convolutional nets and VGGs, where a ReLU follows each layer), entropy and importance
of attention heads, spectral radius of recurrent matrices, and how much of a planted ticket its mask
has found, beside chance. It is kept with the run's analyses and drawn on its page.
"""

import sys
from collections.abc import Sequence
from typing import Any

from experiments.finished import Finished, run_analysis
from lth_jax import analysis
from lth_jax.data import planted


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    return run_analysis("experiments.measure", str(__doc__), analysis.behaviour, argv, known)


def known(run: Finished) -> dict[str, Any]:
    """The groups of a run's test examples, and the mask of the ticket planted in its data."""
    data, mask = run.experiment.data, None
    if data.name == "planted" and run.experiment.model.name == "mlp":
        options = {k: v for k, v in data.options.items() if k not in ("train", "test")}
        mask = planted.teacher(**options).mask
    return {"groups": run.loaded.groups.get("test"), "planted": mask}


if __name__ == "__main__":
    sys.exit(main())
