"""Forward passes of an MLP's ticket as dense, masked, BCOO and CSR matrices, for timing."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import scipy
from jax.experimental import sparse
from numpy.typing import NDArray

from lth_jax.coding.stored import Stored

Layers = Sequence[tuple[Any, Any]]
"""Kernel and bias of each layer; kernels may be BCOO matrices."""
FORMS = ("masked", "BCOO", "CSR")


def passes(
    x: NDArray[np.float32], dense: Stored, ticket: Stored
) -> Mapping[str, Callable[[], Any]]:
    """The forward passes of a dense MLP, and of a ticket in three forms.

    `masked` is the dense program with zeros among its numbers. `BCOO` runs JAX's sparse matrices,
    and `CSR` SciPy's on the host.

    Args:
      x: the inputs, float32 `(batch, …)`.
      dense: the dense network; its parameters are kernels and biases.
      ticket: the ticket.

    Raises:
      ValueError: the forms of the ticket have other outputs.
    """
    x = x.reshape(len(x), -1)
    whole, pruned = layers(dense), layers(ticket)
    bcoo_of: Any = sparse.BCOO.fromdense
    bcoo = [(bcoo_of(kernel), bias) for kernel, bias in pruned]
    csr = [(scipy.sparse.csr_array(kernel.T), bias) for kernel, bias in pruned]
    found: dict[str, Callable[[], Any]] = {
        "dense": dense_pass(whole, x),
        "masked": dense_pass(pruned, x),
        "BCOO": dense_pass(bcoo, x),
        "CSR": lambda: _by_csr(csr, x),
    }
    for name in ("BCOO", "CSR"):
        if not np.allclose(found["masked"](), found[name](), rtol=1e-3, atol=1e-3):
            raise ValueError(f"the {name} form of a ticket has other outputs than the masked one.")
    return found


def layers(one: Stored) -> Layers:
    """Masked kernels and biases, in the order of the names."""
    kernels = sorted(name for name in one.params if name.endswith("kernel"))
    return [
        (one.params[k] * one.mask[k], one.params[k.removesuffix("kernel") + "bias"])
        for k in kernels
    ]


def mlp(layers: Layers, x: Any) -> Any:
    """The forward pass of an MLP with ReLU."""
    *hidden, (kernel, bias) = layers
    for inner, shift in hidden:
        x = jax.nn.relu(x @ inner + shift)
    return x @ kernel + bias


_compiled = jax.jit(mlp)


def dense_pass(layers: Layers, x: NDArray[np.float32]) -> Callable[[], Any]:
    """The compiled forward pass on arrays that lie on the device."""
    return functools.partial(_compiled, *jax.device_put((layers, x)))


def _by_csr(layers: Layers, x: Any) -> Any:
    *hidden, (kernel, bias) = layers
    x = x.T
    for inner, shift in hidden:
        x = np.maximum(inner @ x + shift[:, None], 0)
    return np.asarray((kernel @ x + bias[:, None]).T)
