"""Lowers what runs on the CPU for accelerators as well: no hardware is needed for that.

    with for_accelerators() as names: ...

replaces `jax.jit`. Each program that is made within it is lowered for CUDA and TPU once, at its
first call with arrays; a primitive without a rule for one of them raises there. `names` collects
the names of the programs. Modules that call `jax.jit` when they are imported must be imported
within it. `pytest --accelerators` does so for all tests that it runs.
"""

import contextlib

import jax

PLATFORMS = ("cuda", "tpu")
_JIT = jax.jit


class Lowered:
    """A jitted function that is lowered for `PLATFORMS` before its first call."""

    def __init__(self, jitted, name, names):
        self._jitted, self._name, self._names = jitted, name, names
        self._is_lowered = False
        self.__wrapped__ = getattr(jitted, "__wrapped__", jitted)
        self.__name__ = self.__qualname__ = name
        self.__doc__ = jitted.__doc__

    def __call__(self, *args, **kwargs):
        self._lower(args, kwargs)
        return self._jitted(*args, **kwargs)

    def __get__(self, instance, owner=None):
        return self if instance is None else self.__class__._bound(self, instance)

    def _bound(self, instance):
        return lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._jitted, name)

    def trace(self, *args, **kwargs):
        self._lower(args, kwargs)
        return self._jitted.trace(*args, **kwargs)

    def lower(self, *args, **kwargs):
        self._lower(args, kwargs)
        return self._jitted.lower(*args, **kwargs)

    def _lower(self, args, kwargs):
        leaves = jax.tree.leaves((args, kwargs))
        if self._is_lowered or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return
        self._is_lowered = True
        traced = self._jitted.trace(*args, **kwargs)
        try:
            traced.lower(lowering_platforms=PLATFORMS)
        except (NotImplementedError, TypeError):
            # Calls to Python lower on their own platform only (JAX 0.10.2); some tests make them.
            if not any(name in str(traced.jaxpr) for name in ("callback", "debug_print")):
                raise
            return
        self._names.append(self._name)


def install(names):
    """Replaces `jax.jit` from here on; programs are named in the list `names`."""

    def jit(fun=None, **options):
        if fun is None:
            return lambda fun: jit(fun, **options)
        options.pop("compiler_options", None)  # those of the CPU, and of no nested program
        module = getattr(fun, "__module__", None) or ""
        name = f"{module}.{getattr(fun, '__qualname__', type(fun).__name__)}"
        return Lowered(_JIT(fun, **options), name, names)

    jax.jit = jit


@contextlib.contextmanager
def for_accelerators():
    """Within it, programs are lowered for accelerators as well; gives the list of their names."""
    names = []
    install(names)
    try:
        yield names
    finally:
        jax.jit = _JIT
