"""Converts Keras models to `Model`s and back; Keras, on JAX, is imported on use."""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from lth_jax import layouts
from lth_jax.extras import needed_by
from lth_jax.legal import check_name
from lth_jax.models.adapters.calls import AUTO, Output, chosen_output, read_call
from lth_jax.types import Key, Model, Params

DRAWN, GIVEN = "drawn", "given"
"""Values of `initial`: by the model's initializers from the key, or those that the model holds."""


def from_keras(
    model: Any, *, initial: str = DRAWN, flag: str = AUTO, output: Output | None = None
) -> Model:
    """Converts a Keras model on the JAX backend to a `Model`, by `model.stateless_call`.

    `params` is a nested dictionary of the trainable variables, by their paths
    (`{"dense": {"kernel": …}}`); `state` one of the others, among them BatchNorm statistics and the
    weights of frozen layers (`{}` without any). The generators of dropout are in neither: a
    training call takes the i-th one's seed from `fold_in(key, i)`. The model itself never changes.

    Keras numbers unnamed layers over the whole process (`dense_3`), and the paths with them: name
    the layers of a model whose tickets are saved. Parameters are converted to the dtypes of the
    variables, and layers compute in that of their dtype policies. Losses of layers
    (`kernel_regularizer`, `add_loss`) are not part of the outputs.

    Args:
      model: a `keras.Model` whose variables exist: it has a `keras.Input` or was called once.
      initial: `"drawn"` draws each variable in `init` by its initializer from `fold_in(key, i)`,
        in place of the initializer's seed, so that keys give different networks; the model must
        then be one that Keras can clone. `"given"` returns the values that the model holds for
        every key, such as pretrained weights.
      flag: the flag's name; `"auto"` reads it from the signature of `model.call`; `"none"` if there
        is none.
      output: applied to the model's result; required if that is a tuple.

    Raises:
      TypeError: if `model` is not a Keras model, or requires further arguments; from
        `apply`, if it returns a tuple and there is no `output`.
      ValueError: if Keras runs on another backend, the model has no variables yet, two variables
        share a path, `initial` is unknown, or the model cannot be cloned; from `apply` with
        `train=True` and no `key`, if the model has generators.
      MissingExtraError: if Keras is not installed.

    Example::

        import os

        os.environ["KERAS_BACKEND"] = "jax"  # before the first import of Keras
        import keras

        model = from_keras(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        params, state = model.init(jax.random.key(0), None)
    """
    check_name("initial", initial, (DRAWN, GIVEN))
    keras, name = checked_keras(model), f"the model '{getattr(model, 'name', '')}'"
    call = read_call(
        model.call, name=name, flag=flag, own_flag="training", keywords_are_flags=False
    )
    trainable, others, seeds = read_variables(model)
    drawn = _initializers(keras, model, [*trainable, *others]) if initial == DRAWN else []

    def init(key: Key, x: Any) -> tuple[Params, Any]:
        del x
        values = [variable.value for variable in (*trainable, *others)]
        for i, initializer in enumerate(drawn):
            values[i] = _draw(initializer, values[i], jax.random.fold_in(key, i))
        count = len(trainable)
        return _nested(trainable, values[:count]), _nested(others, values[count:])

    def apply(
        params: Params, state: Any, x: Any, *, key: Key | None = None, train: bool
    ) -> tuple[Any, Any]:
        if train and key is None and seeds:
            raise ValueError(f"`key` must be given with `train=True`: {name} has random streams.")
        fixed = dict(zip(map(id, others), values_of(others, "state", state), strict=True))
        for i, seed in enumerate(seeds):
            fixed[id(seed)] = seed.value
            if key is not None:
                bits = jax.random.bits(jax.random.fold_in(key, i), seed.shape, seed.dtype)
                fixed[id(seed)] = bits
        out, moved = model.stateless_call(
            values_of(trainable, "params", params),
            [fixed[id(v)] for v in model.non_trainable_variables],
            x,
            **call.mode(train),
        )
        if train:
            after = {id(v): m for v, m in zip(model.non_trainable_variables, moved, strict=True)}
            state = _nested(others, [after[id(v)] for v in others])
        return chosen_output(out, output, name), state

    return Model(init=init, apply=apply, layouts=lambda x: layouts.of_keras(model))


