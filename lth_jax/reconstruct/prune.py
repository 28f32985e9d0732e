"""Prunes a network in one pass over calibration batches, layer by layer."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.landscape.numerics import dot
from lth_jax.pruning.checks import check_prunable, same_structure
from lth_jax.pruning.masks import apply_mask
from lth_jax.reconstruct import targets
from lth_jax.reconstruct.keep import Pattern
from lth_jax.reconstruct.layers import Layer, Layers
from lth_jax.reconstruct.methods.method import LayerMethod, layer_error, work_dtype
from lth_jax.reconstruct.report import PrunedLayer, PruneReport
from lth_jax.reconstruct.stream import Stream, check_batches
from lth_jax.types import Mask, Params, Prunable


def prune(
    f: Callable[[Params, Any], Any],
    params: Params,
    batches: Sequence[Any],
    *,
    method: LayerMethod,
    density: float | None = None,
    counts: Any = None,
    pattern: tuple[int, int] | None = None,
    mask: Mask | None = None,
    per: Literal["layer", "output"] = "layer",
    inputs: Literal["pruned", "dense"] = "pruned",
    prunable: Prunable | None = None,
    min_rows: float = 1.0,
) -> tuple[Params, Mask, PruneReport]:
    """Prunes the layers of `f(params, batch)` one after the other and updates their weights.

    Each layer `X W` (see `find_layers`) becomes `X W'` with W' sparse; X are by default the inputs
    that the layer gets in the network whose earlier layers are pruned already. `XᵀX` is summed in
    float32 at full precision over the batches, in their order. The same arguments give the same
    bits.

    Exactly one of `density`, `counts`, `pattern` and `mask` is given.

    Args:
      f: a jittable function of the parameters and one batch of inputs, in evaluation mode.
      params: tree of arrays.
      batches: calibration inputs: a list of what `f` takes as its second argument, without
        targets. (`lottery.Spec.batches` holds pairs of inputs and targets.)
      method: `magnitude()`, `wanda()`, `obs()`, `sparse_gpt()`, `alps()`, `refit()`, or any
        `LayerMethod`.
      density: the fraction that each layer keeps.
      counts: how many weights stay. One number: all layers compete by `w² ‖x‖² / ‖X W‖²` in the
        dense network, which takes one more pass. Or a tree like `params`, as the counts of
        `lth.layerwise()` and `lth.erk()`; a vector where a leaf holds several layers.
      pattern: `(n, m)`: at most n of m consecutive inputs of each output.
      mask: tree of booleans like `params`: the masks of the layers, such as those of a ticket.
        Leaves that are not layers are masked, too.
      per: with `density`, whether the weights of a layer or those of one output compete.
      inputs: whether X are the activations of the network pruned so far, or of the dense one. For
        masks that remove whole units take "dense": in the pruned network a removed unit is 0, so
        that there is no error to compensate.
      prunable: static tree of booleans; by default all layers whose leaf nothing else reads.
      min_rows: the least number of calibration rows for each input of a layer; with fewer rows than
        inputs many weights fit the rows equally well.

    Returns:
      `(params, mask, report)`: the new parameters, exactly 0 where pruned, in their dtypes; the
      mask; and the errors of each layer.

    Raises:
      ValueError: not exactly one target; a prunable leaf that enters no matrix product; counts out
        of range; too few rows; batches of different shapes that enter different layers; activations
        that are NaN or infinite; a layer whose inputs are all 0; a singular Gram matrix with too
        little damping; no layer is prunable.
      TypeError: `batches` is not a list, or holds pairs that `f` does not take; `method` is not a
        `LayerMethod`; or the leaf of a layer is not floating-point or has fewer than 16 bits.

    >>> from lth_jax import reconstruct
    >>> def mlp(params, x):
    ...     return jax.nn.relu(x @ params["a"]) @ params["b"]
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> a, b, x = map(jax.random.normal, keys, [(8, 16), (16, 4), (64, 8)])
    >>> pruned, mask, report = reconstruct.prune(
    ...     mlp, {"a": a, "b": b}, [x], method=reconstruct.sparse_gpt(), density=0.5
    ... )
    >>> [(layer.name, layer.kept, layer.error < layer.masked_error) for layer in report]
    [('a', 64, True), ('b', 32, True)]
    """
    check_method(method)
    batches = check_batches(params, batches)
    given = {"density": density, "counts": counts, "pattern": pattern, "mask": mask}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ValueError(
            f"exactly one of `density`, `counts`, `pattern` and `mask` must be given, not {named}."
        )
    if per not in ("layer", "output") or (per == "output" and density is None):
        raise ValueError(f"`per` must be 'layer', or 'output' with a `density`, but is {per!r}.")
    if inputs not in ("pruned", "dense"):
        raise ValueError(f"`inputs` must be 'pruned' or 'dense', but is {inputs!r}.")
    stream = Stream(f, params, batches)
    layers = _chosen(stream.programs[0], prunable, params)
    if density is not None:
        keeps = targets.from_density(layers, density, per)
    elif pattern is not None:
        keeps = targets.from_pattern(layers, pattern)
    elif mask is not None:
        keeps = targets.from_mask(layers, mask, params)
    elif same_structure(counts, 0):
        targets.check_global(layers, counts)
        costs = [_cost(stream, layer, min_rows) for layer in layers]
        keeps = targets.from_costs(layers, costs, counts)
        stream = Stream(f, params, batches)
    else:
        keeps = targets.from_counts(layers, counts, params)

    leaves, masks = list(stream.leaves), [jnp.ones(x.shape, bool) for x in stream.leaves]
    if mask is not None:
        masks = [jnp.asarray(leaf) for leaf in jax.tree.leaves(mask)]
        if inputs == "pruned":
            stream.leaves[:] = mask_others(leaves, masks, layers)
    rows = []
    for layer, keep in zip(layers, keeps, strict=True):
        row, new, kept = _prune_layer(stream, layer, keep, method, min_rows)
        leaves[layer.leaf] = layer.write(leaves[layer.leaf], new)
        masks[layer.leaf] = layer.write(masks[layer.leaf], kept)
        stream.proceed(layer, leaves[layer.leaf] if inputs == "pruned" else None)
        rows.append(row)
    structure = jax.tree.structure(params)
    return (
        jax.tree.unflatten(structure, apply_mask(masks, leaves)),
        jax.tree.unflatten(structure, masks),
        PruneReport(method.name, tuple(rows)),
    )


def check_method(method: Any) -> None:
    """Raises `TypeError` unless `method` is a `LayerMethod`."""
    if not isinstance(method, LayerMethod):
        name = getattr(method, "__name__", None)
        called = f"the function `{name}`; call it: `{name}()`" if name else repr(method)
        raise TypeError(
            f"`method` must be a `LayerMethod`, such as `sparse_gpt()`, but is {called}."
        )


def _chosen(found: Layers, prunable: Prunable | None, params: Params) -> list[Layer]:
    """The layers to prune."""
    names, leaves = trees.names(params), jax.tree.leaves(params)
    if prunable is None:
        use = [name not in found.others and name not in found.also for name in names]
    else:
        use = check_prunable(prunable, params)
        for name in (name for name, may in zip(names, use, strict=True) if may):
            if name in found.others:
                raise ValueError(
                    f"`prunable` marks '{name}', which is not a layer: {found.others[name]}."
                )
    chosen = [layer for layer in found if use[layer.leaf]]
    if not chosen:
        raise ValueError("`f` has no layer to prune; see `find_layers(f, params, batch)`.")
    for layer in chosen:
        dtype = jnp.result_type(leaves[layer.leaf])
        if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2:
            raise TypeError(
                f"`params` at '{names[layer.leaf]}' has dtype {dtype}, whose precision is too "
                "low for updated weights; convert it to a floating-point type of at least 16 bits."
            )
    return chosen


def mask_others(
    leaves: list[jax.Array], masks: list[jax.Array], layers: Sequence[Layer]
) -> list[jax.Array]:
    """The leaves, in which those without a layer to prune are masked."""
    inside = {layer.leaf for layer in layers}
    masked = apply_mask(masks, leaves)
    return [x if k in inside else masked[k] for k, x in enumerate(leaves)]


def _cost(stream: Stream, layer: Layer, min_rows: float) -> jax.Array:
    """For each weight of a dense layer the relative error of the layer without it."""
    gram, _ = _checked_gram(stream, layer, min_rows, None)
    weights = layer.read(stream.leaves[layer.leaf]).astype(gram.dtype)
    stream.proceed(layer)
    return _relative_cost(weights, gram)


@jax.jit
def _relative_cost(weights: jax.Array, gram: jax.Array) -> jax.Array:
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2)[..., None]
    whole = jnp.sum(weights * dot(gram, weights))
    return weights**2 * diagonal / jnp.where(whole > 0, whole, 1)


def _prune_layer(
    stream: Stream, layer: Layer, keep: Any, method: LayerMethod, min_rows: float
) -> tuple[PrunedLayer, jax.Array, jax.Array]:
    """The outcome of pruning a layer, its new weights and their mask."""
    gram, rows = _checked_gram(stream, layer, min_rows, method.damping)
    old = layer.read(stream.leaves[layer.leaf])
    new, mask = solve_groups(method, old, gram, keep)
    was_finite, finite, kept, error, masked_error = _outcome(old, new, mask, gram)
    if not was_finite:
        raise ValueError(f"`params` has weights that are NaN or infinite at '{layer.name}'.")
    if not finite:
        raise ValueError(
            f"`{method.name}` gives weights of '{layer.name}' that are NaN or infinite; raise its "
            "`damping`, or the range of the dtype."
        )
    return PrunedLayer(layer, rows, int(kept), float(error), float(masked_error)), new, mask


def solve_groups(
    method: LayerMethod, weights: jax.Array, gram: jax.Array, keep: Any
) -> tuple[jax.Array, jax.Array]:
    """The method for each group; all arguments except a `Pattern` have the groups first."""
    same = isinstance(keep, Pattern)
    if len(weights) > 1:
        found: tuple[jax.Array, jax.Array]
        found = jax.vmap(method, (0, 0, None if same else 0))(weights, gram, keep)
        return found
    new, mask = method(weights[0], gram[0], keep if same else keep[0])
    return new[None], mask[None]


@jax.jit
def _outcome(
    old: jax.Array, new: jax.Array, mask: jax.Array, gram: jax.Array
) -> tuple[jax.Array, ...]:
    """Whether old and new weights are finite, the number kept, errors with and without update."""
    exact = old.astype(gram.dtype)
    return (
        jnp.isfinite(old).all(),
        jnp.isfinite(new).all(),
        jnp.sum(mask, dtype=jnp.int32),
        layer_error(exact, new.astype(gram.dtype), gram),
        layer_error(exact, jnp.where(mask, exact, 0), gram),
    )


def _checked_gram(
    stream: Stream, layer: Layer, min_rows: float, damping: float | None
) -> tuple[jax.Array, int]:
    """The Gram matrix of a layer and its rows, checked."""
    gram, _, filled = stream.gram(layer)
    rows = int(filled.min())
    finite, reached = _state(gram)
    if not finite:
        raise ValueError(
            f"`batches` give activations that are NaN or infinite at the inputs of '{layer.name}'."
        )
    if not reached.all():
        group = f" (group {int(reached.argmin())} of {layer.groups})" if layer.groups > 1 else ""
        raise ValueError(f"`batches` give '{layer.name}'{group} nothing but zeros as inputs.")
    check_rows(layer, rows, min_rows)
    limit = layer.inputs * float(jnp.finfo(work_dtype(gram.dtype)).eps)
    if damping is not None and damping <= limit:  # a larger one bounds the condition number
        values = np.asarray(jnp.linalg.eigvalsh(gram))
        values = values + damping * values.mean(axis=1, keepdims=True)
        if (values[:, 0] <= limit * values[:, -1]).any():
            raise ValueError(
                f"the Gram matrix of '{layer.name}' is singular in {gram.dtype} with `damping` "
                f"{damping:g}: give more `batches`, or a `method` with more `damping`."
            )
    return gram, rows


def check_rows(layer: Layer, rows: int, min_rows: float) -> None:
    """Raises `ValueError` if a layer has fewer calibration rows than its inputs require."""
    if rows < min_rows * layer.inputs:
        raise ValueError(
            f"`batches` give {rows} rows for the {layer.inputs} inputs of '{layer.name}', but "
            f"`min_rows` {min_rows:g} requires {min_rows * layer.inputs:g}; give more batches, or "
            "lower `min_rows`."
        )


@jax.jit
def _state(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether Gram matrices are finite, and which of them are not 0."""
    return jnp.isfinite(gram).all(), jnp.diagonal(gram, axis1=1, axis2=2).any(axis=1)
