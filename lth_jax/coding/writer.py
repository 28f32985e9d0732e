"""Encodes tickets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import text, trees
from lth_jax.coding import codecs, container, values
from lth_jax.coding import manifest as manifest_
from lth_jax.coding.errors import TicketError
from lth_jax.coding.manifest import InitialKey, Leaf, Manifest
from lth_jax.coding.quantize import Precision, exact
from lth_jax.coding.reader import restore_key
from lth_jax.types import Key, Mask, Params, Prunable

_ANY_AXES = 1 << 16  # the axis is checked for each leaf


@text.with_short_repr
class Initializer(NamedTuple):
    """Values that are recomputed instead of stored: `init(key)`.

    Attributes:
      name: the name of the function, for readers of the file.
      init: `key -> params`.
      key: one key.
    """

    name: str
    init: Callable[[Key], Params]
    key: Key


class _Input(NamedTuple):
    """One leaf of the trees to write."""

    name: str
    mask: np.ndarray
    prunable: bool
    values: np.ndarray | None


class _Output(NamedTuple):
    """One leaf of the file."""

    entry: Leaf
    mask_code: bytes
    value_code: bytes


def encode(
    mask: Mask,
    params: Params | None = None,
    *,
    prunable: Prunable,
    precision: Precision | None = None,
    initializer: Initializer | None = None,
    provenance: dict[str, Any] | None = None,
) -> bytes:
    """The bytes of a ticket file.

    Each mask has its shortest code in `codecs`; values are coded by `values`.

    Args:
      mask: bool leaves, all True where not prunable.
      params: a tree like `mask` whose kept values are stored. Without it and without
        `initializer` the file holds a mask only.
      prunable: a tree like `mask` of Python booleans.
      precision: precision of prunable floating-point leaves, exact by default. Other leaves are
        stored exactly.
      initializer: replaces `params`. The file then holds the key and hashes of the values, since
        initialisers may change between versions.
      provenance: the ticket's origin (config hash, level, criterion): a dictionary that JSON can
        hold, with at most 100 levels of nesting.

    Returns:
      The file, which `decode` can read.

    Raises:
      ValueError: trees do not match, `mask` prunes leaves that are not prunable, values to be
        rounded are not finite, or an argument exceeds the limits of tickets: 65,536 leaves, 32
        axes, names of 1024 printable characters, no nested leaves, one key, 64 MiB of header.
      TypeError: a dtype cannot be stored, `precision` is not a `Precision`, or `provenance`
        is not a dictionary.

    >>> from lth_jax.coding.reader import decode
    >>> mask = {"kernel": np.arange(6).reshape(2, 3) > 2}
    >>> data = encode(mask, {"kernel": np.ones((2, 3))}, prunable={"kernel": True})
    >>> decode(data).params["kernel"].tolist()
    [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    if params is None and precision is not None:
        raise ValueError(f"`precision` is {precision}, but there are no `params` to store.")
    precision = precision or exact()
    provenance = {} if provenance is None else provenance
    _check_options(precision, provenance)
    key = None if initializer is None else _initial_key(initializer)
    _check_names(mask)
    inputs = _inputs(mask, _made(params, initializer), prunable)
    outputs = [_encode_leaf(leaf, precision) for leaf in inputs]
    blobs = {manifest_.MASK + o.entry.name: o.mask_code for o in outputs}
    if params is not None:
        blobs |= {manifest_.VALUES + o.entry.name: o.value_code for o in outputs}
    source = manifest_.NONE if params is None else manifest_.EMBEDDED
    about = Manifest(
        manifest_.VERSION,
        source if key is None else manifest_.INITIALIZER,
        key,
        tuple(o.entry for o in outputs),
        provenance,
    )
    with _readable("`mask` and `provenance`"):
        return container.write(manifest_.to_json(about), blobs)


@contextmanager
def _readable(argument: str) -> Iterator[None]:
    """Context that turns errors of the reader's checks into errors that name the argument."""
    try:
        yield
    except TicketError as error:
        raise ValueError(f"{argument} cannot make a readable ticket: {error}.") from None


def _check_options(precision: Precision, provenance: dict[str, Any]) -> None:
    if not isinstance(precision, Precision):
        raise TypeError(
            f"`precision` is {precision!r}; it must be a `Precision`, such as `coding.bfloat16()`."
        )
    with _readable("`precision`"):
        manifest_.check_precision(precision, _ANY_AXES)
    if not isinstance(provenance, dict):
        raise TypeError(f"`provenance` is {str(provenance)[:80]!r}; a dictionary is needed.")
    with _readable("`provenance`"):
        container.check_json(provenance)


def _made(params: Params | None, initializer: Initializer | None) -> Params | None:
    if initializer is None:
        return params
    if params is not None:
        raise ValueError("`params` and `initializer` both give the values; one is needed.")
    return initializer.init(initializer.key)


def _initial_key(initializer: Initializer) -> InitialKey:
    """The initialiser's key as words, from which the same key can be restored."""
    try:
        words = np.asarray(jax.random.key_data(initializer.key))
        kind = str(jax.random.key_impl(initializer.key))
    except (TypeError, ValueError):
        found = str(initializer.key)[:80]
        raise TypeError(f"`initializer` has the key {found}; one key is needed.") from None
    key = InitialKey(initializer.name, kind, tuple(words.ravel().tolist()))
    if words.ndim != 1:
        shape = words.shape[:-1]
        raise ValueError(f"`initializer` has keys of shape {shape}; one key is needed.")
    with _readable("`initializer`"):
        manifest_.check_initial_key(key)
        restore_key(key)
    return key


def _check_names(mask: Mask) -> None:
    names = trees.names(mask)
    with _readable("`mask`"):
        manifest_.check_count(len(names))
    for name in names:
        if not manifest_.is_name(name):
            raise ValueError(f"`mask` has a leaf named {name[:80]!r}, which a ticket cannot hold.")
    if len(set(names)) < len(names):
        raise ValueError(
            "`mask` has two leaves of one name; a ticket identifies leaves by their names."
        )
    with _readable("`mask`"):
        manifest_.check_nesting(names)


def _inputs(mask: Mask, params: Params | None, prunable: Prunable) -> list[_Input]:
    """All leaves of the trees, checked."""
    trees.check_same_structure("prunable", prunable, "mask", jax.tree.map(lambda _: True, mask))
    if params is not None:
        trees.check_same_structure("params", params, "mask", mask)
    names, masks = trees.names(mask), [np.asarray(leaf) for leaf in jax.tree.leaves(mask)]
    leaves: list[np.ndarray | None] = [None] * len(names)
    if params is not None:
        leaves = list(map(_as_numpy, names, jax.tree.leaves(params)))
    inputs = list(map(_Input, names, masks, jax.tree.leaves(prunable), leaves))
    for leaf in inputs:
        _check(leaf)
    return inputs


def _as_numpy(name: str, leaf: Any) -> np.ndarray:
    """The leaf as a little-endian array, if a ticket can hold its dtype."""
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    if getattr(dtype, "name", "") not in values.DTYPES:
        raise TypeError(f"`params` at '{name}' has dtype {dtype}, which a ticket cannot hold.")
    return np.asarray(leaf).astype(values.DTYPES[dtype.name], copy=False)


def _check(leaf: _Input) -> None:
    with _readable(f"`mask` at '{leaf.name}'"):
        manifest_.check_shape(leaf.mask.shape)
    if leaf.mask.dtype != bool:
        raise TypeError(f"`mask` at '{leaf.name}' has dtype {leaf.mask.dtype}; bool is needed.")
    if not isinstance(leaf.prunable, bool):
        raise TypeError(f"`prunable` at '{leaf.name}' is {leaf.prunable!r}; a bool is needed.")
    if not leaf.prunable and not leaf.mask.all():
        raise ValueError(f"`mask` at '{leaf.name}' prunes a leaf that is not `prunable`.")


def _encode_leaf(leaf: _Input, precision: Precision) -> _Output:
    codec, mask_code = codecs.encode(leaf.mask)
    precision = _precision_for(leaf, precision)
    value_code, kept = b"", None
    if leaf.values is not None:
        value_code, kept = values.encode(leaf.values, leaf.mask, precision)
    entry = Leaf(
        name=leaf.name,
        shape=leaf.mask.shape,
        dtype="bool" if leaf.values is None else leaf.values.dtype.name,
        prunable=leaf.prunable,
        kept=int(np.count_nonzero(leaf.mask)),
        codec=codec,
        precision=precision,
        sha256=manifest_.leaf_sha256(leaf.mask, kept),
    )
    return _Output(entry, mask_code, value_code)


def _precision_for(leaf: _Input, precision: Precision) -> Precision:
    if leaf.values is None or not leaf.prunable or precision == exact():
        return exact()
    if not jnp.issubdtype(leaf.values.dtype, jnp.floating):
        return exact()
    if not np.isfinite(leaf.values[leaf.mask].astype(np.float32)).all():
        raise ValueError(f"`params` at '{leaf.name}' is not finite; `precision` must be exact.")
    axis, axes = precision.channel_axis, leaf.mask.ndim
    if axis is not None and axis not in range(-axes, axes):
        raise ValueError(f"`precision` has channel axis {axis}; '{leaf.name}' has {axes} axes.")
    return precision