def is_keras(network: Any) -> bool:
    """Whether an object is a Keras model; Keras is not imported."""
    return any(
        one.__name__ == "Model" and one.__module__.split(".")[0] == "keras"
        for one in type(network).__mro__
    )


def checked_keras(model: Any) -> Any:
    """Checks a Keras model and returns the module `keras`.

    Raises:
      TypeError: `model` is not a Keras model.
      ValueError: Keras runs on another backend than JAX, or the model has no variables.
      MissingExtraError: Keras is not installed.
    """
    with needed_by("`from_keras`", "keras"):
        import keras
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model, got {type(model).__name__}.")
    backend = keras.config.backend()
    if backend != "jax":
        raise ValueError(
            f"`model` runs on Keras's backend '{backend}', but must run on 'jax': set the "
            "environment variable KERAS_BACKEND=jax before Keras is first imported."
        )
    if not model.built or not model.variables:
        raise ValueError(
            f"`model` is '{model.name}', which has no variables yet: give it a `keras.Input`, or "
            "call it once."
        )
    return keras


def read_variables(model: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """The trainable variables, the others, and the seeds of random generators."""
    fixed = model.non_trainable_variables
    seeds = [v for v in fixed if v.name == "seed_generator_state"]  # Keras 3.15
    others = [v for v in fixed if v.name != "seed_generator_state"]
    for variables in (model.trainable_variables, others):
        paths = sorted(v.path for v in variables)
        for path, after in itertools.pairwise(paths):
            if after == path or after.startswith(f"{path}/"):
                raise ValueError(
                    f"`model` has several variables below the path '{path}': name its layers."
                )
    return model.trainable_variables, others, seeds


def _nested(variables: Sequence[Any], values: Sequence[Any]) -> dict[str, Any]:
    """A nested dictionary of values by the variables' paths."""
    return unflatten_dict(
        {tuple(v.path.split("/")): leaf for v, leaf in zip(variables, values, strict=True)}
    )


def values_of(variables: Sequence[Any], name: str, tree: Mapping[str, Any]) -> list[Any]:
    """The inverse of `_nested`."""
    leaves = flatten_dict(tree, sep="/")
    paths = [v.path for v in variables]
    if leaves.keys() != set(paths):
        odd = sorted(leaves.keys() ^ set(paths))
        raise ValueError(f"`{name}` must have the leaves of the model's variables; differs: {odd}.")
    return [leaves[path] for path in paths]


def _initializers(keras: Any, model: Any, variables: Sequence[Any]) -> list[Callable[..., Any]]:
    """The initializers of variables, from a clone whose variables have no values yet."""
    found: dict[int, Any] = {}

    def clone() -> None:
        with keras.StatelessScope():  # variables keep their initializers until it ends
            twin = keras.models.clone_model(model)
            for old, new in zip(model.variables, twin.variables, strict=True):
                found[id(old)] = new._initializer  # Keras 3.15 has no public name for it

    try:
        jax.eval_shape(clone)  # no values are computed
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"`initial` is '{DRAWN}', but Keras cannot clone the model '{model.name}'; use "
            f"'{GIVEN}': {error}"
        ) from error
    return [found[id(v)] for v in variables]


def _draw(initializer: Callable[..., Any], like: jax.Array, key: Key) -> jax.Array:
    """Calls an initializer with the key in place of its seed, if it has one."""
    if hasattr(initializer, "seed"):
        initializer = copy.copy(initializer)
        initializer.seed = key  # Keras 3.15 on JAX passes arrays on to `jax.random`
    return initializer(like.shape, dtype=like.dtype)
