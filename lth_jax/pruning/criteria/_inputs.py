"""The signature of criteria, checks of their inputs, and the precision of scores."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.pruning.checks import check_params
from lth_jax.pruning.compiled import compiled
from lth_jax.pruning.masks import apply_mask
from lth_jax.registry import Registry
from lth_jax.types import Key, Mask, Params, Scores


class Criterion(Protocol):
    """A pure function from parameters to scores; every criterion has exactly this signature.

    `params` and `mask` are trees of one structure; `key` is a typed PRNG key; `batches` is a
    sequence of batches; `initial` holds the parameters at initialisation (or at the rewind point).
    A criterion ignores the inputs that it does not use, and raises `ValueError` if one that it
    needs is None. The scores have the structure and shapes of `params` and are float32 (float64 for
    float64 leaves); higher means keep. Scores of pruned weights are arbitrary.
    """

    def __call__(
        self,
        params: Params,
        mask: Mask,
        *,
        key: Key | None = None,
        batches: Sequence[Any] | None = None,
        initial: Params | None = None,
    ) -> Scores:
        """The scores of `params` under `mask`."""


Builder = Callable[..., Criterion]
INPUTS = ("key", "batches", "initial")
OFFERED = ("loss", "forward", "example", "inputs", "structure")
"""The arguments that a builder can take; see `CRITERIA`."""


def _check_builder(name: str, builder: Builder) -> None:
    found = inspect.signature(builder).parameters.values()
    required = [p.name for p in found if p.default is p.empty and p.name not in OFFERED]
    if required:
        raise TypeError(
            f"`part` of {name!r} needs {', '.join(required)}; a builder may require only "
            f"{', '.join(OFFERED)}; its other arguments need defaults."
        )


CRITERIA: Registry[Builder] = Registry("criterion", _check_builder)
"""All criteria by name; configs use these names.

A builder takes any of these arguments: `loss`, `(params, batch) -> scalar`; `forward`, `(params, x)
-> outputs`; `example`, an input of batch size 1; `inputs`, as `linen_inputs` returns it;
`structure`, the network's removable units. Further arguments have defaults.
"""


def named(name: str) -> Callable[[Callable[..., Scores]], Criterion]:
    """The criterion that calls a function with those inputs that it takes.

    Errors and reports show `name`. The criterion is compiled when called outside a trace. Its
    attribute `needs` holds the names of the inputs that it requires.

    >>> named("mine")(lambda params, mask, **_: params).__name__
    'mine'
    """

    def wrap(score: Callable[..., Scores]) -> Criterion:
        parameters = inspect.signature(score).parameters
        every = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

        def criterion(
            params: Params,
            mask: Mask,
            *,
            key: Key | None = None,
            batches: Sequence[Any] | None = None,
            initial: Params | None = None,
        ) -> Scores:
            given = {"key": key, "batches": batches, "initial": initial}
            taken = {n: x for n, x in given.items() if every or n in parameters}
            return score(params, mask, **taken)

        criterion.__name__ = criterion.__qualname__ = name
        criterion.needs = tuple(n for n in INPUTS if n in parameters)  # type: ignore[attr-defined]
        return compiled(criterion)

    return wrap


def name_of(criterion: Criterion) -> str:
    """The name of a criterion: its `__name__`, or that of its type.

    >>> name_of(named("mine")(lambda params, mask, **_: params))
    'mine'
    """
    return str(getattr(criterion, "__name__", type(criterion).__name__))


def widen(leaf: jax.Array) -> jax.Array:
    """The leaf in at least float32, so that products of half-precision numbers keep their order."""
    return leaf.astype(jnp.float32) if jnp.finfo(leaf.dtype).bits < 32 else leaf


def kept(params: Params, mask: Mask) -> Params:
    """The masked parameters, `params ⊙ mask`, in at least float32; checks both arguments.

    The network, its loss and their derivatives are then computed in float32 too, unless the network
    casts to half precision. Gradients of float16 weights overflow or vanish early.
    """
    check_params(params)
    return jax.tree.map(widen, apply_mask(mask, params))


def require(name: str, value: Any, criterion: str, what: str) -> Any:
    """`value`, or a `ValueError` stating that this criterion needs it."""
    if value is None:
        raise ValueError(f"`{criterion}` needs `{name}`: {what}.")
    return value


def require_key(given: Any, criterion: str) -> Key:
    """The key; `ValueError` if it is missing, `TypeError` if it is not a typed key."""
    key: Key = require("key", given, criterion, "a typed PRNG key such as jax.random.key(0)")
    if not jnp.issubdtype(getattr(key, "dtype", jnp.float32), jax.dtypes.prng_key):
        raise TypeError(f"`key` must be a typed PRNG key (jax.random.key), not {type(key)}.")
    return key


def require_initial(initial: Any, params: Params, criterion: str) -> Params:
    """The earlier parameters; `ValueError` if they are missing or have another structure."""
    initial = require("initial", initial, criterion, "the parameters at initialisation or rewind")
    trees.check_same_structure("initial", initial, "params", params)
    return initial


def require_batches(batches: Sequence[Any] | None, criterion: str) -> Sequence[Any]:
    """The batches in at least float32; raises if there are none or they do not match."""
    require("batches", batches, criterion, "a non-empty list of batches")
    if not isinstance(batches, (list, tuple)) or hasattr(batches, "_fields"):
        raise TypeError(f"`batches` must be a list or tuple of batches, not {type(batches)}.")
    if not batches:
        raise ValueError(f"`{criterion}` needs at least one batch, but `batches` is empty.")
    kinds = [_kind(batch) for batch in batches]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(
            "`batches` must hold batches of one structure, dtype and example shape, but holds "
            f"{kinds[0]} and {next(k for k in kinds if k != kinds[0])}; pass one batch as [batch]."
        )
    return [jax.tree.map(_widen_floats, batch) for batch in batches]


def _widen_floats(leaf: Any) -> Any:
    """The leaf, in float32 if it is a half-precision array: layers need operands of one dtype."""
    half = jnp.result_type(leaf) in (jnp.float16, jnp.bfloat16)
    return widen(jnp.asarray(leaf)) if half else leaf


def _kind(batch: Any) -> tuple[str, ...]:
    """The name, dtype and shape of each leaf of a batch, its number of examples left out."""
    leaves = zip(trees.names(batch), jax.tree.leaves(batch), strict=True)
    return tuple(
        f"{name or 'array'}: {jnp.result_type(leaf)}{[*jnp.shape(leaf)[1:]]}"
        for name, leaf in leaves
    )


def batch_size(batch: Any) -> int:
    """The number of examples in a batch: the length of the first axis of its leaves."""
    sizes = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "`batches` must hold batches whose leaves share one first axis of at least one "
            f"example, but one has first axes {sorted(sizes)}."
        )
    return sizes.pop()


def weighted_mean(f: Callable[[Any], Any], batches: Sequence[Any]) -> Any:
    """The mean of `f` over all examples, `Σ_b n_b f(b) / Σ_b n_b`, as a tree in at least float32.

    `f` maps a batch to a tree of means over its `n_b` examples.
    """
    sizes = [batch_size(batch) for batch in batches]

    def share(n: int, batch: Any) -> Any:
        return jax.tree.map(lambda a: widen(a) * (n / sum(sizes)), f(batch))

    # Lazily, so that at most two trees are in memory.
    return functools.reduce(
        lambda total, part: jax.tree.map(jnp.add, total, part), map(share, sizes, batches)
    )
