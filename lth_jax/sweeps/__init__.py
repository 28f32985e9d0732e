"""Many experiments at once: those that differ only in arrays train as one population.

`train` groups jobs by their programs, chooses a plan for each group, and leaves a run for each job
in the store. Concurrent calls on the same folder share the work.
"""

from lth_jax.sweeps.estimate import Estimate
from lth_jax.sweeps.jobs import COLUMNS, Group, Job, groups, shown, together
from lth_jax.sweeps.plans import Outlook, PlanError, PlanOptions, outlook, planned
from lth_jax.sweeps.train import finished, train

__all__ = [
    "COLUMNS",
    "Estimate",
    "Group",
    "Job",
    "Outlook",
    "PlanError",
    "PlanOptions",
    "finished",
    "groups",
    "outlook",
    "planned",
    "shown",
    "together",
    "train",
]
