"""NNX modules of compact size."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx

M = TypeVar("M", bound=nnx.Module)


def refit(module: M, params: Any) -> M:
    """A copy of an NNX module with smaller parameters and fitting attributes.

    NNX keeps widths as attributes (`features`, `num_groups`, `num_heads`); those of Linear,
    LinearGeneral, Conv, Embed, BatchNorm, LayerNorm, RMSNorm, GroupNorm and MultiHeadAttention are
    set from the new kernels. Other quantities that depend on a width (√head_dim) change too:
    compare the result with the compact function by `check_same`.

    Args:
      module: the analysed module.
      params: smaller state, in the structure of `nnx.split` (pure or not).

    Raises:
      ValueError: a module with changed shapes has another type.

    >>> model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    >>> small = {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}
    >>> refit(model, small)(jnp.ones((1, 4))).shape
    (1, 2)
    """
    new = nnx.clone(module)
    before = {path: _widths(part) for path, part in nnx.iter_modules(new)}
    nnx.update(new, params)
    for path, part in nnx.iter_modules(new):
        if isinstance(part, nnx.MultiHeadAttention):
            _fit_attention(part)
        elif _widths(part) != before[path]:
            _fit(part, "/".join(map(str, path)))
    return new


def _widths(part: nnx.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's variables."""
    return {k: jnp.shape(v[...]) for k, v in vars(part).items() if isinstance(v, nnx.Variable)}


def _fit(part: nnx.Module, name: str) -> None:
    for kind, fit in _FITS:
        if isinstance(part, kind):
            return fit(part)
    raise ValueError(
        f"`module` has at '{name}' a {type(part).__name__} whose attributes cannot be derived from "
        "its smaller parameters; rebuild it, or use the compact function."
    )


def _fit_linear(part: Any) -> None:
    part.in_features, part.out_features = part.kernel.shape


def _fit_general(part: Any) -> None:
    inner = len(part.in_features)
    part.in_features, part.out_features = part.kernel.shape[:inner], part.kernel.shape[inner:]


def _fit_conv(part: Any) -> None:
    groups = part.feature_group_count
    fan_in, out = part.kernel.shape[-2:]
    per_group = part.in_features // groups
    # Removes whole groups (the fan-in is unchanged), or channels of every group.
    if fan_in == per_group and groups > 1:
        part.feature_group_count = groups * out // part.out_features
    part.in_features = fan_in * part.feature_group_count
    part.out_features, part.kernel_shape = out, part.kernel.shape


def _fit_embed(part: Any) -> None:
    part.num_embeddings, part.features = part.embedding.shape


def _fit_norm(part: Any) -> None:
    part.num_features = _own_width(part)


def _fit_group_norm(part: Any) -> None:
    part.num_features = _own_width(part)
    part.num_groups = part.num_features // part.group_size


def _own_width(part: Any) -> int:
    return next(iter(_widths(part).values()))[-1]


def _fit_attention(part: Any) -> None:
    part.num_heads, part.head_dim = part.query.kernel.shape[-2:]
    part.num_kv_heads = part.key.kernel.shape[-2]
    part.qkv_features = part.num_heads * part.head_dim


_FITS: tuple[tuple[Any, Callable[[Any], None]], ...] = (
    (nnx.Linear, _fit_linear),
    (nnx.LinearGeneral, _fit_general),
    (nnx.Conv, _fit_conv),
    (nnx.Embed, _fit_embed),
    (nnx.GroupNorm, _fit_group_norm),
    ((nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm), _fit_norm),
)
