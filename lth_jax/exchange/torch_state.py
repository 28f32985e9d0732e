"""Networks and masks as safetensors files and PyTorch state dictionaries, in both directions.

Masks follow `torch.nn.utils.prune`: a pruned `weight` is stored as `weight_orig` and `weight_mask`.
PyTorch is imported only to read `.pt` files.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax import trees
from lth_jax.exchange import tensor_file
from lth_jax.exchange.dense import MASK, ORIGINAL
from lth_jax.exchange.dtypes import convert, is_float
from lth_jax.exchange.errors import ExchangeError
from lth_jax.exchange.mapping import (
    NameMapping,
    Target,
    as_targets,
    check_flattened,
    check_mapped,
    from_torch,
    layout_of,
    leaf_shape,
    torch_shape,
    warn_of_flattened,
    with_biases,
)
from lth_jax.extras import needed_by
from lth_jax.layouts import Layouts
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.store.leaves import nest
from lth_jax.types import Mask, Params, Prunable

COUNTERS = ("*num_batches_tracked",)
"""PyTorch's counters, which are not parameters."""
STATISTICS = ("running_mean", "running_var")
"""The endings of the names of statistics, which are not parameters."""


class Imported(NamedTuple):
    """A network that was read from a file; arrays of NumPy in the file's dtypes.

    Attributes:
      params: exactly 0 where pruned.
      mask: bool leaves, all True where not prunable.
      prunable: Python booleans: the leaves that have a mask in the file, or by
        `lth_jax.prunable_leaves` where none has.
      state: the other arrays of the model, such as the mean and variance of BatchNorm.
    """

    params: Params
    mask: Mask
    prunable: Prunable
    state: Any


def load_torch_state(
    source: str | Path | Mapping[str, Any],
    *,
    mask: str | Path | Mapping[str, Any] | None = None,
    mapping: NameMapping | None = None,
    layouts: Layouts | None = None,
    like: Any = None,
    state: Any = None,
    zeros: bool = False,
    skip: Sequence[str] = (),
    dtype: str | None = None,
) -> Imported:
    """Reads weights, masks and BatchNorm statistics from a PyTorch state dictionary.

    Leaves that PyTorch names `running_mean` or `running_var` go into `state`, unless `like` has
    them. PyTorch's variance is unbiased, but both frameworks normalise by what is stored.

    Args:
      source: a `.safetensors` file, a `.pt`, `.pth` or `.bin` file (these need PyTorch), or arrays
        by name. `NAME_orig` and `NAME_mask` are the weights and the mask of `NAME`.
      mask: masks by the names of the weights, 0 or 1, as open_lth's `mask.pth` holds them.
      mapping: leaf name to PyTorch name; kernels then get the axes of their layouts. By default
        the names stay, with `/` for `.`, and the axes stay PyTorch's.
      layouts: leaf name to layout, for kernels of more than two axes.
      like: tree whose structure and shapes the parameters have; nested dictionaries by default.
      state: tree whose structure and shapes the state has, as in `save_safetensors`, such as the
        collection `batch_stats` of Linen; nested dictionaries by default.
      zeros: whether weights that are exactly 0 are pruned, in leaves without a mask that
        `lth_jax.prunable_leaves` marks.
      skip: patterns of names to leave out, such as `"aux.*"`; counters always are.
      dtype: dtype of the floating-point arrays; those of the file by default.

    Raises:
      ExchangeError: the file cannot be read, a name is not mapped, a shape does not fit, a mask
        has other values than 0 and 1, or `dtype` changes values.
      lth_jax.extras.MissingExtraError: the file needs PyTorch, which is not installed.

    >>> arrays = {"fc.weight_orig": np.ones((1, 2)), "fc.weight_mask": np.array([[1.0, 0.0]])}
    >>> found = load_torch_state(arrays, mapping={"fc/kernel": "fc.weight"})
    >>> found.params["fc"]["kernel"].tolist(), found.mask["fc"]["kernel"].tolist()
    ([[1.0], [0.0]], [[True], [False]])
    """
    arrays = {
        name: array
        for name, array in _arrays("source", source).items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in (*COUNTERS, *skip))
    }
    given = {} if mask is None else _arrays("mask", mask)
    weights, masks = _pairs(arrays, given)
    targets = (
        {name.replace(".", "/"): Target(name, "as_is") for name in weights}
        if mapping is None
        else as_targets(mapping)
    )
    _check_all_read(weights, targets)
    if integers := [name for name, array in weights.items() if not is_float(array)]:
        raise ExchangeError(
            f"'{integers[0]}' has dtype {weights[integers[0]].dtype}; weights are floating-point "
            "numbers, so `skip` it."
        )
    shapes, further = _shapes(like), _shapes(state)
    if state is None:
        ends = (leaf for leaf, target in targets.items() if target.name.endswith(STATISTICS))
        further = dict.fromkeys(leaf for leaf in ends if leaf not in shapes)
    if like is not None:
        check_mapped({**shapes, **further}, targets)
    elif missing := sorted(set(further) - set(targets)):
        raise ExchangeError(f"`mapping` has no PyTorch name for {missing[:3]} of `state`.")
    expected = shapes | further
    known = with_biases(expected, targets, layouts or {})
    places = {
        leaf: _Place(leaf, target, known, expected.get(leaf), weights[target.name])
        for leaf, target in targets.items()
    }
    warn_of_flattened(
        {leaf: place.shape for leaf, place in places.items()},
        {leaf: place.layout for leaf, place in places.items()},
        targets,
    )
    values, kept = {}, {}
    for leaf, target in targets.items():
        array = convert(target.name, weights[target.name], dtype)
        values[leaf] = places[leaf].arranged(array)
        if target.name in masks:
            kept[leaf] = places[leaf].arranged(masks[target.name])
    params = {leaf: array for leaf, array in values.items() if leaf not in further}
    found = _tree({leaf: values[leaf] for leaf in further}, state)
    return Imported(*_pruned(params, kept, zeros, like), found)


