"""Dense safetensors files of a network, under its own names or PyTorch's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lth_jax import trees
from lth_jax.exchange import tensor_file
from lth_jax.exchange.dtypes import convert, is_float
from lth_jax.exchange.errors import ExchangeError
from lth_jax.exchange.mapping import (
    NameMapping,
    Target,
    as_targets,
    check_flattened,
    check_mapped,
    layout_of,
    to_torch,
    warn_of_flattened,
    with_biases,
)
from lth_jax.exchange.written import Written, write
from lth_jax.layouts import Layout, Layouts
from lth_jax.pruning.checks import check_mask
from lth_jax.types import Mask, Params

ORIGINAL, MASK = "_orig", "_mask"
"""The endings of `torch.nn.utils.prune`."""


def save_safetensors(
    path: str | Path,
    params: Params,
    mask: Mask | None = None,
    *,
    state: Any = None,
    mapping: NameMapping | None = None,
    layouts: Layouts | None = None,
    masks: bool = False,
    dtype: str | None = None,
    separator: str = "/",
    overwrite: bool = False,
) -> Written:
    """Writes a dense safetensors file; pruned weights are exactly 0.

    Args:
      path: the file.
      params: tree of arrays.
      mask: tree like `params`, True = kept; all kept by default.
      state: further arrays, such as BatchNorm's mean and variance.
      mapping: the PyTorch name of every leaf of `params` and `state`; kernels then get PyTorch's
        axes. By default the names are those of the leaves, and the axes stay.
      layouts: leaf name to layout, for kernels of more than two axes.
      masks: whether to write each leaf that is pruned as `NAME_orig` and `NAME_mask`.
      dtype: dtype of all floating-point arrays; unchanged by default.
      separator: replaces the `/` in the names of leaves without a mapping.
      overwrite: whether to replace an existing file.

    Returns:
      The file's size beside dense; the file was read again and compared.

    Warns:
      UserWarning: a dense kernel may read a flattened convolution, but has no `flattened`.

    Raises:
      ExchangeError: a leaf has no name, layout or dtype in the file, or the file exists.
      ValueError: `mask` does not fit `params`.
      TypeError: a leaf of `mask` is not bool.

    >>> import tempfile
    >>> params = {"fc": {"kernel": np.arange(6.0).reshape(2, 3)}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "net.safetensors")
    ...     written = save_safetensors(path, params, mapping={"fc/kernel": "fc.weight"})
    ...     tensor_file.read(path)[0]["fc.weight"].shape
    (3, 2)
    """
    arrays = to_state_dict(
        params, mask, state=state, mapping=mapping, layouts=layouts, masks=masks, dtype=dtype
    )
    if mapping is None:
        named = {name.replace("/", separator): array for name, array in arrays.items()}
        if len(named) < len(arrays):
            raise ExchangeError(f"`separator` is {separator!r}, which gives two leaves one name.")
        arrays = named
    data = tensor_file.to_bytes(arrays)
    check_same_arrays(tensor_file.from_bytes(data)[0], arrays)
    return write(path, data, (params, state), overwrite=overwrite)


def check_same_arrays(found: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> None:
    """Raises `ExchangeError` unless all arrays agree bit for bit."""
    for name, array in wanted.items():
        array = np.asarray(array)
        same = name in found and found[name].shape == array.shape
        if not same or found[name].tobytes() != array.tobytes():
            raise ExchangeError(f"'{name}' was not read back as it was written.")


def to_state_dict(
    params: Params,
    mask: Mask | None = None,
    *,
    state: Any = None,
    mapping: NameMapping | None = None,
    layouts: Layouts | None = None,
    masks: bool = False,
    dtype: str | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of `save_safetensors` by name, as `torch.nn.Module.load_state_dict` takes them.

    Args:
      params: as in `save_safetensors`, like all arguments.
      mask: True = kept.
      state: further arrays.
      mapping: leaf name to PyTorch name.
      layouts: leaf name to layout.
      masks: whether to write masks.
      dtype: dtype of floating-point arrays.

    Raises:
      ExchangeError: as `save_safetensors` raises it.
      ValueError: `mask` does not fit `params`.
      TypeError: a leaf of `mask` is not bool.

    >>> found = to_state_dict({"w": np.ones(2)}, {"w": np.array([True, False])}, masks=True)
    >>> {name: array.tolist() for name, array in found.items()}
    {'w_orig': [1.0, 0.0], 'w_mask': [1.0, 0.0]}
    """
    if mask is not None:
        mask = jax.tree.map(np.asarray, mask)
        check_mask(mask, params)
    leaves = {name: np.asarray(leaf) for name, leaf in trees.to_named(params).items()}
    kept = {} if mask is None else trees.to_named(mask)
    further = {} if state is None else trees.to_named(state)
    if twice := sorted(set(leaves) & set(further)):
        raise ExchangeError(f"`params` and `state` both have the leaves {twice[:3]}.")
    leaves |= {name: np.asarray(leaf) for name, leaf in further.items()}
    targets = None if mapping is None else as_targets(mapping)
    if targets is not None:
        check_mapped(leaves, targets)
    chosen: dict[str, Layout | None] = {}
    if targets is not None:
        shapes = {name: leaf.shape for name, leaf in leaves.items()}
        known = with_biases(shapes, targets, layouts or {})
        chosen = {n: layout_of(n, shapes[n], targets[n], known) for n in leaves}
        warn_of_flattened(shapes, chosen, targets)
    found: dict[str, np.ndarray] = {}
    for name, leaf in leaves.items():
        target = Target(name) if targets is None else targets[name]
        layout = chosen.get(name)
        check_flattened(name, leaf.shape, layout, target.flattened)
        if is_float(leaf):
            leaf = convert(name, leaf, dtype)
        keep = kept.get(name, np.ones(leaf.shape, bool))
        values = to_torch(np.where(keep, leaf, np.zeros((), leaf.dtype)), layout, target.flattened)
        parts = {target.name: values}
        if masks and not keep.all():
            flags = to_torch(keep, layout, target.flattened).astype(values.dtype)
            parts = {target.name + ORIGINAL: values, target.name + MASK: flags}
        if twice := sorted(set(parts) & set(found)):
            raise ExchangeError(f"Two arrays of the file have the name '{twice[0]}'.")
        found |= parts
    return found
