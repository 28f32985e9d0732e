"""Abstract values of arrays on meshes, and shardings of reduced arrays."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def abstract(aval: Any, shape: Sequence[int] | None = None) -> Any:
    """The abstract value of an array, possibly with another shape, for `jax.make_jaxpr`.

    The sharding is kept if the program depends on it: on explicit meshes and in `shard_map`.

    >>> abstract(jax.typeof(np.zeros((2, 3), "float32")), (2, 5))
    ShapeDtypeStruct(shape=(2, 5), dtype=float32)
    """
    shape = tuple(aval.shape if shape is None else shape)
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    if mesh is None or not (mesh.explicit_axes or mesh.manual_axes):
        return jax.ShapeDtypeStruct(shape, aval.dtype)
    return aval.update(shape=shape, sharding=fitted(aval.sharding, shape), weak_type=False)


def fitted(sharding: NamedSharding, shape: Sequence[int]) -> NamedSharding:
    """The sharding without mesh axes that do not divide the shape.

    >>> mesh = jax.sharding.AbstractMesh((2, 2), ("x", "y"))
    >>> tuple(fitted(NamedSharding(mesh, PartitionSpec("x", "y")), (3, 4)).spec)
    (None, 'y')
    """
    sizes = sharding.mesh.shape

    def divides(n: int, entry: Any) -> bool:
        names = entry if isinstance(entry, tuple) else (entry,)
        return n % math.prod(sizes.get(name, 1) for name in names) == 0

    entries = list(itertools.starmap(divides, zip(shape, sharding.spec, strict=False)))
    if all(entries):
        return sharding
    spec = (e if whole else None for e, whole in zip(sharding.spec, entries, strict=True))
    return NamedSharding(sharding.mesh, PartitionSpec(*spec), memory_kind=sharding.memory_kind)


def explicit(x: Any) -> NamedSharding | None:
    """The sharding of an array on an explicit mesh; None for all others."""
    sharding = None if isinstance(x, np.ndarray | np.generic) else jax.typeof(x).sharding
    return sharding if sharding is not None and sharding.mesh.explicit_axes else None
