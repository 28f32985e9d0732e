"""Movement pruning: scores accumulated during training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lth_jax import text, trees
from lth_jax.pruning.checks import check_mask, check_params
from lth_jax.pruning.criteria._inputs import Criterion, named, widen
from lth_jax.types import Mask, Params, Scores


@text.with_short_repr
class MovementState(NamedTuple):
    """The state of `track_movement`: `movement`, the accumulated `-w · ∂L/∂w`, in float32."""

    movement: Any


def movement_pruning(accumulated: Any) -> Criterion:
    """Movement pruning (Sanh et al. 2020): `-Σ_t w_t · ∂L/∂w_t`, over the steps of training.

    Positive where the steps moved the weight away from zero, negative where they moved it towards
    zero. `track_movement` accumulates them: `optax.tree.get(opt_state, "movement")`. In the paper's
    soft and hard versions the gradient is taken at the masked weights, and pruned weights continue
    to be updated.

    Args:
      accumulated: the tree of accumulated scores. Under `jax.vmap` pass it as an argument and build
        the pruner inside the mapped function.

    Returns:
      A criterion that needs neither key nor batches.

    Example:
      >>> params, mask = {"w": jnp.array([2.0, 1.0])}, {"w": jnp.ones(2, bool)}
      >>> movement_pruning({"w": jnp.array([-1.0, 3.0])})(params, mask)["w"].tolist()
      [-1.0, 3.0]
    """

    @named("movement_pruning")
    def criterion(params: Params, mask: Mask) -> Scores:
        check_params(params)
        check_mask(mask, params)
        trees.check_same_structure("accumulated", accumulated, "params", params)
        return jax.tree.map(widen, accumulated)

    return criterion


def track_movement() -> optax.GradientTransformation:
    """An optax transform that accumulates `-w · ∂L/∂w` and passes the gradients on unchanged.

    It must come first in the chain, where the updates are still the raw gradients. The paper's step
    size of the scores is omitted: a constant factor does not change the ranking.

    Returns:
      A transform whose state is a `MovementState`; its `update` needs `params`.

    Example:
      >>> optimizer = optax.chain(track_movement(), optax.sgd(0.1))
      >>> params = {"w": jnp.array([2.0, 1.0])}
      >>> state = optimizer.init(params)
      >>> _, state = optimizer.update({"w": jnp.array([0.5, -3.0])}, state, params)
      >>> optax.tree.get(state, "movement")["w"].tolist()
      [-1.0, 3.0]
    """

    def init(params: Params) -> MovementState:
        return MovementState(jax.tree.map(lambda w: jnp.zeros_like(widen(w)), params))

    def update(
        updates: Params, state: Any, params: Params | None = None
    ) -> tuple[Params, MovementState]:
        if params is None:
            raise ValueError("`track_movement` needs `params`: call update(grads, state, params).")
        movement = jax.tree.map(
            lambda s, w, g: s - widen(w) * widen(g), state.movement, params, updates
        )
        return updates, MovementState(movement)

    return optax.GradientTransformation(init, update)
