"""Behaviour of a finished run's networks on its test set, beyond accuracy.

python -m experiments.measure RUN [--examples 1000]
"""

import sys
from functools import partial
from typing import Any

from experiments.finished import Finished, run_analysis
from lth_jax.analysis import behaviour
from lth_jax.data import planted


def known(run: Finished) -> dict[str, Any]:
    """The groups of a run's test examples, and the mask of the planted ticket, if any."""
    data, mask = run.experiment.data, None
    if data.name == "planted" and run.experiment.model.name == "mlp":
        options = {k: v for k, v in data.options.items() if k not in ("train", "test")}
        mask = planted.teacher(**options).mask
    return {"groups": run.loaded.groups.get("test"), "planted": mask}


main = partial(run_analysis, "experiments.measure", str(__doc__), behaviour, further=known)

if __name__ == "__main__":
    sys.exit(main())
