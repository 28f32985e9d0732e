"""Entropy of attention, and importance of heads."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from lth_jax import trees
from lth_jax.types import Batch, Params


def attention_entropy(
    probabilities: ArrayLike, visible: ArrayLike | None = None
) -> NDArray[np.float64]:
    """The entropy of each head's attention, relative to its maximum.

    `-Σ_k p_k log p_k / log n`, with n the number of visible keys of the query, averaged over
    examples and queries: 1 for uniform attention, 0 if one key has all the weight. Queries with a
    single visible key are excluded.

    Args:
      probabilities: `(..., heads, queries, keys)`, rows of sum 1, as from
        `models.attention_probabilities`.
      visible: booleans that broadcast to `probabilities`, True if a query attends to a key: for a
        causal network `np.tril(np.ones((queries, keys), bool))`. None: all True.

    Returns:
      float64 `[heads]`; NaN if no query has several visible keys.

    Raises:
      ValueError: the sum of a row is not 1, or a key that is not visible has weight.

    >>> causal = np.tril(np.ones((3, 3), bool))
    >>> even = causal / causal.sum(1, keepdims=True)
    >>> attention_entropy([even, np.eye(3)], causal).round(6).tolist()
    [1.0, 0.0]
    """
    p = np.asarray(probabilities, np.float64)
    seen = np.broadcast_to(True if visible is None else np.asarray(visible, bool), p.shape)
    if not np.allclose(p.sum(-1), 1, atol=1e-4):
        raise ValueError("`probabilities` must have sum 1 over the keys (the last axis).")
    if p[~seen].any():
        raise ValueError("`probabilities` put weight on keys that are not `visible`.")
    keys = seen.sum(-1)
    choice = keys > 1
    fraction = np.divide(
        scipy.special.entr(p).sum(-1), np.log(keys), out=np.zeros(keys.shape), where=choice
    )
    others = tuple(axis for axis in range(fraction.ndim) if axis != fraction.ndim - 2)
    counted = choice.sum(others)
    return np.divide(
        fraction.sum(others), counted, out=np.full(counted.shape, np.nan), where=counted > 0
    )


def random_entropies(
    rng: np.random.Generator, top_k: int, time: int = 32, width: int = 32
) -> list[float]:
    """Mean entropies in nats of random attention: full, with top-k scores, with pruned kernels.

    Keeping only the largest scores of a query lowers its entropy (majorisation). Pruning the query
    and key kernels to their largest fifth shrinks the scores and raises it.

    Args:
      rng: source of inputs and kernels.
      top_k: the number of scores kept per query.
      time: number of queries and keys.
      width: width of inputs and kernels.

    >>> whole, cut, pruned = random_entropies(np.random.default_rng(0), 4)
    >>> cut < whole < pruned
    True
    """
    x = rng.normal(size=(time, width))
    kernels = [rng.normal(size=(width, width)) / np.sqrt(width) for _ in range(2)]
    pruned = [np.where(np.abs(w) >= np.quantile(np.abs(w), 0.8), w, 0) for w in kernels]

    def scores(query: NDArray[np.float64], key: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x @ query) @ (x @ key).T / np.sqrt(width)

    whole = scores(*kernels)
    least = np.sort(whole, axis=1)[:, -top_k][:, None]
    tables = (whole, np.where(whole >= least, whole, -np.inf), scores(*pruned))
    return [
        float(scipy.special.entr(scipy.special.softmax(s, axis=1)).sum(1).mean()) for s in tables
    ]


def head_importance(
    loss: Callable[[Params, Any], jax.Array], params: Params, batch: Batch, heads: Mapping[str, int]
) -> dict[str, jax.Array]:
    """The sensitivity of the loss to each attention head, `1/N Σ_n |∂ℓ_n/∂ξ_h|` over examples n.

    ξ_h = 1 is a factor on the output of head h. To first order, the loss of an example changes by
    `|∂ℓ_n/∂ξ_h|` when the head is removed. The output of a head passes through its rows of the
    output kernel, so the factor is applied there, for any network.

    Source: Michel, Levy and Neubig (2019), "Are sixteen heads really better than one?", eq. 2.

    Args:
      loss: `(params, batch) -> scalar`, the mean over the batch.
      params: the network's parameters.
      batch: examples along the first axis; their gradients are taken all at once.
      heads: `{leaf name: number of heads}` of the output kernels, whose first axes are the heads:
        `(heads · d, width)` as in `models.Transformer`, or `(heads, d, width)` as in flax.

    Returns:
      `{leaf name: [heads]}`, never negative.

    Raises:
      ValueError: a name is not a leaf, or the heads do not divide its rows.

    >>> loss = lambda p, x: jnp.mean(x @ p["out"])
    >>> x = jnp.array([[1.0, 2.0], [3.0, -4.0]])
    >>> head_importance(loss, {"out": jnp.array([[1.0], [0.5]])}, x, {"out": 2})["out"].tolist()
    [2.0, 1.5]
    """
    named = trees.to_named(params)
    for name, count in heads.items():
        if name not in named:
            raise ValueError(f"`heads` names '{name}', which is not one of {sorted(named)}.")
        if named[name].shape[0] % count:
            raise ValueError(
                f"`heads` gives {count} for '{name}', which does not divide its "
                f"{named[name].shape[0]} rows."
            )

    def sensitivity(example: Any) -> dict[str, jax.Array]:
        def gated(gates: dict[str, jax.Array]) -> jax.Array:
            scaled = {name: _scale(named[name], gate) for name, gate in gates.items()}
            one = jax.tree.map(lambda a: a[None], example)
            return loss(trees.from_named(named | scaled, params), one)

        gates = {name: jnp.ones(count, named[name].dtype) for name, count in heads.items()}
        return jax.tree.map(jnp.abs, jax.grad(gated)(gates))

    return jax.tree.map(lambda s: s.mean(axis=0), jax.vmap(sensitivity)(batch))


def _scale(kernel: jax.Array, gate: jax.Array) -> jax.Array:
    """Each head's rows times its factor."""
    return (kernel.reshape(len(gate), -1) * gate[:, None]).reshape(kernel.shape)
