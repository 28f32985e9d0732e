"""Random tickets: random masks on new initial weights, trained alone."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies.study_runner import StudyRunner
from lth_jax import keys, population, trees
from lth_jax.lottery import Start, Task, circumstances, training_program
from lth_jax.population.placement import Plan, fitted
from lth_jax.population.segment import Member
from lth_jax.pruning.masks import prunable_leaves, shuffle
from lth_jax.store import Node, content_key, fingerprint
from lth_jax.types import Key


def random_tickets(
    runner: StudyRunner, config: ConfigDict, starts: Sequence[Start], draws: int
) -> NDArray[np.float64]:
    """The test accuracies, in percent, of random tickets that are the like of given ones.

    A random ticket has as many weights in every layer as its model, at uniform random places, new
    initial weights, and the training examples and data order of its model. They train in blocks,
    which the store keeps.

    Args:
      runner: of the study.
      config: network, data and training; its `study` has `block`, the members of a block, and
        `chunk`, those that train at a time.
      starts: the models, with different data keys.
      draws: random tickets of each.

    Returns:
      `[starts, draws]`.
    """
    study, task = config.study, runner.task(config)
    plan = fitted(Plan(study.chunk, devices=2), jax.local_device_count())
    root = runner.seeds(config).root
    common = {
        "kind": "random tickets",
        "program": training_program(task.trainer, task.data, task.hyper, root),
        "steps": task.steps,
        "plan": plan._asdict(),
        "data": runner.dataset(config).fingerprint,
        "environment": circumstances(),
    }
    of, draw = (grid.ravel() for grid in np.indices((len(starts), draws)))
    accuracies = []
    for first in range(0, of.size, study.block):
        block = slice(first, first + study.block)
        members = _members(task, root, starts, of[block], draw[block])

        def compute(partial: Any, members: Member = members) -> Node:
            del partial  # a block takes seconds
            trained, _ = population.train(task, members, plan=plan)
            return Node({"accuracy": population.measure(task, trained)["accuracy"]}, {})

        key = content_key(common | {"members": fingerprint(members)})
        accuracies.append(runner.store.node(key, compute).arrays["accuracy"])
    return 100 * np.concatenate(accuracies).reshape(len(starts), draws).astype(float)


def _members(
    task: Task, root: Key, starts: Sequence[Start], of: NDArray[Any], draw: NDArray[Any]
) -> Member:
    """Random tickets number `draw` of the models number `of`, before training."""
    like = task.shapes[0]
    prunable = prunable_leaves(like)

    def canonical(start: Start) -> Any:
        """The mask that keeps the first weights of every layer, as many as the model."""
        first = {
            name: (np.arange(mask.size) < np.sum(mask)).reshape(mask.shape)
            for name, mask in start.mask.items()
        }
        return trees.from_named(first, like)

    streams = jnp.stack([keys.derive(root, one.replicate, "random_ticket") for one in starts])
    orders = jnp.stack([one.data_key for one in starts])
    masks = trees.stack([canonical(one) for one in starts])

    @jax.jit
    @jax.vmap
    def drawn(of: Any, draw: Any) -> Any:
        key = jax.random.fold_in(streams[of], draw)
        mask = shuffle(key, jax.tree.map(lambda leaf: leaf[of], masks), prunable=prunable)
        return key, mask

    own, hidden = drawn(jnp.asarray(of), jnp.asarray(draw))
    replicates = np.array([one.replicate for one in starts], np.int32)
    return population.initial(
        task, own, hyper={"replicate": replicates[of]}, masks=hidden, data_keys=orders[of]
    )
