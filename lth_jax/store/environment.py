"""Versions, devices and flags with which a result was computed, without names of machines."""

import functools
import importlib.metadata
import platform
from typing import Any

import jax

from lth_jax.store.numerics import numerics

_PACKAGES = ("lth-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment() -> dict[str, Any]:
    """Versions of Python and the packages that make results, devices, and numeric flags.

    Returns:
      `{"python", "versions": {package: version or None}, "device": {"platform", "kind", "count"},
      "numerics"}`; for the last see `numerics`.

    >>> sorted(environment())
    ['device', 'numerics', 'python', 'versions']
    """
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "numerics": numerics(),
    }


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
