"""Random tickets: random masks on new initial weights, trained alone."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax import keys, population, trees
from lth_jax.data.datasets import fingerprint as data_fingerprint
from lth_jax.lottery import Start, Task, circumstances, training_program
from lth_jax.population.placement import Plan
from lth_jax.population.segment import Member
from lth_jax.pruning.masks import prunable_leaves, shuffle
from lth_jax.store import Node, Store, content_key, fingerprint
from lth_jax.types import Key


def random_tickets(
    task: Task,
    starts: Sequence[Start],
    draws: int,
    *,
    root: Key,
    plan: Plan,
    block: int,
    store: Store,
    data: str | None = None,
) -> NDArray[np.float64]:
    """The test accuracies of random tickets in percent.

    A random ticket keeps as many weights in each layer as its model, at uniformly random places. It
    has new initial weights, and the training examples and data order of its model. The tickets
    train in blocks, and the store keeps each block.

    Args:
      task: network, data and training.
      starts: the models, with different data keys; leaves by name.
      draws: random tickets of each.
      root: the key of the experiment.
      plan: plan of the training of a block.
      block: the members of a block.
      store: holds the blocks.
      data: the fingerprint of the task's data; computed from their bytes by default.

    Returns:
      `[starts, draws]`.
    """
    common = {
        "kind": "random tickets",
        "program": training_program(task.trainer, task.data, task.hyper, root),
        "steps": task.steps,
        "plan": plan._asdict(),
        "data": data_fingerprint(*task.data) if data is None else data,
        "environment": circumstances(),
    }
    of, draw = (grid.ravel() for grid in np.indices((len(starts), draws)))
    accuracies = []
    for first in range(0, of.size, block):
        some = slice(first, first + block)
        members = random_members(task, root, starts, of[some], draw[some])

        def compute(partial: Any, members: Member = members) -> Node:
            del partial  # a block takes seconds
            trained, _ = population.train(task, members, plan=plan)
            return Node({"accuracy": population.measure(task, trained)["accuracy"]}, {})

        key = content_key(common | {"members": fingerprint(members)})
        accuracies.append(store.node(key, compute).arrays["accuracy"])
    return 100 * np.concatenate(accuracies).reshape(len(starts), draws).astype(float)


def random_members(
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

    streams = keys.derive_all(root, [one.replicate for one in starts], "random_ticket")
    orders = jnp.stack([one.data_key for one in starts])
    masks = trees.stack([canonical(one) for one in starts])

    def drawn(streams: Any, masks: Any, of: Any, draw: Any) -> Any:
        key = jax.random.fold_in(streams[of], draw)
        mask = shuffle(key, jax.tree.map(lambda leaf: leaf[of], masks), prunable=prunable)
        return key, mask

    axes = (None, None, 0, 0)
    program = task.program("random tickets", lambda: jax.jit(jax.vmap(drawn, in_axes=axes)))
    own, hidden = program(streams, masks, jnp.asarray(of), jnp.asarray(draw))
    replicates = np.array([one.replicate for one in starts], np.int32)
    return population.initial(
        task, own, hyper={"replicate": replicates[of]}, masks=hidden, data_keys=orders[of]
    )
