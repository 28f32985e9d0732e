"""A climb under a limit on the memory of its process, in a process of its own.

One member's batch is made through an array of 256 MiB. Once everything is compiled, the process may
take 1½ of those: enough for one member after the other, and not for two at once.

    python -m tests.lottery.starved FOLDER

prints the changes of plan as JSON.
"""

import json
import resource
import sys
from pathlib import Path

import jax.numpy as jnp

from lth_jax import trees
from lth_jax.lottery import Hooks, make_experiment, run_ladder
from lth_jax.lottery.programs import Programs
from lth_jax.population import Plan
from lth_jax.store import Store
from tests.lottery.test_ladder import STOP, make_ladder, make_setup

BULK = 256 * 2**20


def through_bulk(key, data, rows, member, constants):
    """`trainer.transform_batch` by way of a large array; nothing is changed."""
    batch = trees.index(data, rows)
    spread = jnp.zeros(BULK // 4).at[rows].set(batch.x.sum())
    return batch._replace(x=batch.x + 0 * spread[rows[0]])


def allow(further):
    """From here on the process may take so many bytes of addresses more."""
    status = Path("/proc/self/status").read_text()
    [taken] = [line.split()[1] for line in status.splitlines() if line.startswith("VmSize:")]
    limit = 1024 * int(taken) + further
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main(folder):
    setup = make_setup()
    # One segment for each chunk: XLA:CPU may free a program's memory shortly after its results are
    # ready, and a segment that followed at once could meet the memory of the one before.
    setup = setup.with_trainer(transform_batch=through_bulk, eval_every=STOP)
    cell = make_experiment(*setup, make_ladder(setup, densities=(0.5,), controls=()))
    programs = Programs(setup.task.trainer)

    def run(name, plans, **options):
        store = Store(Path(folder, name))
        return run_ladder([cell], store=store, plans=plans, programs=programs, **options)

    run("at once", [(0, Plan(2))])
    expected = run("as recorded", [(0, Plan(2)), (0, Plan(1))])
    replans = []
    hooks = Hooks(on_replan=lambda level, plan: replans.append((level, plan)))
    allow(BULK * 3 // 2)
    starved = run("starved", [(0, Plan(2))], hooks=hooks)
    print(json.dumps({"replans": repr(replans), "as_recorded": starved == expected}))


if __name__ == "__main__":
    main(sys.argv[1])
