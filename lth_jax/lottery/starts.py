"""Starts of networks: those of a run, and variants with other masks or data orders."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax import keys, text, trees
from lth_jax.coding.stored import Named, Stored, check_scored, masked, read_stored, rewound
from lth_jax.lottery.controls import SAME_MASK
from lth_jax.lottery.spec import Seeds
from lth_jax.population.task import Task
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.pruning.one_shot import member_masks
from lth_jax.pruning.prune import Pruner
from lth_jax.schema import read_entries
from lth_jax.store import Store, StoreError, find_run
from lth_jax.types import DENSE, Key


@text.with_short_repr
class Start(NamedTuple):
    """The start of a network; parameters, mask and state are trees, or leaves by name.

    Attributes:
      params: the weights; the mask is applied when training starts.
      mask: True = kept.
      data_key: a typed key for data order, dropout and augmentation.
      state: the model's state.
      hyper: hyperparameters that replace those of the task.
      replicate: the replicate whose share of the training data is used.
    """

    params: Any
    mask: Any
    data_key: Key
    state: Any = ()
    hyper: Mapping[str, float] = MappingProxyType({})
    replicate: int = 0

    def reordered(self, root: Key, order: int = 1) -> "Start":
        """The same start with another data order, drawn from the experiment's key and a number."""
        return self._replace(data_key=keys.derive(root, self.replicate, "child", order))


def starts_of(
    store: Store, path: str | Path, seeds: Seeds, arms: Sequence[str], level: int
) -> dict[str, list[Start]]:
    """The starts of a run's networks: the dense weights at the rewind step under each arm's mask.

    All arms of a replicate use the data order of the ticket at this level. In a run that rewinds to
    step 0, retraining the starts of level 0 and of tickets reproduces the run's networks.

    Args:
      store: holds the run's nodes.
      path: the run's folder.
      seeds: the run's seeds.
      arms: `"dense"`, `"ticket"`, and controls that keep the ticket's weights.
      level: pruning level.

    Returns:
      `{arm: starts}` in the order of replicates; leaves by name.

    Raises:
      store.StoreError: the run does not exist or is damaged, has no such arm or level, or the
        scores of a mask were invalid.
      ValueError: an arm has other weights than its ticket.

    >>> import flax.linen as nn, optax
    >>> from lth_jax.lottery import imp, run
    >>> from lth_jax.population import Plan
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=1)
    >>> result = run(task, imp(levels=1), replicates=1, plan=Plan(1), progress=False)
    >>> found = starts_of(result.store, result.path, result.replicate_seeds, ["ticket"], level=1)
    >>> [int(start.mask["kernel"].sum()) for start in found["ticket"]]
    [6]
    """
    if others := sorted(set(arms) & set(SAME_MASK)):
        raise ValueError(
            f"`arms` holds '{others[0]}', which has other initial weights than the dense network; "
            "an arm must keep the weights of the ticket."
        )
    info = find_run(Path(path).parent, str(path))
    found = read_stored(store, path, (DENSE, *arms), levels=(0, level))
    networks = sorted(found, key=lambda one: one.replicate)
    dense = [one for one in networks if one.arm == DENSE]
    origin = dict(zip((d.replicate for d in dense), rewound(store, info, dense), strict=True))

    def start(one: Stored) -> Start:
        params, state = masked(origin[one.replicate], one.mask)
        own = 0 if seeds.shared_order else one.replicate
        key = keys.derive(seeds.root, own, "data", level)
        return Start(params, one.mask, key, state, replicate=one.replicate)

    def of(arm: str) -> list[Start]:
        place = (arm, 0 if arm == DENSE else level)
        found = [one for one in networks if (one.arm, one.level) == place]
        if not found:
            listed = {(a, e.level) for e in read_entries(path) for a in e.arms}
            present = sorted(place for place in listed if place[0] in (DENSE, *arms))
            there = ", ".join(f"'{a}' at level {n}" for a, n in present)
            raise StoreError(
                f"{info.run} has no arm '{place[0]}' at level {place[1]}; it has {there}."
            )
        for one in found:
            check_scored(one)
        return [start(one) for one in found]

    return {arm: of(arm) for arm in arms}


