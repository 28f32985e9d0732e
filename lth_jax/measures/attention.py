"""How attention spreads, and which heads a network needs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from lth_jax import trees
from lth_jax.types import Batch, Params


def attention_entropy(
    probabilities: ArrayLike, visible: ArrayLike | None = None
) -> NDArray[np.float64]:
    """The entropy of each head's attention, as a fraction of what its visible keys allow.

    `-Σ_k p_k log p_k / log n`, with n the number of keys that the query may see, as a mean over
    examples and queries: 1 where all visible keys weigh alike, 0 where one has all the weight.
    Queries that see a single key have no choice and are left out.

    Args:
      probabilities: `(..., heads, queries, keys)`, rows of sum 1, as from
        `models.attention_probabilities`.
      visible: booleans that broadcast to `probabilities`, True where a query may see a key: for a
        causal network `np.tril(np.ones((queries, keys), bool))`. None: all see all.

    Returns:
      float64 `[heads]`; NaN if no query has a choice.

    Raises:
      ValueError: if a row has another sum than 1, or weight lies on keys that are not visible.

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
        special.entr(p).sum(-1), np.log(keys), out=np.zeros(keys.shape), where=choice
    )
    others = tuple(axis for axis in range(fraction.ndim) if axis != fraction.ndim - 2)
    counted = choice.sum(others)
    return np.divide(
        fraction.sum(others), counted, out=np.full(counted.shape, np.nan), where=counted > 0
    )


def random_entropies(
    rng: np.random.Generator, top_k: int, time: int = 32, width: int = 32
) -> list[float]:
    """Mean entropies of one draw of random attention, in nats: whole, cut, and pruned.

    Cutting all but the largest scores of a query lowers its entropy (majorisation); pruning the
    query and key kernels to their largest fifth shrinks the scores, and so raises it.

    Args:
      rng: source of inputs and kernels.
      top_k: the number of scores that the cut keeps of each query.
      time: queries and keys.
      width: of inputs and kernels.

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
    return [float(special.entr(special.softmax(s, axis=1)).sum(1).mean()) for s in tables]


def head_importance(
    loss: Callable[[Params, Any], jax.Array],
    params: Params,
    batch: Batch,
    heads: Mapping[str, int],
) -> dict[str, jax.Array]:
    """How much the loss depends on each attention head: `mean over examples of |∂ℓ/∂ξ_h|`.

    ξ_h = 1 is a factor on what head h says, so to first order the loss of an example changes by
    that much when the head is removed. A head speaks through its own rows of the output kernel
    alone, so the factor is put there, and any network serves.

    Source: Michel, Levy and Neubig (2019), "Are sixteen heads really better than one?", eq. 2.

    Args:
      loss: `(params, batch) -> scalar`, the mean over the batch.
      params: the network's parameters.
      batch: examples along the first axis; their gradients are taken all at once.
      heads: `{leaf name: number of heads}` of the output kernels, whose first axes hold the heads
        one after the other: `(heads · d, width)` as in `models.Transformer`, or
        `(heads, d, width)` as in flax.

    Returns:
      `{leaf name: [heads]}`, never negative.

    Raises:
      ValueError: if a name is no leaf, or the heads do not divide its rows.

    >>> loss = lambda p, x: jnp.mean(x @ p["out"])
    >>> x = jnp.array([[1.0, 2.0], [3.0, -4.0]])
    >>> head_importance(loss, {"out": jnp.array([[1.0], [0.5]])}, x, {"out": 2})["out"].tolist()
    [2.0, 1.5]
    """
    named = trees.to_named(params)
    for name, count in heads.items():
        if name not in named:
            raise ValueError(f"`heads` names '{name}', which is none of {sorted(named)}.")
        if named[name].shape[0] % count:
            raise ValueError(
                f"`heads` says {count} for '{name}', but that does not divide its "
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
