"""The network of a config."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax.errors import FlaxError
from ml_collections import ConfigDict

from experiments.messages import by_fields
from lth_jax import data, models
from lth_jax.cli import parts
from lth_jax.cli.programs import UserError
from lth_jax.legal import nearest, shown
from lth_jax.models.adapters.calls import parameters_of
from lth_jax.models.options import options_of
from lth_jax.types import Model

_SIZES = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError, FlaxError)
"""Errors that Python, JAX or Flax raise for wrong sizes."""


def model(experiment: ConfigDict) -> Model:
    """The network as two functions, computing in the config's dtype and precision."""
    return _computing(models.as_model(module(experiment)), experiment)


def _computing(network: Model, experiment: ConfigDict) -> Model:
    full = experiment.train.matmul_precision == "highest"
    return models.compute_in(network, experiment.train.compute_dtype, full_precision=full)


def dropout(experiment: ConfigDict) -> float:
    """The dropout rate; 0 without dropout.

    For user-defined networks it is 0: they handle dropout themselves.
    """
    if parts.is_own(experiment.model.name):
        return 0.0
    return float(experiment.model.options.to_dict().get("dropout", 0.0))


def model_in_training(experiment: ConfigDict) -> Callable[[Mapping[str, Any]], Model] | None:
    """`hyper -> network` with a traced dropout rate; None without dropout."""
    if not dropout(experiment):
        return None
    whole = module(experiment)

    def make(hyper: Mapping[str, Any]) -> Model:
        return _computing(models.from_linen(whole.clone(dropout=hyper["dropout"])), experiment)

    return make


def module(experiment: ConfigDict) -> Any:
    """The network as an argument of `models.as_model`; built-in networks are Linen modules.

    A user-defined network is a class or function of `model.options`. It returns a Linen module, a
    transformed Haiku function or a `Model`; with a further argument `rngs` an NNX module, with
    `key` an Equinox module.

    Raises:
      UserError: an option is invalid.
    """
    name, options = experiment.model.name, experiment.model.options.to_dict()
    if parts.is_own(name):
        return _own_module(name, options)
    check_options(experiment)
    return models.NETWORKS[name](**options)


def _own_module(name: str, options: dict[str, Any]) -> Any:
    found = parts.load("model.name", name)
    if isinstance(found, Model):
        return found
    with parts.failing("model.name", name, getattr(found, "__module__", "")):
        network = functools.partial(found, **options)
        if not {"rngs", "key"} & set(parameters_of(found)):
            network = network()
        models.as_model(network)
    return network


def check_options(experiment: ConfigDict) -> None:
    """Raises `UserError` for the first unknown option or illegal value."""
    name = experiment.model.name
    if parts.is_own(name):
        _own_module(name, experiment.model.options.to_dict())
        return
    known = options_of(name)
    for option, value in experiment.model.options.to_dict().items():
        if option not in known:
            raise UserError(nearest(f"a field of `model.options` of '{name}'", option, known))
        if not known[option].holds(value):
            raise UserError(
                f"`model.options.{option}` is {shown(value)}; it must be {known[option].words}."
            )


class Shapes(NamedTuple):
    """The shapes of a network on a data set.

    Attributes:
      params: shapes of its parameters.
      state: shapes of its state.
      outputs: shape of its outputs for one example.
    """

    params: Any
    state: Any
    outputs: jax.ShapeDtypeStruct


def shapes_on(network: Model, example: jax.ShapeDtypeStruct) -> Shapes:
    """The shapes of a network on inputs of a shape and dtype, the batch axis first."""

    def of(x: jax.Array) -> Shapes:
        params, state = network.init(jax.random.key(0), x)
        return Shapes(params, state, network.apply(params, state, x, train=False)[0])

    found: Shapes = jax.eval_shape(of, example)
    return found


def shapes(experiment: ConfigDict, loaded: data.Dataset) -> Shapes:
    """The shapes of a config's network on its data; allocates nothing.

    Raises:
      UserError: the network does not accept these inputs, or its outputs do not fit the labels.
    """
    network, name = model(experiment), experiment.model.name
    x = loaded.train.x
    example = jax.ShapeDtypeStruct((1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))
    try:
        with parts.failing_parts({"model.name": name}):
            found = shapes_on(network, example)
    except _SIZES as error:
        options = experiment.model.options.to_dict()
        reason = by_fields(str(error), options=options, under="model.options")
        first = reason.partition(". ")[0].rstrip(".")
        raise UserError(
            f"`model.options` of '{name}' do not fit inputs {example.shape[1:]}: {first}."
        ) from error
    if not loaded.classes:  # for other targets than classes, the loss checks the outputs
        return found
    wanted = (*loaded.train.y.shape[1:], loaded.classes)
    got = found.outputs.shape[1:]
    if len(got) != len(wanted) or got[:-1] != wanted[:-1] or got[-1] < wanted[-1]:
        raise UserError(
            f"`model.options` give '{name}' outputs {got} for each example, but the labels of "
            f"'{experiment.data.name}' need {wanted}."
        )
    return found
