"""Modules of compact size from a network and its smaller parameters, and their checks.

A module uses its own widths: LayerNorm divides by the new width, and attention scales with the new
head size. The function from `compact` keeps the old constants, so it is the reference for rebuilt
modules.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen, nnx

from lth_jax import trees
from lth_jax.structure.equinox_modules import eqx, is_equinox, refit_equinox
from lth_jax.structure.linen_modules import resized
from lth_jax.structure.nnx_modules import refit

T = TypeVar("T")


def _plain(module: Any, *args: Any) -> Any:
    return module(*args)


def rebuild(
    module: T,
    params: Any,
    reference: Callable[..., Any],
    *args: Any,
    call: Callable[..., Any] = _plain,
    tolerance: float = 1e-5,
) -> T:
    """A module of compact size that computes what the compact function computes.

    NNX and Equinox modules become copies that hold `params`, with fitting sizes as attributes. Of a
    Linen module, integers among its fields (also in tuples and in modules that are fields) are
    replaced until `init` gives the shapes of `params`; it is then applied to `params`. The outputs
    are always compared with those of `reference`. Modules with a hard-coded size, or whose formula
    contains a width that changed, cannot be rebuilt: use `params` and the function.

    Args:
      module: the analysed module: of Linen (unbound), NNX or Equinox.
      params: its smaller parameters, in the structure of the module: variables of Linen, a state of
        `nnx.split` (pure or not), arrays of `eqx.filter`.
      reference: `(*args) -> out`, such as `functools.partial(apply, small)`.
      *args: example inputs.
      call: `(module, *args) -> out`, for modules that need a flag or `vmap`.
      tolerance: as in `check_same`.

    Raises:
      TypeError: `module` is of another kind.
      ValueError: no sizes give a leaf its shape, a part of unknown kind holds a leaf of changed
        shape, or the outputs differ.

    >>> from lth_jax.structure import compact, find_groups
    >>> model, x = linen.Sequential([linen.Dense(6), linen.tanh, linen.Dense(2)]), jnp.ones((1, 4))
    >>> variables = model.init(jax.random.key(0), x)
    >>> found = find_groups(model.apply, variables, x)
    >>> units = {"params/layers_0/bias:0": jnp.arange(6) < 3}
    >>> small, apply = compact(found, variables, units)
    >>> rebuild(model, small, functools.partial(apply, small), x).layers[0].features
    3
    """
    problem: ValueError | None = None
    for new, run in _candidates(module, params, args, call):
        try:
            out = run(*args)
        except Exception as error:  # whatever a user's module raises
            problem = ValueError(f"`module` cannot be called with smaller parameters: {error}")
            continue
        try:
            check_same(reference, lambda *_, out=out: out, *args, tolerance=tolerance)
        except ValueError as error:
            problem = error
            continue
        return new
    assert problem is not None
    raise problem


def _candidates(
    module: Any, params: Any, args: Any, call: Callable[..., Any]
) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Modules of compact size and their functions of `args`; at least one."""
    if isinstance(module, linen.Module):
        for new in resized(module, params, args, call):
            yield new, functools.partial(jax.jit(linen.apply(call, new)), params)
    elif isinstance(module, nnx.Module):
        refitted = refit(module, params)
        yield refitted, functools.partial(nnx.jit(call), nnx.clone(refitted))  # calls may change it
    elif is_equinox(module):
        changed = refit_equinox(module, params)
        yield changed, functools.partial(eqx.filter_jit(call), changed)
    else:
        raise TypeError(
            "`module` must be a module of Flax (Linen, NNX) or Equinox, got "
            f"{type(module).__name__}; use the compact function."
        )


def check_fits(init: Callable[..., Any], params: Any, *args: Any) -> None:
    """Raises unless a module's parameters have the shapes of the smaller ones.

    For Linen modules rebuilt with new widths. Nothing is computed.

    Args:
      init: `module.init`, or another function `(*args) -> variables`.
      params: the smaller parameters, in the structure of the result of `init`.
      *args: arguments of `init`: a key and example inputs.

    Raises:
      ValueError: a leaf has another shape; the message names the first, with both shapes.

    >>> from flax import linen as nn
    >>> small = {"params": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}}
    >>> check_fits(nn.Dense(2).init, small, jax.random.key(0), jnp.ones((1, 4)))
    """
    wanted = jax.eval_shape(init, *args)
    trees.check_same_structure("params", params, "the rebuilt module's parameters", wanted)


def check_same(
    reference: Callable[..., Any], rebuilt: Callable[..., Any], *args: Any, tolerance: float = 1e-5
) -> float:
    """The largest difference between two functions' results; raises above a tolerance.

    Args:
      reference: `(*args) -> out`, the compact function or the masked network.
      rebuilt: `(*args) -> out`, the module of compact size.
      *args: example inputs.
      tolerance: allowed difference, relative to the largest entry of each result.

    Returns:
      The largest relative difference.

    Raises:
      ValueError: a result differs by more, because the module's formula uses a width.

    >>> check_same(lambda x: 2 * x, lambda x: x + x, jnp.ones(3))
    0.0
    """
    wanted, found = reference(*args), rebuilt(*args)
    trees.check_same_structure("rebuilt", found, "reference", wanted)
    worst = 0.0
    for name, a, b in zip(
        trees.names(wanted), jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True
    ):
        gap = float(jnp.max(jnp.abs(a - b)) / jnp.maximum(jnp.max(jnp.abs(a)), 1e-30))
        if not gap <= tolerance:
            raise ValueError(
                f"`rebuilt` differs from `reference` at result '{name}' by {gap:.1e} of its "
                f"largest entry (allowed: {tolerance:.0e}): its formula uses a width that changed "
                "(a norm's, or √head_dim), so only the compact function computes the same."
            )
        worst = max(worst, gap)
    return worst
