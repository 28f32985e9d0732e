"""The network of a config."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax.errors import FlaxError
from ml_collections import ConfigDict

from experiments import parts
from experiments.flags import UserError, nearest
from experiments.legal import FLAG, shown
from experiments.messages import by_fields
from lth_jax import data, models
from lth_jax.legal import Legal, real, whole
from lth_jax.models.adapters.calls import parameters_of
from lth_jax.types import Model

MAY_BE_0 = ("layers", "blocks")
MAY_BE_EMPTY = ("hidden", "stages")
_SIZES = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError, FlaxError)
"""What a wrong size makes Python, JAX or Flax raise, whichever meets it first."""
_LINEN = ("name", "parent")  # attributes that every Linen module has


def model(experiment: ConfigDict) -> Model:
    """The network as two functions, computing in the config's dtype and precision."""
    return _computing(models.as_model(module(experiment)), experiment)


def _computing(network: Model, experiment: ConfigDict) -> Model:
    full = experiment.train.matmul_precision == "highest"
    return models.compute_in(network, experiment.train.compute_dtype, full_precision=full)


def dropout(experiment: ConfigDict) -> float:
    """The chance for an entry to be dropped; 0 for a network that drops none.

    A user's own network keeps its own.
    """
    if parts.is_own(experiment.model.name):
        return 0.0
    return float(experiment.model.options.to_dict().get("dropout", 0.0))


def model_in_training(experiment: ConfigDict) -> Callable[[Mapping[str, Any]], Model] | None:
    """The network by a member's numbers; None where they do not change it."""
    if not dropout(experiment):
        return None
    whole = module(experiment)

    def make(hyper: Mapping[str, Any]) -> Model:
        return _computing(models.from_linen(whole.clone(dropout=hyper["dropout"])), experiment)

    return make


def module(experiment: ConfigDict) -> Any:
    """The network as `models.as_model` takes it: a Linen module if it is a built-in one.

    A user's own network is a class or function of `model.options`. It returns a Linen module, a
    transformed Haiku function or a `Model`. With a further argument `rngs` it returns an NNX
    module, with `key` an Equinox module.

    Raises:
      UserError: if its options cannot be right.
    """
    name, options = experiment.model.name, experiment.model.options.to_dict()
    if parts.is_own(name):
        return _own_module(name, options)
    check_options(experiment)
    return models.NETWORKS[experiment.model.name](**experiment.model.options.to_dict())


def _own_module(name: str, options: dict[str, Any]) -> Any:
    found = parts.load("model.name", name)
    if isinstance(found, Model):
        return found
    try:
        network = functools.partial(found, **options)
        if not {"rngs", "key"} & set(parameters_of(found)):
            network = network()
        models.as_model(network)
    except (TypeError, ValueError) as error:
        raise UserError(f"`model.name` is '{name}', which fails: {error}") from error
    return network


def attributes(name: str) -> dict[str, Legal]:
    """The options of a network, which are the attributes of its Linen module, and their values.

    Values are like the default: sizes of at least 1 (numbers of layers may be 0), tuples of them, a
    chance, a flag, or a function.
    """
    plain = models.NETWORKS[name]()
    known = [one for one in type(plain).__dataclass_fields__ if one not in _LINEN]
    return {option: _legal(option, getattr(plain, option)) for option in known}


def check_options(experiment: ConfigDict) -> None:
    """Raises `UserError` for the first option that the network has not, or whose value is wrong."""
    name = experiment.model.name
    if parts.is_own(name):
        _own_module(name, experiment.model.options.to_dict())
        return
    known = attributes(name)
    for option, value in experiment.model.options.to_dict().items():
        if option not in known:
            raise UserError(nearest(f"a field of `model.options` of '{name}'", option, known))
        if not known[option].holds(value):
            raise UserError(
                f"`model.options.{option}` is {shown(value)}; it must be {known[option].words}."
            )


def _legal(option: str, default: Any) -> Legal:
    """Values like a default."""
    least = 0 if option in MAY_BE_0 else 1
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, float):
        return real(0, 1, below=True)
    if type(default) in (tuple, list):
        fewest = 0 if option in MAY_BE_EMPTY else 1
        return Legal(
            f"a tuple of {'' if fewest == 0 else 'one or more '}integers of at least {least}",
            lambda value: _are_sizes(least, value) and len(value) >= fewest,
        )
    if default is None:
        size = whole(1)
        return Legal(f"None, or {size.words}", lambda value: value is None or size.holds(value))
    if isinstance(default, int):
        return whole(least)
    if callable(default):
        return Legal("a function", callable)
    kind = type(default)
    return Legal(f"of type {kind.__name__}", lambda value: isinstance(value, kind))


def _are_sizes(least: int, value: Any) -> bool:
    """Whether these are sizes, or tuples of them (stages of layers)."""
    one = whole(least)
    return isinstance(value, tuple | list) and all(
        _are_sizes(least, part) if isinstance(part, tuple | list) else one.holds(part)
        for part in value
    )


class Shapes(NamedTuple):
    """What a network is on some data, as shapes.

    Attributes:
      params: its parameters.
      state: what it carries but does not train.
      outputs: of one example.
    """

    params: Any
    state: Any
    outputs: jax.ShapeDtypeStruct


def shapes(experiment: ConfigDict, loaded: data.Dataset) -> Shapes:
    """The shapes of a config's network on its data; allocates nothing.

    Raises:
      UserError: if the network does not take these inputs, or its outputs do not fit the labels.
    """
    network, name = model(experiment), experiment.model.name
    x = loaded.train.x
    example = jax.ShapeDtypeStruct((1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))

    def of(x: jax.Array) -> Shapes:
        params, state = network.init(jax.random.key(0), x)
        return Shapes(params, state, network.apply(params, state, x, train=False)[0])

    try:
        found = jax.eval_shape(of, example)
    except _SIZES as error:
        options = experiment.model.options.to_dict()
        reason = by_fields(str(error), options=options, under="model.options")
        first = reason.partition(". ")[0].rstrip(".")
        raise UserError(
            f"`model.options` of '{name}' do not suit inputs {example.shape[1:]}: {first}."
        ) from error
    if not loaded.classes:  # targets that are no classes: the loss decides what fits
        return found
    wanted = (*loaded.train.y.shape[1:], loaded.classes)
    got = found.outputs.shape[1:]
    if len(got) != len(wanted) or got[:-1] != wanted[:-1] or got[-1] < wanted[-1]:
        raise UserError(
            f"`model.options` give '{name}' outputs {got} for each example, but the labels of "
            f"'{experiment.data.name}' need {wanted}."
        )
    return found
