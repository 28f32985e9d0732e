"""Equinox modules of compact size; Equinox is imported on use."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import jax

from lth_jax.extras import lazy

eqx: Any = lazy("equinox", "`rebuild` of an Equinox module", "test")


def is_equinox(module: Any) -> bool:
    """Whether this is a module of Equinox; Equinox is not imported."""
    return "equinox" in sys.modules and isinstance(module, eqx.Module)


def refit_equinox(module: Any, params: Any) -> Any:
    """A copy of an Equinox module with smaller arrays and fitting static fields.

    Fields of Linear, Conv, Embedding, LayerNorm, RMSNorm, GroupNorm, BatchNorm, GRUCell, LSTMCell
    and MultiheadAttention are derived from the new arrays.

    Args:
      module: the analysed module.
      params: smaller arrays, as `eqx.filter(module, …)` gives them.

    Raises:
      ValueError: a module of another type has integers among its static fields and holds an array
        of changed shape.
    """
    return _fitted(module, eqx.combine(params, module), "")


def _fitted(old: Any, new: Any, where: str) -> Any:
    if isinstance(new, list | tuple):
        parts = [
            _fitted(a, b, f"{where}[{k}]") for k, (a, b) in enumerate(zip(old, new, strict=True))
        ]
        return new._make(parts) if hasattr(new, "_make") else type(new)(parts)
    if isinstance(new, dict):
        return {name: _fitted(old[name], part, f"{where}[{name!r}]") for name, part in new.items()}
    if not isinstance(new, eqx.Module):
        return new
    names = [field.name for field in dataclasses.fields(new) if hasattr(new, field.name)]
    copy = object.__new__(type(new))
    for name in names:  # as Equinox unflattens its frozen modules
        part = _fitted(getattr(old, name), getattr(new, name), f"{where}.{name}")
        object.__setattr__(copy, name, part)
    for name, size in _sizes(old, copy, names, where).items():
        object.__setattr__(copy, name, size)
    return copy


def _sizes(old: Any, new: Any, names: list[str], where: str) -> dict[str, Any]:
    """The static fields that follow from changed arrays."""
    if isinstance(new, eqx.nn.MultiheadAttention):
        return _attention(new)
    if all(_shape(getattr(old, name)) == _shape(getattr(new, name)) for name in names):
        return {}
    for kind, sizes in _FITS.items():
        if isinstance(new, getattr(eqx.nn, kind)):
            return sizes(old, new)
    held = [name for name in names if type(getattr(new, name)) is int]
    if held:
        raise ValueError(
            f"`module` has at '{where or '.'}' a {type(new).__name__} whose field '{held[0]}' "
            "cannot be derived from its smaller arrays; use the compact function."
        )
    return {}


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, jax.Array | jax.ShapeDtypeStruct) else None


def _linear(old: Any, new: Any) -> dict[str, Any]:
    fields = dict(zip(("out_features", "in_features"), new.weight.shape, strict=True))
    return {name: n for name, n in fields.items() if getattr(old, name) != "scalar"}


def _conv(old: Any, new: Any) -> dict[str, Any]:
    out, fan_in = new.weight.shape[:2]
    # Removes whole groups (the fan-in is unchanged), or channels of every group.
    whole = old.groups > 1 and fan_in == old.weight.shape[1]
    groups = old.groups * out // old.out_channels if whole else old.groups
    return {"groups": groups, "in_channels": fan_in * groups, "out_channels": out}


def _embedding(old: Any, new: Any) -> dict[str, Any]:
    return dict(zip(("num_embeddings", "embedding_size"), new.weight.shape, strict=True))


def _norm(old: Any, new: Any) -> dict[str, Any]:
    return {"shape": (new.bias if new.weight is None else new.weight).shape}


def _group_norm(old: Any, new: Any) -> dict[str, Any]:
    channels = (new.bias if new.weight is None else new.weight).shape[0]
    return {"channels": channels, "groups": channels * old.groups // old.channels}


def _batch_norm(old: Any, new: Any) -> dict[str, Any]:
    return {"input_size": new.weight.shape[0]}


def _cell(old: Any, new: Any) -> dict[str, Any]:
    return {"input_size": new.weight_ih.shape[1], "hidden_size": new.weight_hh.shape[1]}


def _attention(new: Any) -> dict[str, Any]:
    """Fewer heads where the sizes of a head still divide the projections, else smaller heads."""
    query, value = new.query_proj.out_features, new.value_proj.out_features
    heads = query // new.qk_size
    if heads * new.qk_size != query or heads * new.vo_size != value:
        heads = new.num_heads
    return {
        "num_heads": heads,
        "qk_size": query // heads,
        "vo_size": value // heads,
        "query_size": new.query_proj.in_features,
        "key_size": new.key_proj.in_features,
        "value_size": new.value_proj.in_features,
        "output_size": new.output_proj.out_features,
    }


_FITS: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "Linear": _linear,
    "Conv": _conv,
    "Embedding": _embedding,
    "LayerNorm": _norm,
    "RMSNorm": _norm,
    "GroupNorm": _group_norm,
    "BatchNorm": _batch_norm,
    "GRUCell": _cell,
    "LSTMCell": _cell,
}
