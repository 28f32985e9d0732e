"""Where the members of a level begin: dense parents, tickets, and the tickets' controls."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.lottery.controls import CONTROLS
from lth_jax.lottery.keys import derive
from lth_jax.lottery.rewind import Point, cursor_offsets, fill_pruned, start_point
from lth_jax.lottery.spec import Lab, Ladder, controls_at
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.transforms import mask_slots
from lth_jax.training.segment import Member, init_member
from lth_jax.types import Count, Key, Mask, Params


class Tickets(NamedTuple):
    """What the next level needs of the tickets of a level; replicates along the first axis.

    Attributes:
      mask: their masks.
      alive: False for those that diverged.
      points: where they stood, by name: `"end"`; at level 0 `"rewound"`; `"scored"` if the
        criterion looks before the end.
      keys: the nodes they are in.
    """

    mask: Mask
    alive: Any
    points: dict[str, Point]
    keys: list[str]


class Parents(NamedTuple):
    """What a replicate's arms descend from; in a population every leaf has its axis first."""

    mask: Mask
    alive: jax.Array
    end: Point
    scored: Params
    rewound: Point
    prune_key: Key
    control_keys: dict[str, Key]


class Starts:
    """Makes the populations of one climb; its programs are compiled once, for all levels.

    Attributes:
      like: the dense members as shapes, for reading trees back from nodes.
      take: `(members, rows) -> members`, compiled.
    """

    def __init__(self, lab: Lab, ladder: Ladder):
        self._lab, self._ladder = lab, ladder
        self._dense = _jit_once(jax.vmap(lambda i, d: dense_member(lab, i, d)))
        self._arms: dict[tuple[str, ...], Callable[..., Member]] = {}
        self.take = _jit_once(trees.index)
        keys = replicate_keys(lab, "init")
        self.like = jax.eval_shape(self._dense, keys, keys)

    def dense(self, init: str = "init", data_level: int = 0, level: int = 0) -> Member:
        """One dense member at step 0 per replicate, its keys derived for these purposes."""
        lab = self._lab
        return self._dense(
            replicate_keys(lab, init, level), replicate_keys(lab, "data", data_level)
        )

    def population(self, level: int, trunk: Tickets | None, parents: Tickets | None) -> Member:
        """All members of a level at their start, stacked in the order of `spec.labels`."""
        lab, ladder = self._lab, self._ladder
        data_level = level if ladder.rewind.data == "fresh" else 0
        dense = self.dense(data_level=data_level)
        if trunk is None or parents is None:
            return dense
        names = controls_at(ladder, level)
        if names not in self._arms:
            self._arms[names] = _jit_once(lambda *args: _all_arms(lab, ladder, names, *args))
        offsets = {
            name: np.full(lab.replicates, value, np.int32)
            for name, value in cursor_offsets(ladder.rewind, ladder.stop, level).items()
        }
        return self._arms[names](
            ladder.counts[level - 1],
            Parents(
                mask=parents.mask,
                alive=parents.alive,
                end=parents.points["end"],
                scored=parents.points.get("scored", parents.points["end"]).params,
                rewound=trunk.points["rewound"],
                prune_key=replicate_keys(lab, "prune", level),
                control_keys={name: replicate_keys(lab, name, level) for name in names},
            ),
            dense._replace(hyper={**dense.hyper, **offsets}),
            self.dense("redraw", data_level, level),
        )


def replicate_keys(lab: Lab, purpose: str, level: int = 0) -> Key:
    """One key per replicate, stacked."""
    return jnp.stack([derive(lab.root, r, purpose, level) for r in range(lab.replicates)])


def dense_member(lab: Lab, init_key: Key, data_key: Key) -> Member:
    """A dense member at step 0."""
    example = jax.tree.map(lambda a: a[:1], lab.data.train.x)
    hyper = {name: jnp.asarray(value, jnp.float32) for name, value in lab.hyper.items()}
    return init_member(lab.trainer, init_key, data_key, hyper, example)


def arms(
    lab: Lab,
    ladder: Ladder,
    names: Sequence[str],
    count: Count,
    parents: Parents,
    dense: Member,
    redrawn: Member,
) -> list[Member]:
    """A replicate's ticket and its controls, in this order, at the start of a level.

    Args:
      lab: what to train with.
      ladder: what to do.
      names: the controls.
      count: what the level keeps.
      parents: what the ticket descends from.
      dense: the replicate's own network at step 0, with this level's keys and hyperparameters.
      redrawn: a network from another key, for the controls that want one.
    """
    rewound = parents.rewound
    scored = trees.where(parents.alive, parents.scored, rewound.params)  # no NaN in the scores
    mask = ladder.pruner(
        scored,
        parents.mask,
        count,
        prunable=ladder.prunable,
        key=parents.prune_key,
        batches=ladder.batches,
        initial=rewound.params,
    )
    point = start_point(ladder.rewind, rewound, parents.end, _point(dense))
    if ladder.rewind.what != "weights":
        filled = fill_pruned(point.params, parents.mask, rewound.params)
        point = point._replace(params=filled)
    base = dense._replace(alive=parents.alive)
    members = [_member(lab, base, mask, point)]
    for name in names:
        broken = CONTROLS[name](
            mask, point, _point(redrawn), key=parents.control_keys[name], prunable=ladder.prunable
        )
        init_key = redrawn.init_key if name == "reinit" else dense.init_key
        members.append(_member(lab, base._replace(init_key=init_key), *broken))
    return members


def _all_arms(lab: Lab, ladder: Ladder, names: Sequence[str], *args: Any) -> Member:
    """`arms` of all replicates, stacked arm after arm."""
    members = jax.vmap(lambda *a: arms(lab, ladder, names, *a), in_axes=(None, 0, 0, 0))(*args)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *members)


def _member(lab: Lab, base: Member, mask: Mask, point: Point) -> Member:
    """`base` at `point`, with the mask put onto its parameters and the optimizer's slots."""
    optimizer = lab.trainer.make_optimizer(lab.hyper)
    return base._replace(
        mask=mask,
        params=apply_mask(mask, point.params),
        state=point.state,
        opt_state=mask_slots(optimizer, point.opt_state, mask),
    )


def _point(member: Member) -> Point:
    return Point(member.params, member.state, member.opt_state)


def _jit_once(f: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` for programs that run once a level.

    On a CPU compiling them costs more than running them, so LLVM is asked not to optimise: three
    times faster to compile.
    """
    fast = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(f, compiler_options=fast)
