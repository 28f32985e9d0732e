"""Trains the kept weights to restore the outputs of a dense network, block by block."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lth_jax.data.checks import check_integer
from lth_jax.landscape.numerics import full_precision
from lth_jax.pruning.checks import check_mask, same_structure
from lth_jax.pruning.masks import apply_mask
from lth_jax.reconstruct.layers import Layer, Layers
from lth_jax.reconstruct.methods.method import work_dtype
from lth_jax.reconstruct.report import RefinedBlock, RefineReport
from lth_jax.reconstruct.segments import Segment, flatten, split
from lth_jax.reconstruct.stream import Stream, check_batches
from lth_jax.types import Mask, Params


def refine(
    f: Callable[[Params, Any], Any],
    params: Params,
    mask: Mask,
    batches: Sequence[Any],
    *,
    dense: Params,
    blocks: Sequence[Sequence[str]],
    steps: int = 300,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[Params, RefineReport]:
    """Trains the kept weights of one block of layers after the other; the mask does not change.

    A block runs from its first matrix product to the first one of the next block, the last block to
    the end of `f`. Its inputs are those that it gets in the network refined so far. Its targets are
    the activations of the dense network after the block: all values that later operations read.
    The loss is the mean over these values of `‖y − y'‖² / ‖y‖²` on one batch. The matrices of the
    block's layers are trained, where the mask is True; biases and scales are not. A block whose
    error on all batches does not fall keeps its weights. The same arguments give the same bits.

    Memory holds those activations of every batch that later operations read, of both networks, and
    the training of one block.

    Source: Guo et al. (2024), "EBFT: effective and block-wise fine-tuning for sparse LLMs"; Li et
    al. (2021), "BRECQ", for quantised networks.

    Args:
      f: a jittable function of the parameters and one batch of inputs, in evaluation mode.
      params: the pruned parameters, a tree of arrays.
      mask: tree of booleans like `params`.
      batches: calibration inputs, a list of what `f` takes as its second argument. Step t takes
        batch t modulo their number.
      dense: the parameters before pruning.
      blocks: for each block the names of its layers (`find_layers`), or patterns of names such as
        `"layer_0/*"`; blocks in the order in which `f` uses them.
      steps: number of optimizer steps for each block.
      optimizer: any optax optimizer; by default Adam at 1e-3 with a cosine decay to 0.

    Returns:
      `(params, report)`: the new parameters, exactly 0 where pruned, in their dtypes; and the
      errors of each block.

    Raises:
      ValueError: no batches, no blocks, a pattern without a layer, a layer in two blocks, blocks
        that overlap or are out of order, `steps` below 1, trees that differ, or outputs of the
        dense network that are NaN or infinite.
      TypeError: `batches` is not a list, `blocks` not a list of lists, `steps` not an integer, or
        `optimizer` not an optax optimizer.

    >>> from lth_jax import reconstruct
    >>> def mlp(params, x):
    ...     return jax.nn.relu(x @ params["a"]) @ params["b"]
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> a, b, x = map(jax.random.normal, keys, [(8, 16), (16, 4), (64, 8)])
    >>> dense = {"a": a, "b": b}
    >>> pruned, mask, _ = reconstruct.prune(
    ...     mlp, dense, [x], method=reconstruct.wanda(), density=0.5
    ... )
    >>> refined, report = refine(mlp, pruned, mask, [x], dense=dense, blocks=[["a", "b"]])
    >>> [(block.layers, block.error < block.before) for block in report]
    [(('a', 'b'), True)]
    """
    batches = check_batches(params, batches)
    check_mask(mask, params)
    check_integer("steps", steps, 1)
    if not same_structure(dense, params):
        raise ValueError("`dense` must be a tree like `params`, but its structure differs.")
    stream = Stream(f, apply_mask(mask, params), batches)
    chosen = _layers_of(stream.programs[0], blocks)
    optimizer = optimizer or optax.adam(optax.cosine_decay_schedule(1e-3, steps))
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"`optimizer` must be an optax optimizer, but is {optimizer!r}.")

    masks, leaves = jax.tree.leaves(mask), stream.leaves
    whole = [jnp.asarray(leaf) for leaf in jax.tree.leaves(dense)]
    segments = _segments(stream.programs, leaves, batches, chosen)
    forwards = _forwards(segments)
    seen = [[jnp.asarray(x) for x in jax.tree.leaves(batch)] for batch in batches]
    wanted = list(seen)
    rows = []
    for i, layers in enumerate([(), *chosen]):
        parts = [each[i] for each in segments]
        wanted = [forwards[id(p)](whole, x) for p, x in zip(parts, wanted, strict=True)]
        if layers:
            for part, values in zip(parts, wanted, strict=True):
                if not all(bool(jnp.isfinite(values[k]).all()) for k in part.results):
                    raise ValueError(
                        f"`dense` gives outputs of `blocks[{i - 1}]` that are NaN or infinite."
                    )
            training = _Training(parts, _trainable(layers, masks), optimizer)
            leaves, before, after = training.run(leaves, seen, wanted, steps)
            rows.append(RefinedBlock(tuple(x.name for x in layers), before, after))
        seen = [forwards[id(p)](leaves, x) for p, x in zip(parts, seen, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves), RefineReport(tuple(rows))


def _layers_of(found: Layers, blocks: Any) -> list[list[Layer]]:
    """The layers of each block, by names and patterns."""
    if isinstance(blocks, str) or not all(isinstance(one, list | tuple) for one in blocks):
        raise TypeError(f"`blocks` must be a list of lists of names, but is {blocks!r}.")
    if not blocks:
        raise ValueError("`blocks` is empty; give at least one list of names.")
    names = [layer.name for layer in found]
    chosen: list[list[Layer]] = []
    for i, patterns in enumerate(blocks):
        own = set()
        for pattern in patterns:
            # An exact name may hold brackets, `w[0]`, which a pattern would read as a set.
            matched = {x for x in names if x == pattern or fnmatch.fnmatchcase(x, pattern)}
            if not matched:
                raise ValueError(
                    f"`blocks[{i}]` has {pattern!r}, but no layer has such a name; the names are "
                    f"{names}."
                )
            own |= matched
        if not own:
            raise ValueError(f"`blocks[{i}]` is empty; give at least one name.")
        chosen.append([layer for layer in found if layer.name in own])
    return chosen


def _segments(
    programs: Sequence[Layers],
    leaves: Sequence[jax.Array],
    batches: Sequence[Any],
    chosen: Sequence[Sequence[Layer]],
) -> list[list[Segment]]:
    """For each batch the segments of its program; batches of equal shapes share them."""
    known: dict[int, list[Segment]] = {}
    for program, batch in zip(programs, batches, strict=True):
        if id(program) not in known:
            firsts, end = [], -1
            for i, layers in enumerate(chosen):
                keys = {layer.key for layer in layers}
                sites = [k for k, key in enumerate(program.order) if key in keys]
                if sites[0] <= end:
                    raise ValueError(
                        f"`blocks[{i}]` must follow after all uses of the layers of "
                        f"`blocks[{i - 1}]`, but '{layers[0].name}' is used before."
                    )
                firsts.append(sites[0])
                end = sites[-1]
            flat = flatten(program, leaves, batch)
            known[id(program)] = split(flat, [flat.sites[k] for k in firsts])
    return [known[id(program)] for program in programs]


def _trainable(layers: Sequence[Layer], masks: Sequence[Any]) -> dict[int, jax.Array]:
    """By leaf, which of its entries are kept weights of the layers."""
    found: dict[int, jax.Array] = {}
    for layer in layers:
        mask = jnp.asarray(masks[layer.leaf])
        inside = found.get(layer.leaf, jnp.zeros(mask.shape, bool))
        found[layer.leaf] = layer.write(inside, layer.read(mask))
    return found


def _forwards(segments: Sequence[Sequence[Segment]]) -> dict[int, Callable[..., list[Any]]]:
    """`Segment.run`, compiled, by the identity of the segment."""
    return {id(part): jax.jit(part.run) for parts in segments for part in parts}


class _Training:
    """The training of one block.

    Args:
      parts: the block's segment of each batch.
      allowed: by leaf, which of its entries are trained.
      optimizer: an optax optimizer.
    """

    def __init__(
        self,
        parts: Sequence[Segment],
        allowed: dict[int, jax.Array],
        optimizer: optax.GradientTransformation,
    ):
        self._parts, self._allowed, self._optimizer = parts, allowed, optimizer
        self._losses = {id(part): jax.jit(_loss_of(part)) for part in parts}
        self._steps = {id(part): jax.jit(_step_of(part, optimizer)) for part in parts}

    def run(
        self,
        leaves: list[jax.Array],
        seen: Sequence[list[Any]],
        wanted: Sequence[list[Any]],
        steps: int,
    ) -> tuple[list[jax.Array], float, float]:
        """The new leaves, and the errors on all batches before and after."""
        each = list(zip(self._parts, seen, wanted, strict=True))
        start = {k: leaves[k].astype(work_dtype(leaves[k].dtype)) for k in self._allowed}
        weights, slots = start, self._optimizer.init(start)
        for t in range(steps):
            part, *rest = each[t % len(each)]
            weights, slots = self._steps[id(part)](weights, slots, self._allowed, leaves, *rest)
        before, after = (
            float(sum(self._losses[id(part)](w, leaves, *rest) for part, *rest in each) / len(each))
            for w in (start, weights)
        )
        if not after < before:  # also where the training diverged
            return leaves, before, before
        return _with(weights, leaves), before, after


def _with(weights: dict[int, jax.Array], leaves: Sequence[jax.Array]) -> list[jax.Array]:
    """All leaves, with the trained ones in the dtypes of the network."""
    return [weights.get(k, leaf).astype(leaf.dtype) for k, leaf in enumerate(leaves)]


def _loss_of(part: Segment) -> Callable[..., jax.Array]:
    """The mean over a block's results of their relative squared error."""

    def share(new: jax.Array, old: jax.Array) -> jax.Array:
        dtype = work_dtype(old.dtype)
        new, old = new.astype(dtype), old.astype(dtype)
        return jnp.sum((new - old) ** 2) / jnp.maximum(jnp.sum(old**2), jnp.finfo(dtype).tiny)

    def loss(weights: Any, leaves: Any, seen: Any, wanted: Any) -> jax.Array:
        with full_precision():
            got = part.run(_with(weights, leaves), seen)
        return jnp.mean(jnp.stack([share(got[k], wanted[k]) for k in part.results]))

    return loss


def _step_of(part: Segment, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """One step of the optimizer, which changes allowed entries only."""
    gradient = jax.grad(_loss_of(part))

    def held(tree: dict[int, jax.Array], allowed: dict[int, jax.Array]) -> dict[int, jax.Array]:
        return {k: jnp.where(allowed[k], x, jnp.zeros_like(x)) for k, x in tree.items()}

    def step(weights: Any, slots: Any, allowed: Any, leaves: Any, seen: Any, wanted: Any) -> Any:
        slopes = held(gradient(weights, leaves, seen, wanted), allowed)
        updates, slots = optimizer.update(slopes, slots, weights)
        return optax.apply_updates(weights, held(updates, allowed)), slots

    return step
