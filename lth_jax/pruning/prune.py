"""Pruners, composed from a criterion, a scope and a granularity."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.layouts import Layouts
from lth_jax.legal import shown
from lth_jax.pruning import scores as checked
from lth_jax.pruning.checks import check_mask, check_params, check_scores
from lth_jax.pruning.compiled import compiled, is_shared, shared
from lth_jax.pruning.criteria import Criterion
from lth_jax.pruning.criteria._inputs import INPUTS, name_of
from lth_jax.pruning.granularity import Granularity, weights
from lth_jax.pruning.scopes import Scope
from lth_jax.types import Count, Info, Key, Mask, Params, Prunable


@dataclass(frozen=True, eq=False, repr=False)
class Pruner:
    """A function from parameters and mask to a sparser mask; made by `prune` and `iterate`.

    Scores are invalid if they are NaN, infinite, or all equal among the weights that compete. A
    call outside a trace then raises `ValueError`. Under `jax.jit` and `jax.vmap` values cannot be
    read, and a member with invalid scores keeps its mask. `with_info` also returns which scores are
    invalid.

    Attributes:
      criterion: the name of the criterion.
      with_info: `(params, mask, count, *, prunable, layouts=None, key=None, batches=None,
        initial=None) -> (mask, info)`; of `iterate` without `count`. `info` holds `"nonfinite"`,
        int32 `[prunable leaves]`, the number of live scores that are NaN or infinite;
        `"nonfinite_units"`, int32, the same for units, where units are not single weights;
        `"undecided"`, bool `[pools]`, whether all scores of a pool are equal.
      counts: the counts, where `with_info` takes none; only their structure is read.
      parts: the names of scope and granularity.
    """

    criterion: str
    with_info: Callable[..., tuple[Mask, Info]]
    counts: Count | None = None
    parts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rounds = "iterated " if self.counts is not None else ""
        return f"Pruner({rounds}{', '.join((self.criterion, *self.parts))})"

    def __call__(
        self, params: Params, mask: Mask, *count: Count, prunable: Prunable, **inputs: Any
    ) -> Mask:
        """The new mask.

        Raises:
          ValueError: scores are invalid; the message names criterion and leaf.
        """
        new, info = self.with_info(params, mask, *count, prunable=prunable, **inputs)
        structure = self.counts if self.counts is not None else count[0]
        checked.check(info, self.criterion, structure, prunable)
        return new


def prune(criterion: Criterion, scope: Scope, granularity: Granularity = weights) -> Pruner:
    """Composes a pruner: `scope.select(granularity(criterion(params, mask)), count)`.

    The pruner is pure: it can be jitted (close over `prunable`, which is static) and vmapped, with
    keys and counts that differ between members. The new mask is a subset of the old one and keeps
    exactly `count` weights (for units of several weights: the smallest number of best units that
    together hold at least `count`).

    A call outside a trace is compiled, once for each structure, shape, dtype, `prunable` and
    `layouts`. As in `jax.jit`, values that the criterion closes over are read at the first call
    only; pass inputs that change as `batches`, `key` or `initial`. A criterion that reads values
    (`float(...)`, `np.asarray(...)`) runs uncompiled.

    Args:
      criterion: scores every weight; higher = keep.
      scope: which scores compete; `scope.counts` makes the `count` from a density.
      granularity: which weights are removed together; single weights by default.

    Returns:
      `(params, mask, count, *, prunable, layouts=None, key=None, batches=None, initial=None) ->
      mask`, a `Pruner`. `layouts` (`lth_jax.layouts`, static like `prunable`) gives the meaning of
      the kernels' axes; `key`, `batches` and `initial` are passed to the criterion. Raises
      `TypeError` for leaves that are not floating-point and for a count that is not an integer,
      `ValueError` for a mask or scores of another structure, for a count that does not fit the
      scope, for a kernel without the layout that the granularity needs, and, where values can be
      read, for live scores that are NaN, infinite, or all equal while some of them are to be kept.

    Raises:
      TypeError: a part has the wrong type, for instance a builder that was not called.

    >>> import jax, jax.numpy as jnp
    >>> from lth_jax.pruning import masks, scopes
    >>> params = {"w": jnp.array([[3.0, -4.0], [1.0, 0.5]]), "b": jnp.zeros(2)}
    >>> prunable, scope = masks.prunable_leaves(params), scopes.globally()
    >>> magnitude = lambda params, mask, **_: jax.tree.map(jnp.abs, params)
    >>> count = scope.counts(params, 0.5, prunable=prunable)
    >>> pruner = prune(magnitude, scope)
    >>> pruner(params, masks.ones_like(params), count, prunable=prunable)["w"].tolist()
    [[True, True], [False, False]]
    >>> mask, info = pruner.with_info(params, masks.ones_like(params), count, prunable=prunable)
    >>> {name: value.tolist() for name, value in info.items()}
    {'nonfinite': [0], 'undecided': [False]}
    """
    check_parts(criterion, scope, granularity)
    build = _shared_pruner if is_shared(criterion) else _pruner
    return build(criterion, scope.selection, granularity)


def _pruner(criterion: Criterion, scope: Scope, granularity: Granularity) -> Pruner:
    def with_info(
        params: Params,
        mask: Mask,
        count: Count,
        *,
        prunable: Prunable,
        layouts: Layouts | None = None,
        key: Key | None = None,
        batches: Any = None,
        initial: Params | None = None,
    ) -> tuple[Mask, Info]:
        check_params(params)
        check_mask(mask, params)
        scores = criterion(params, mask, key=key, batches=batches, initial=initial)
        check_scores(scores, mask)
        units = granularity.to_units(scores, mask, prunable=prunable, layouts=layouts)
        options = {"prunable": units.prunable, "sizes": units.sizes, "layers": units.layers}
        # `select` raises for concrete scores that are not finite; here `info` reports them.
        finite = jax.tree.map(
            lambda s: jnp.where(jnp.isfinite(s), s, jnp.zeros_like(s)), units.scores
        )
        kept = scope.select(finite, units.mask, count, **options)
        if all(np.ndim(size) == 0 and size == 1 for size in jax.tree.leaves(units.sizes)):
            # A pattern such as n:m depends on the scores of all live weights.
            live = weights.to_units(scores, mask, prunable=prunable, layouts=layouts)
            info = scope.inspect(live.scores, live.mask, count, **options)
        else:
            info = scope.inspect(units.scores, units.mask, count, **options)
            alone = checked.inspect(scores, mask, jnp.int32(0), prunable=prunable)
            info = alone | {"nonfinite_units": info["nonfinite"], "undecided": info["undecided"]}
        new = granularity.to_leaves(kept, mask, prunable=prunable, layouts=layouts)
        return checked.unless_bad(info, new, mask), info

    parts = scope.name, granularity.name
    return Pruner(name_of(criterion), compiled(with_info, count=True), parts=parts)


_shared_pruner = shared(_pruner)


def check_parts(criterion: Any, scope: Any, granularity: Any) -> None:
    """Checks the types of a pruner's parts, such as a builder that was not called.

    Raises:
      TypeError: a part has the wrong type; the message names the arguments that a criterion lacks.

    >>> check_parts(lambda params, mask, **_: params, "globally", weights)
    Traceback (most recent call last):
    TypeError: `scope` is 'globally'; it must be a Scope, such as `lth.globally()`.
    """
    _check_criterion(criterion)
    if not isinstance(scope, Scope):
        raise TypeError(
            f"`scope` is {_described(scope)}; it must be a Scope, such as `lth.globally()`."
        )
    if not isinstance(granularity, Granularity):
        raise TypeError(
            f"`granularity` is {_described(granularity)}; it must be a Granularity, such as "
            "`lth.granularity.weights` or `lth.granularity.columns()`."
        )


def _check_criterion(criterion: Any) -> None:
    if not callable(criterion):
        raise TypeError(
            f"`criterion` is {shown(criterion)}; it must be a criterion, such as `lth.magnitude()`."
        )
    try:
        signature = inspect.signature(criterion)
    except ValueError:  # of some functions written in C
        return
    try:
        signature.bind(None, None, **dict.fromkeys(INPUTS))
    except TypeError as error:
        name = getattr(criterion, "__name__", type(criterion).__name__)
        rest = [
            "it must take (params, mask, *, key, batches, initial); add `**_` for the keywords "
            "that it does not use"
        ]
        faults = _faults(signature)
        if not {"params", "mask"} & signature.parameters.keys():
            rest.append(f"if it builds a criterion, call it: `{name}(...)`")
            rest = rest[1:] if "`params`" in faults else rest
        raise TypeError(
            f"`criterion` is {_described(criterion)}, which "
            f"{faults or f'takes other arguments ({error})'}; {'; '.join(rest)}."
        ) from error


def _faults(signature: inspect.Signature) -> str:
    """The arguments of a criterion that a function does not take, and those that it needs."""
    found = signature.parameters.values()
    places = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    words = {p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    words -= {p.name for p in places[:2]}
    kinds = {p.kind for p in found}
    lacking = () if inspect.Parameter.VAR_POSITIONAL in kinds else ("params", "mask")[len(places) :]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        lacking += tuple(name for name in INPUTS if name not in words)
    needed = [
        p.name
        for p in found
        if p.default is p.empty
        and p not in places[:2]
        and p.name not in INPUTS
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    parts = [
        f"{verb} {', '.join(f'`{name}`' for name in names)}"
        for verb, names in (("does not take", lacking), ("needs", needed))
        if names
    ]
    return " and ".join(parts)


def _described(part: Any) -> str:
    name = getattr(part, "__name__", None)
    return f"the function `{name}`" if name else shown(part)