def one_shot_starts(
    task: Task,
    starts: Sequence[Start],
    pruner: Pruner,
    root: Key,
    *,
    scored: Sequence[Mapping[str, NDArray[Any]]],
    rows: Sequence[NDArray[np.int64]],
) -> list[Start]:
    """Prunes starts in one shot, each by the scores of a given network.

    Args:
      task: the training task.
      starts: starts with leaves by name; their masks are replaced.
      pruner: without the argument `count`: from `one_shot.at_count` or `iterate`.
      root: the experiment's key, for criteria that draw.
      scored: for each start, the parameters that the criterion scores, leaves by name.
      rows: for each batch of the criterion, indices of training examples `[starts, n]`.

    Returns:
      The starts with their new masks, in the same order.

    Raises:
      ValueError: the scores of a network are invalid; the message names criterion and leaf.

    >>> import flax.linen as nn, optax
    >>> from lth_jax.pruning import criteria, one_shot, prune, scopes
    >>> data = np.zeros((40, 2)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> params = {"bias": np.zeros(2), "kernel": np.array([[1.0, 2.0], [3.0, 4.0]])}
    >>> start = Start(params, jax.tree.map(lambda leaf: leaf == leaf, params), jax.random.key(1))
    >>> largest = one_shot.at_count(prune.prune(criteria.magnitude(), scopes.globally()), 2)
    >>> root = jax.random.key(0)
    >>> [pruned] = one_shot_starts(task, [start], largest, root, scored=[params], rows=[])
    >>> pruned.params["kernel"].tolist()
    [[0.0, 0.0], [3.0, 4.0]]
    """
    like = task.shapes[0]
    data = jax.tree.map(jnp.asarray, task.data.train)
    chosen = member_masks(
        pruner,
        trees.stack([trees.from_named(dict(params), like) for params in scored]),
        prunable=prunable_leaves(like),
        batches=tuple(trees.index(data, some) for some in rows),
        keys=keys.derive_all(root, [one.replicate for one in starts], "one_shot"),
    )
    named = {leaf: np.asarray(mask) for leaf, mask in trees.to_named(chosen).items()}

    def under(start: Start, mask: Named) -> Start:
        params = {leaf: value * mask[leaf] for leaf, value in start.params.items()}
        return start._replace(params=params, mask=mask)

    return [
        under(start, {leaf: mask[i] for leaf, mask in named.items()})
        for i, start in enumerate(starts)
    ]


def start_fingerprint(start: Start) -> str:
    """The SHA-256 of all arrays and numbers of a start with leaves by name."""
    hashed = hashlib.sha256()
    key_data = np.asarray(jax.random.key_data(start.data_key))
    for tree in (start.params, start.mask, start.state, {"data_key": key_data}):
        for leaf_name, leaf in sorted(tree.items()):
            array = np.ascontiguousarray(leaf)
            hashed.update(f"{leaf_name}{array.dtype.str}{array.shape}".encode())
            hashed.update(array.reshape(-1).view(np.uint8).data)
    hashed.update(f"{sorted(start.hyper.items())}{start.replicate}".encode())
    return hashed.hexdigest()


def by_name(start: Start) -> Start:
    """The start with leaves by name; scalar entries of the mask are broadcast to their leaves."""
    params, mask, state = map(trees.to_named, (start.params, start.mask, start.state))
    whole = {
        name: np.broadcast_to(kept, np.shape(params[name])) if np.ndim(kept) == 0 else kept
        for name, kept in mask.items()
        if name in params
    }
    return start._replace(params=params, mask=whole, state=state)
