"""Functions that are compiled when called outside a trace, and builders that share results.

Executed operation by operation, a selection compiles dozens of small programs and traces its loops
at each call. `compiled` runs it as one program, which `jax.jit` caches.
"""

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np
from jax.extend.core import get_opaque_trace_state

P = ParamSpec("P")
T = TypeVar("T")

STATIC = frozenset(("prunable", "layouts", "sizes", "layers", "scope", "height"))
"""The names of the arguments that are part of a program."""

_OUTSIDE = get_opaque_trace_state(convention="lth_jax")


class _Static(NamedTuple):
    """Static arguments by value. Types belong to the key, since `1 == True == 1.0`."""

    structure: Any
    leaves: tuple[Any, ...]
    types: tuple[type, ...]

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> "_Static":
        leaves, structure = jax.tree.flatten(arguments)
        return cls(structure, tuple(leaves), tuple(map(type, leaves)))


def compiled(f: Callable[P, T], *, count: bool = False) -> Callable[P, T]:
    """`f` as one compiled program for each structure, shape, dtype and static argument.

    `f` runs uncompiled inside a trace, for arguments that are not arrays, and after an error of the
    compiled call, so that the error message shows concrete values.

    As in `jax.jit`, what `f` closes over is read when it is traced.

    Args:
      f: pure function of pytrees; arguments named in `STATIC` are static and hashable.
      count: whether `f` checks the concrete values of an argument `count`. The allowed counts are
        an interval from 0, so only a count above all earlier ones is checked.

    >>> f = compiled(lambda x, prunable: x + 1 if prunable else x)
    >>> f(np.float32(1), True).item(), f(np.float32(1), prunable=False).item()
    (2.0, 1.0)
    """
    names = tuple(inspect.signature(f).parameters)
    passed: dict[Any, list[Any]] = {}

    def program(static: _Static, arrays: dict[str, Any]) -> T:
        return f(**arrays, **jax.tree.unflatten(static.structure, static.leaves))  # type: ignore[call-arg]

    program.__name__ = program.__qualname__ = getattr(f, "__name__", type(f).__name__)
    jitted = jax.jit(program, static_argnums=0)

    def check_count(static: _Static, arrays: dict[str, Any], given: Any) -> None:
        leaves, structure = jax.tree.flatten(arrays)
        key = static, structure, tuple(leaf.shape for leaf in leaves)
        counts, most = jax.tree.leaves(arrays["count"]), passed.get(key)
        if most and all(np.all((k >= 0) & (k <= m)) for k, m in zip(counts, most, strict=True)):
            return
        rest = {name: value for name, value in arrays.items() if name != "count"}
        jax.eval_shape(lambda rest: program(static, rest | {"count": given}), rest)
        passed[key] = [np.maximum(k, m) for k, m in zip(counts, most or counts, strict=True)]

    @functools.wraps(f)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if get_opaque_trace_state(convention="lth_jax") != _OUTSIDE:
            return f(*args, **kwargs)
        named = dict(zip(names, args, strict=False)) | kwargs
        arrays = {name: value for name, value in named.items() if name not in STATIC}
        if count:
            arrays["count"] = jax.tree.map(_as_array, arrays.get("count"))
        if len(args) > len(names) or not all(map(_is_array, jax.tree.leaves(arrays))):
            return f(*args, **kwargs)
        # After an error, `f` below raises it with concrete values, or succeeds if it reads values.
        with contextlib.suppress(Exception):
            static = _Static.of({name: named[name] for name in named.keys() & STATIC})
            if count:
                check_count(static, arrays, named["count"])
            result: T = jitted(static, arrays)
            return result
        return f(*args, **kwargs)

    return call


def shared(builder: Callable[P, T]) -> Callable[P, T]:
    """A builder that returns one object for equal, hashable arguments.

    A pruner that is built again from equal parts reuses its compiled programs. The cache keeps
    results and arguments in memory, so they must be small.

    >>> build = shared(lambda rate: lambda w: rate * w)
    >>> build(0.5) is build(0.5), build(1) is build(1.0)
    (True, False)
    """
    kept = functools.lru_cache(maxsize=64, typed=True)(builder)

    @functools.wraps(builder)
    def build(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            hash((args, tuple(kwargs.values())))
        except TypeError:
            return builder(*args, **kwargs)
        made = kept(*args, **kwargs)  # type: ignore[arg-type]
        with contextlib.suppress(TypeError):  # tuples have no weak references
            _SHARED.add(made)
        return made

    return build


_SHARED: weakref.WeakSet[Any] = weakref.WeakSet()


def is_shared(thing: Any) -> bool:
    """Whether a `shared` builder made this object; others may close over data and are not cached.

    >>> is_shared(shared(lambda rate: lambda w: rate * w)(0.5)), is_shared(lambda params: params)
    (True, False)
    """
    return thing in _SHARED


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and not isinstance(
        leaf, jax.core.Tracer
    )


def _as_array(number: Any) -> Any:
    return np.asarray(number) if isinstance(number, int) else number
