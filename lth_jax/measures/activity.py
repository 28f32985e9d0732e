"""Activity of a network: dead units, and gradient norms per layer."""

from collections.abc import Mapping

import jax
import numpy as np

from lth_jax import trees
from lth_jax.types import Mask, Params


def dead_units(outputs: Mapping[str, jax.Array], threshold: float = 0.0) -> dict[str, jax.Array]:
    """The units of each layer that never exceed the threshold, on any example or position.

    Such a ReLU unit passes no gradient. Outputs before and after the ReLU give the same result. The
    results of several batches are joined by `&`.

    Args:
      outputs: `{layer: (batch, ..., units)}`, as from `models.layer_outputs`.
      threshold: the threshold of active units.

    Returns:
      `{layer: bool[units]}`; the mean of each is the fraction of dead units.

    >>> outputs = {"hidden": np.array([[1.0, -1.0, 0.0], [-2.0, -3.0, 0.0]])}
    >>> dead_units(outputs)["hidden"].tolist()
    [False, True, True]
    """
    return {
        name: (out <= threshold).all(axis=tuple(range(out.ndim - 1)))
        for name, out in outputs.items()
    }


def gradient_flow(gradients: Params, mask: Mask | None = None) -> dict[str, float]:
    """The norm of the masked gradient of each leaf, `‖g ∘ m‖₂`.

    The sum of their squares is the rate at which a small step of gradient descent lowers the loss.

    Source: Evci, Ioannou, Keskin and Dauphin (2022), "Gradient flow in sparse neural networks and
    how lottery tickets win".

    Args:
      gradients: tree of arrays.
      mask: tree of booleans of that structure; None keeps all.

    Returns:
      `{leaf name: norm}`, computed in float64.

    Raises:
      ValueError: if `mask` has another structure or other shapes.

    >>> gradient_flow({"w": np.array([3.0, 4.0, 5.0])}, {"w": np.array([True, True, False])})
    {'w': 5.0}
    """
    named = {name: np.asarray(g, np.float64) for name, g in trees.to_named(gradients).items()}
    if mask is not None:
        trees.check_same_structure("mask", mask, "gradients", gradients)
        kept = trees.to_named(mask)
        named = {name: np.where(kept[name], g, 0.0) for name, g in named.items()}
    return {name: float(np.linalg.norm(g)) for name, g in named.items()}
