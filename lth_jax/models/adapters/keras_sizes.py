"""Keras models with given weights, and with layers of the widths of those weights."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from lth_jax.models.adapters.keras import checked_keras, read_variables, values_of
from lth_jax.types import Params

Shapes = dict[str, tuple[int, ...]]
"""The last name in a variable's path to its shape."""


def to_keras(model: Any, params: Params, state: Any) -> Any:
    """A Keras model with given weights, also with those of a compacted network.

    Clones the model with the widths of its layers (`units`, `filters`, `num_heads`, …) read off the
    weights; norms, depthwise convolutions and poolings follow their inputs, and so does the entry
    of a `Reshape` that equals the number of channels. A functional model inside the model keeps the
    shapes of its inputs. Other quantities that depend on a width (LayerNorm's divisor, √key_dim)
    change too: compare the result with the compact function by `lth_jax.structure.check_same`. The
    given model does not change.

    Args:
      model: the model that was converted by `from_keras`.
      params: as from its `init`, or smaller.
      state: as from its `init`, or smaller.

    Raises:
      TypeError: if `model` is not a Keras model.
      ValueError: if the leaves differ in their names, or a layer cannot have the new shapes.

    Example::

        found = structure.find_groups(apply, {"params": params, "state": state}, x)
        small, _ = structure.compact(found, {"params": params, "state": state}, units)
        to_keras(model, small["params"], small["state"]).save("small.keras")
    """
    keras = checked_keras(model)
    trainable, others, _ = read_variables(model)
    values = [*values_of(trainable, "params", params), *values_of(others, "state", state)]
    given = {v.path: leaf for v, leaf in zip([*trainable, *others], values, strict=True)}
    resized = any(given[v.path].shape != v.shape for v in (*trainable, *others))

    unknown: list[str] = []

    def fitted(layer: Any) -> Any:
        if isinstance(layer, keras.Sequential):  # without its input, whose width may have changed
            return keras.Sequential([fitted(part) for part in layer.layers], name=layer.name)
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=fitted)
        config = layer.get_config()
        held = {v.path: v.shape for v in getattr(layer, "variables", ()) if v.path in given}
        if any(given[path].shape != shape for path, shape in held.items()):
            old = {_key(path): shape for path, shape in held.items()}
            new = {_key(path): given[path].shape for path in held}
            rules = [kind.__name__ for kind in type(layer).__mro__ if kind.__name__ in _WIDTHS]
            for rule in rules:
                config |= _WIDTHS[rule](config, old, new)
            if not rules:
                unknown.append(f"'{layer.name}' ({type(layer).__name__})")
        elif resized and isinstance(layer, keras.layers.Reshape):
            config["target_shape"] = _free(config["target_shape"], layer.input.shape[-1])
        return type(layer).from_config(config)

    try:
        new = keras.models.clone_model(model, clone_function=fitted)
    except (AttributeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(
            f"`model` is '{model.name}', whose layer {' or '.join(unknown) or 'below'} cannot have "
            f"the shapes of `params`; use the compact function: {why}"
        ) from error
    for old, variable in zip(model.variables, new.variables, strict=True):
        if old.path in given:
            _assign(variable, old.path, given[old.path])
    return new


def _key(path: str) -> str:
    """`query/kernel` of attention's own layers, else the variable's name."""
    *_, layer, name = ("", *path.split("/"))
    return f"{layer}/{name}" if layer in ("query", "key", "value", "attention_output") else name


def _free(target: tuple[int, ...], channels: int | None) -> tuple[int, ...]:
    """The target of a reshape whose last entry of so many channels is free."""
    if -1 in target or channels not in target:
        return target
    last = len(target) - 1 - target[::-1].index(channels)
    return (*target[:last], -1, *target[last + 1 :])


def _assign(variable: Any, path: str, leaf: Any) -> None:
    if variable.shape != leaf.shape:
        raise ValueError(
            f"`params` or `state` has at '{path}' the shape {leaf.shape}, but a smaller model has "
            f"{variable.shape} there, as no entry of the layer's config states this width; use the "
            "compact function."
        )
    variable.assign(jnp.asarray(leaf))


def _same(config: dict[str, Any], old: Shapes, new: Shapes) -> dict[str, Any]:
    """Layers without widths of their own, which follow their inputs."""
    return {}


def _conv(config: dict[str, Any], old: Shapes, new: Shapes) -> dict[str, Any]:
    """Removes whole groups (the fan-in is unchanged), or channels of every group."""
    (*_, inputs, _), (*_, fan_in, filters) = old["kernel"], new["kernel"]
    groups = config["groups"]
    if groups > 1 and fan_in == inputs:
        groups = groups * filters // old["kernel"][-1]
    return {"filters": filters, "groups": groups}


def _attention(config: dict[str, Any], old: Shapes, new: Shapes) -> dict[str, Any]:
    (_, heads, size), (*_, value) = new["query/kernel"], new["value/kernel"]
    return {"num_heads": heads, "key_dim": size, "value_dim": value}


def _group_norm(config: dict[str, Any], old: Shapes, new: Shapes) -> dict[str, Any]:
    """The size of a group stays."""
    name = next(iter(old))
    return {"groups": config["groups"] * new[name][0] // old[name][0]}


_WIDTHS: dict[str, Callable[[dict[str, Any], Shapes, Shapes], dict[str, Any]]] = {
    "Dense": lambda config, old, new: {"units": new["kernel"][-1]},
    "BaseConv": _conv,
    "BaseConvTranspose": lambda config, old, new: {"filters": new["kernel"][-2]},
    "BaseDepthwiseConv": lambda config, old, new: {"depth_multiplier": new["kernel"][-1]},
    "BaseSeparableConv": lambda config, old, new: {
        "filters": new["pointwise_kernel"][-1],
        "depth_multiplier": new["depthwise_kernel"][-1],
    },
    "Embedding": lambda config, old, new: dict(
        zip(("input_dim", "output_dim"), new["embeddings"], strict=True)
    ),
    "GroupNormalization": _group_norm,
    "MultiHeadAttention": _attention,
    **dict.fromkeys(
        ("BatchNormalization", "LayerNormalization", "RMSNormalization", "PReLU"), _same
    ),
    "LayerScale": lambda config, old, new: {"projection_dim": new["gamma"][0]},  # ConvNeXt's
    **dict.fromkeys(
        ("SimpleRNN", "LSTM", "GRU"),
        lambda config, old, new: {"units": new["recurrent_kernel"][0]},
    ),
}
"""Names of layers' classes to the entries of the config that state widths (Keras 3.15)."""
