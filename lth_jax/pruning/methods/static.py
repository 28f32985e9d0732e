"""A fixed mask, of trained or of untrained weights."""

from typing import Any

import optax

from lth_jax.layouts import Layouts
from lth_jax.pruning.methods._parts import on_subnetwork
from lth_jax.pruning.methods.method import METHODS, Method
from lth_jax.pruning.scopes import Scope
from lth_jax.pruning.transforms import static_sparse
from lth_jax.types import Prunable


def static(
    *,
    prunable: Prunable | None = None,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int | None = None,
) -> Method:
    """One mask for the whole training; bit for bit equal to `masked(inner, mask)`.

    This is how lottery tickets are trained (Frankle & Carbin, 2019). The arguments are unused;
    every method takes them.

    Raises:
      ValueError: from `init`, the mask does not fit the parameters.
      TypeError: from `init`, a leaf of the mask is not boolean; from `transform`, `inner` is not
        an optimizer.

    >>> import jax, jax.numpy as jnp, optax
    >>> from lth_jax.pruning.methods import Inputs, static
    >>> method, params = static(), {"w": jnp.array([2.0, 0.0])}
    >>> inputs = Inputs({"w": jnp.array([True, False])}, jnp.int32(1), jax.random.key(0))
    >>> tx = method.transform(optax.sgd(1.0), inputs)
    >>> updates, state = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [1.0, 0.0]
    """
    del prunable, layouts, scope, steps

    def build(inner: Any, inputs: Any) -> Any:
        return static_sparse(inner, lambda params: inputs.mask)

    return on_subnetwork("static", build, starts_dense=False)


def frozen(
    *,
    prunable: Prunable | None = None,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int | None = None,
) -> Method:
    """One mask, and no updates: all parameters keep the values at which training starts.

    Evaluates tickets without training (Zhou et al., 2019, "Deconstructing lottery tickets", section
    5). Running statistics of BatchNorm are those of the masked network. The optimizer and the
    arguments are unused.

    Raises:
      ValueError: from `init`, the mask does not fit the parameters.
      TypeError: from `init`, a leaf of the mask is not boolean.

    >>> import jax, jax.numpy as jnp
    >>> from lth_jax.pruning.methods import Inputs, frozen
    >>> method, params = frozen(), {"w": jnp.array([2.0, 0.0])}
    >>> inputs = Inputs({"w": jnp.array([True, False])}, jnp.int32(1), jax.random.key(0))
    >>> tx = method.transform(optax.sgd(1.0), inputs)
    >>> updates, state = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [2.0, 0.0]
    """
    del prunable, layouts, scope, steps

    def build(inner: Any, inputs: Any) -> Any:
        del inner
        return static_sparse(optax.set_to_zero(), lambda params: inputs.mask)

    return on_subnetwork("frozen", build, starts_dense=False)


METHODS.register("static", static)
METHODS.register("frozen", frozen)
