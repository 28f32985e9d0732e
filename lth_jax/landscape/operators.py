"""Curvature matrices as linear operators, restricted to the weights that a mask keeps.

The gradient is linearised once, batch by batch; each product then costs little more than a
gradient. The operator stores the intermediate values of all batches, so its memory is that of one
backward pass over all batches.

The parameters are not masked: a mask selects rows and columns only. Since a principal submatrix
never has a larger top eigenvalue than the whole matrix (Cauchy interlacing), differences in
sharpness come from the parameters, which the caller chooses. The loss function determines the mode
of BatchNorm.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.keys import check_key
from lth_jax.landscape import support
from lth_jax.landscape.checks import batch_size, check_finite, check_params, check_scalar
from lth_jax.landscape.numerics import full_precision
from lth_jax.types import Key, Mask, Params

Loss = Callable[[Params, Any], jax.Array]
"""`loss(params, batch)`: a scalar, the mean over the examples of the batch."""

Batches = Iterable[Any]
"""Trees of arrays with the examples along the first axis."""


class Operator(NamedTuple):
    """A symmetric matrix `A` on a support of `size` weights: `operator(v)` is `A v`.

    It is a pytree, so it can be an argument of `jax.jit`; operators of one loss and equal shapes
    share a compiled program for all masks. Such operators can be stacked (`trees.stack`) and mapped
    by `jax.vmap`.

    Attributes:
      params: the parameters at which the curvature is computed.
      parts: one linear function on trees like `params` for each batch.
      weights: for each batch its fraction of all examples, a scalar.
      places: tree of int32 like `params`: the position of each weight in vectors; `size` outside
        the support.
      kept: int32 `[size]`, the positions of the support in the ravelled parameters.
      gradient: `[size]`, the gradient of the mean loss on the support, which tends to lie near the
        top eigenvectors (Gur-Ari, Roberts & Dyer, 2018).
    """

    params: Params
    parts: tuple[Callable[[Params], Params], ...]
    weights: tuple[jax.Array, ...]
    places: Any
    kept: jax.Array
    gradient: jax.Array

    def __repr__(self) -> str:
        return f"Operator(size={self.size}, batches={len(self.parts)})"

    @property
    def size(self) -> int:
        """The number of weights in the support: rows and columns of the matrix."""
        return self.kept.shape[0]

    @property
    def dtype(self) -> Any:
        """The dtype of vectors: float64 if any parameter is, else float32."""
        return support.vector_dtype(self.params)

    def __call__(self, v: jax.Array) -> jax.Array:
        """The product with a vector `[size]`, the mean over all examples of all batches.

        Raises:
          ValueError: if `v` has another shape.
        """
        if v.shape != (self.size,):
            raise ValueError(f"`v` must have shape ({self.size},), got {v.shape}.")
        tangent = self.expand(v)
        total = None
        for part, weight in zip(self.parts, self.weights, strict=True):
            total = _add_product(total, part, weight, tangent, self.dtype)
        return self.contract(total)

    def expand(self, v: jax.Array) -> Params:
        """The tree like `params` that holds `v` on the support and 0 elsewhere."""
        return support.expand(v, self.places, self.params)

    def contract(self, tree: Params) -> jax.Array:
        """The entries of a tree like `params` on the support, as a vector `[size]`."""
        return support.contract(tree, self.kept, self.dtype)


def check_operator(operator: Any, key: Any) -> None:
    """Raises `TypeError` unless these are an `Operator` and a typed key.

    >>> check_operator(jnp.eye(2), jax.random.key(0))
    Traceback (most recent call last):
      ...
    TypeError: `operator` must be an `Operator`, as from `landscape.hessian`, got ArrayImpl.
    """
    if not isinstance(operator, Operator):
        raise TypeError(
            "`operator` must be an `Operator`, as from `landscape.hessian`, got "
            f"{type(operator).__name__}."
        )
    check_key(key)


def hessian(
    loss: Loss, params: Params, batches: Batches, *, mask: Mask | None = None, leaves: str = "*"
) -> Operator:
    """The Hessian `∂²L/∂w²` of the mean loss over all batches, on the support of a mask.

    Forward over reverse, linearised once (Pearlmutter, 1994). Batches may differ in size; they are
    weighted by their number of examples.

    Args:
      loss: `loss(params, batch) -> scalar`, the mean over the batch; pass the same function object
        in calls that should share a compiled program.
      params: the parameters, a tree of arrays.
      batches: trees of arrays with the examples along the first axis; iterated once.
      mask: concrete boolean tree like `params`, True = in the support; by default all True.
      leaves: pattern of leaf names, as in `fnmatch`: `"Dense_0/*"`. Other leaves are constants of
        any dtype; those that are not floating-point are None in the operator's trees.

    Raises:
      TypeError: if a chosen leaf of `params` is not floating-point or one of `mask` not boolean.
      ValueError: if there are no batches, a batch has no examples or leaves of unequal lengths, the
        loss is not a floating-point scalar or not finite (a `NotFiniteError`), or the support is
        empty.

    >>> loss = lambda w, x: 0.5 * jnp.mean(x) * (3.0 * w[0] ** 2 + w[1] ** 2)
    >>> operator = hessian(loss, jnp.ones(2), [jnp.ones(4)], mask=jnp.array([True, False]))
    >>> operator(jnp.array([2.0])).tolist()
    [6.0]
    """
    return _build(partial(_hessian_part, loss), params, batches, mask, leaves)


def gauss_newton(
    predict: Callable[[Params, Any], Any],
    loss: Callable[[Any, Any], jax.Array],
    params: Params,
    batches: Batches,
    *,
    mask: Mask | None = None,
    leaves: str = "*",
) -> Operator:
    """The generalised Gauss–Newton matrix `Jᵀ (∂²L/∂f²) J` (Schraudolph, 2002).

    `J` is the Jacobian of the outputs `f`. Positive semidefinite for a loss convex in the outputs,
    and then the Fisher matrix if that loss is the negative log-likelihood of an exponential family
    in its natural parameters, as is cross-entropy.

    Args:
      predict: `predict(params, batch) -> outputs`, a tree of floating-point arrays.
      loss: `loss(outputs, batch) -> scalar`, the mean over the batch.
      params: as in `hessian`.
      batches: as in `hessian`.
      mask: as in `hessian`.
      leaves: as in `hessian`.

    Raises:
      TypeError: as in `hessian`.
      ValueError: as in `hessian`.

    >>> predict, loss = lambda w, x: x * w**2, lambda f, x: 0.5 * jnp.mean(f**2)
    >>> gauss_newton(predict, loss, jnp.ones(1), [jnp.ones(1)])(jnp.ones(1)).tolist()
    [4.0]
    """
    return _build(partial(_gauss_newton_part, predict, loss), params, batches, mask, leaves)


def empirical_fisher(
    loss: Loss, params: Params, batches: Batches, *, mask: Mask | None = None, leaves: str = "*"
) -> Operator:
    """The empirical Fisher matrix `1/N Σ_n g_n g_nᵀ`, `g_n` the gradient of example n.

    With the labels of the data this is not the Fisher matrix (Kunstner et al., 2019); see
    `monte_carlo_fisher`.

    Args:
      loss: as in `hessian`; it is evaluated on batches of one example.
      params: as in `hessian`.
      batches: as in `hessian`.
      mask: as in `hessian`.
      leaves: as in `hessian`.

    Raises:
      TypeError: as in `hessian`.
      ValueError: as in `hessian`.

    >>> loss = lambda w, x: jnp.mean(x * w[0])
    >>> empirical_fisher(loss, jnp.ones(1), [jnp.array([1.0, 3.0])])(jnp.ones(1)).tolist()
    [5.0]
    """
    return _build(partial(_fisher_part, loss), params, batches, mask, leaves)


def monte_carlo_fisher(
    loss: Loss,
    draw: Callable[[Key, Params, Any], Any],
    params: Params,
    batches: Batches,
    key: Key,
    *,
    mask: Mask | None = None,
    leaves: str = "*",
) -> Operator:
    """The Fisher matrix, estimated from labels drawn from the model's own predictions.

    The empirical Fisher matrix of the drawn labels, which is unbiased for
    `1/N Σ_n E_{y ~ p(y|x_n)} g_n g_nᵀ` when `loss` is the negative log-likelihood (Martens, 2020).

    Args:
      loss: as in `empirical_fisher`.
      draw: `draw(key, params, batch)` is the batch with labels drawn from the model, with repeated
        examples for several draws each.
      params: as in `hessian`.
      batches: as in `hessian`.
      key: key of the draws, folded with the index of each batch.
      mask: as in `hessian`.
      leaves: as in `hessian`.

    Raises:
      TypeError: as in `hessian`.
      ValueError: as in `hessian`.

    >>> loss = lambda w, y: jnp.mean(0.5 * (y - w[0]) ** 2)  # y ~ N(w, 1): the Fisher matrix is 1
    >>> draw = lambda key, w, y: w[0] + jax.random.normal(key, (4000,))
    >>> fisher = monte_carlo_fisher(loss, draw, jnp.ones(1), [jnp.zeros(1)], jax.random.key(0))
    >>> abs(fisher(jnp.ones(1)).item() - 1) < 0.1
    True
    """
    drawn = (draw(jax.random.fold_in(key, i), params, batch) for i, batch in enumerate(batches))
    return empirical_fisher(loss, params, drawn, mask=mask, leaves=leaves)


@partial(jax.jit, static_argnums=0)
def _hessian_part(loss, params, constants, batch):
    loss = _with(loss, constants)
    check_scalar(jax.eval_shape(loss, params, batch))

    def field(p):
        value, gradient = jax.value_and_grad(loss)(p, batch)
        return gradient, value

    return _linearize(field, params)


@partial(jax.jit, static_argnums=(0, 1))
def _gauss_newton_part(predict, loss, params, constants, batch):
    predict = _with(predict, constants)
    check_params(jax.eval_shape(predict, params, batch), "outputs")
    outputs, pullback = jax.vjp(lambda p: predict(p, batch), params)
    check_scalar(jax.eval_shape(loss, outputs, batch))

    def field(p):  # its Jacobian at `params` is Jᵀ (∂²L/∂f²) J: the pullback is constant
        value, gradient = jax.value_and_grad(loss)(predict(p, batch), batch)
        return pullback(gradient)[0], value

    return _linearize(field, params)


@partial(jax.jit, static_argnums=0)
def _fisher_part(loss, params, constants, batch):
    loss = _with(loss, constants)

    def losses(p):
        return jax.vmap(lambda example: loss(p, jax.tree.map(lambda x: x[None], example)))(batch)

    check_scalar(jax.eval_shape(loss, params, batch))
    _, pullback = jax.vjp(losses, params)

    def field(p):  # its Jacobian at `params` is 1/n Σ g gᵀ
        values = losses(p)
        return pullback(values / values.shape[0])[0], values

    _, part, values = jax.linearize(field, params, has_aux=True)
    return values.mean(), pullback(jnp.full_like(values, 1 / values.shape[0]))[0], part


def _with(function, constants):
    """`function(params, batch)` of the floating-point leaves alone."""

    def whole(params, batch):
        return function(support.merge(params, constants), batch)

    return whole if jax.tree.leaves(constants) else function


def _linearize(field, params):
    """The auxiliary value of `field`, its vector, and the linearised function."""
    vector, part, value = jax.linearize(field, params, has_aux=True)
    return value, vector, part


@partial(jax.jit, static_argnums=4)
def _add_product(total, part, weight, tangent, dtype):
    return _add(total, weight, part(tangent), dtype)


@partial(jax.jit, static_argnums=3)
def _add(total, weight, tree, dtype):
    """`total + weight · tree`, where None is 0."""
    scaled = jax.tree.map(lambda leaf: weight.astype(dtype) * leaf.astype(dtype), tree)
    return scaled if total is None else jax.tree.map(jnp.add, total, scaled)


def _build(
    linearize: Callable[[Params, Params, Any], tuple[jax.Array, Params, Any]],
    params: Params,
    batches: Batches,
    mask: Mask | None,
    leaves: str,
) -> Operator:
    check_params(params, leaves=leaves)
    params = jax.tree.map(jnp.asarray, params)
    if mask is not None:
        trees.check_same_structure("mask", mask, "params", params)
        mask, _ = support.split(mask, params)
    params, constants = support.split(params, params)
    places, kept = support.find(params, mask, leaves)
    dtype = support.vector_dtype(params)
    parts, sizes, summed = [], [], None
    for i, batch in enumerate(batches):
        sizes.append(batch_size(i, batch))
        with full_precision():
            value, gradient, part = linearize(params, constants, batch)
        check_finite(i, value)
        parts.append(part)
        summed = _add(summed, jnp.asarray(sizes[-1], dtype), gradient, dtype)
    if not parts:
        raise ValueError("`batches` must hold at least one batch, got none.")
    weights = tuple(jnp.asarray(size / sum(sizes), dtype) for size in sizes)
    mean = support.contract(summed, kept, dtype) / sum(sizes)
    return Operator(params, tuple(parts), weights, places, kept, mean)
