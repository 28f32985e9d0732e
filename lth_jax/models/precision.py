"""Mixed precision: networks that compute in a narrow type with float32 parameters."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from lth_jax.models.layers import as_floats
from lth_jax.types import Key, Model, Params


def compute_in(model: Model, dtype: DTypeLike, *, full_precision: bool = False) -> Model:
    """The model, computing in `dtype`; parameters, state and outputs keep their types.

    `f(θ, s, x) ↦ f(cast(θ), s, cast(x))`, with the outputs in float32. So losses, gradients,
    optimizer and statistics are float32, and only the network's arithmetic is narrow (Micikevicius
    et al., 2018, "Mixed precision training"; bfloat16 has float32's range, so no loss scaling is
    needed). It is faster on accelerators; XLA's CPU backend is slower in bfloat16.

    Accelerators multiply float32 matrices with fewer bits by default: NVIDIA GPUs in TF32, TPUs in
    bfloat16. With `full_precision`, products in the network and in its gradients keep all bits of
    float32. On CPUs it changes nothing.

    Args:
      model: any model.
      dtype: a floating type.
      full_precision: whether products of float32 matrices keep all bits.

    Raises:
      ValueError: if `dtype` is not floating.

    >>> from lth_jax.models import MLP, from_linen
    >>> model = compute_in(from_linen(MLP((4, 2))), jnp.bfloat16)
    >>> x = jnp.ones((3, 5))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> params["Dense_0"]["kernel"].dtype, model.apply(params, state, x, train=False)[0].dtype
    (dtype('float32'), dtype('float32'))
    >>> full = compute_in(from_linen(MLP((4, 2))), "float32", full_precision=True)
    >>> "HIGHEST" in str(jax.make_jaxpr(lambda x: full.apply(params, state, x, train=False))(x))
    True
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"`dtype` must be a floating type, got {jnp.dtype(dtype).name}.")
    if full_precision:
        model = model._replace(apply=jax.default_matmul_precision("float32")(model.apply))
    if jnp.dtype(dtype) == jnp.float32:
        return model

    narrow = partial(_cast, source=jnp.float32, target=dtype)

    def apply(
        params: Params, state: Any, x: Any, *, key: Key | None = None, train: bool
    ) -> tuple[Any, Any]:
        out, after = model.apply(
            narrow(params), state, narrow(jax.tree.map(as_floats, x)), key=key, train=train
        )
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)
        return _cast(out, dtype, jnp.float32), after

    return model._replace(apply=apply)


def _cast(tree: Any, source: DTypeLike, target: DTypeLike) -> Any:
    """Converts the leaves of one type to another."""
    return jax.tree.map(lambda x: x.astype(target) if x.dtype == source else x, tree)