def _shapes(tree: Any) -> dict[str, tuple[int, ...] | None]:
    """The shapes of a tree's leaves by name; empty without a tree."""
    return {} if tree is None else {n: leaf.shape for n, leaf in trees.to_named(tree).items()}


def _pruned(
    params: dict[str, np.ndarray], kept: dict[str, np.ndarray], zeros: bool, like: Any
) -> tuple[Params, Mask, Prunable]:
    """Parameters, mask and prunable leaves as trees."""
    prunable = {name: name in kept for name in params}
    if zeros or not kept:
        may = trees.to_named(prunable_leaves(_tree(params, None)))
        prunable = {name: name in kept or may[name] for name in params}
    mask = {name: kept.get(name, np.ones(leaf.shape, bool)) for name, leaf in params.items()}
    if zeros:
        mask |= {n: params[n] != 0 for n in params if prunable[n] and n not in kept}
    values = {
        name: np.where(mask[name], leaf, np.zeros((), leaf.dtype)) for name, leaf in params.items()
    }
    return _tree(values, like), _tree(mask, like), _tree(prunable, like)


def _tree(named: dict[str, Any], like: Any) -> Any:
    """Named leaves in the structure of a tree; as nested dictionaries without one."""
    if like is not None:
        return trees.from_named(named, like)
    return nest([(tuple(name.split("/")), leaf) for name, leaf in named.items()])


class _Place:
    """Moves the axes of one array to those of its leaf."""

    def __init__(
        self,
        leaf: str,
        target: Target,
        layouts: Layouts,
        shape: tuple[int, ...] | None,
        array: np.ndarray,
    ):
        found = array.shape
        self.layout = layout_of(leaf, found if shape is None else shape, target, layouts)
        own = leaf_shape(found, self.layout) if shape is None else shape
        check_flattened(leaf, own, self.layout, target.flattened)
        if torch_shape(own, self.layout) != found:
            raise ExchangeError(
                f"'{target.name}' has shape {found}; '{leaf}' of shape {own} needs "
                f"{torch_shape(own, self.layout)}."
            )
        self.shape, self._flattened = own, target.flattened

    def arranged(self, array: np.ndarray) -> np.ndarray:
        return from_torch(array, self.layout, self.shape, self._flattened)


def _check_all_read(weights: Mapping[str, Any], targets: Mapping[str, Target]) -> None:
    names = {target.name for target in targets.values()}
    if absent := sorted(names - set(weights)):
        raise ExchangeError(
            f"`mapping` names {absent[:3]}, but the arrays of `source` are {list(weights)[:20]}."
        )
    if unread := sorted(set(weights) - names):
        raise ExchangeError(
            f"`mapping` has no leaf for {unread[:3]} of `source`; map them, or `skip` them."
        )


def _pairs(
    arrays: dict[str, np.ndarray], given: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights and masks by the names of the weights."""
    weights, masks = {}, dict(given)
    for name, array in arrays.items():
        if name.endswith(MASK):
            masks[name.removesuffix(MASK)] = array
        else:
            weights[name.removesuffix(ORIGINAL)] = array
    for name, array in masks.items():
        if name not in weights:
            raise ExchangeError(
                f"There is a mask of '{name}', but the weights are {list(weights)[:20]}; `skip` "
                f"'{name}{MASK}' if it is not a mask of weights."
            )
        if array.shape != weights[name].shape:
            raise ExchangeError(
                f"The mask of '{name}' has shape {array.shape}, its weights {weights[name].shape}."
            )
        if not ((array == 0) | (array == 1)).all():
            raise ExchangeError(f"The mask of '{name}' has other values than 0 and 1.")
    return weights, {name: array.astype(bool) for name, array in masks.items()}


def _arrays(argument: str, source: Any) -> dict[str, np.ndarray]:
    if isinstance(source, Mapping):
        return {name: _to_numpy(array) for name, array in source.items()}
    path = Path(source)
    if path.suffix in (".pt", ".pth", ".bin"):
        with needed_by(f"A {path.suffix} file", "torch"):
            import torch
        found = torch.load(path, map_location="cpu", weights_only=True)
        found = found.get("state_dict", found) if isinstance(found, Mapping) else None
        if not found or not all(hasattr(array, "dtype") for array in found.values()):
            raise ExchangeError(f"`{argument}` is '{path}', which is not a dictionary of arrays.")
        return {name: _to_numpy(array) for name, array in found.items()}
    return tensor_file.read(path)[0]


def _to_numpy(array: Any) -> np.ndarray:
    if hasattr(array, "detach"):  # of PyTorch, whose bfloat16 NumPy cannot read
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":
            import ml_dtypes

            return array.float().numpy().astype(ml_dtypes.bfloat16)
    return np.asarray(array)
