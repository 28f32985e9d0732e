"""Forward passes of an MLP's ticket in dense and sparse forms, for timing."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.experimental import sparse
from numpy.typing import NDArray

from lth_jax import structure as st
from lth_jax.coding.stored import Named, Stored
from lth_jax.exchange import Packed, pack_nm

Layers = Sequence[tuple[Any, Any]]
"""Kernel and bias of each layer; kernels may be BCOO matrices."""
FORMS = ("masked", "BCOO", "CSR")
"""The forms of every ticket."""
Pass = Callable[[], Any]


def passes(
    x: NDArray[np.float32], dense: Layers, ticket: Layers, forms: Sequence[str] = FORMS
) -> Mapping[str, Pass]:
    """The forward passes of a dense MLP, and of a ticket in several forms.

    Args:
      x: the inputs, float32 `(batch, …)`.
      dense: the layers of the dense network.
      ticket: those of the ticket, 0 where pruned.
      forms: forms of the ticket. `masked` is the dense program with zeros among its numbers;
        `compacted` the same without dead units; `BCOO` runs JAX's sparse matrices, `CSR` SciPy's
        on the host; `2:4` restores the kernels from packed values inside the program.

    Raises:
      ValueError: a form has other outputs than the masked network, or the ticket does not have the
        form.
    """
    x = x.reshape(len(x), -1)
    found = {"dense": dense_pass(dense, x), **{form: _PASSES[form](ticket, x) for form in forms}}
    wanted = dense_pass(ticket, x)()
    for name in forms:
        if not np.allclose(wanted, found[name](), rtol=1e-3, atol=1e-3):
            raise ValueError(f"the {name} form of a ticket has other outputs than the masked one.")
    return found


def layers(one: Stored) -> Layers:
    """Masked kernels and biases, in the order of the names."""
    return layers_of(one.params, one.mask)


def layers_of(params: Named, mask: Named) -> Layers:
    """Masked kernels and biases, in the order of the names.

    >>> named = {"a/kernel": np.ones((2, 1)), "a/bias": np.zeros(1)}
    >>> layers_of(named, {"a/kernel": np.array([[1], [0]]), "a/bias": True})[0][0].tolist()
    [[1.0], [0.0]]
    """
    kernels = sorted(name for name in params if name.endswith("kernel"))
    return [(params[k] * mask[k], params[k.removesuffix("kernel") + "bias"]) for k in kernels]


def mlp(layers: Layers, x: Any) -> Any:
    """The forward pass of an MLP with ReLU."""
    *hidden, (kernel, bias) = layers
    for inner, shift in hidden:
        x = jax.nn.relu(x @ inner + shift)
    return x @ kernel + bias


_compiled = jax.jit(mlp)


def dense_pass(layers: Layers, x: NDArray[np.float32]) -> Pass:
    """The compiled forward pass on arrays that lie on the device."""
    return functools.partial(_compiled, *jax.device_put((layers, x)))


def compacted(layers: Layers, x: NDArray[np.float32]) -> Layers:
    """The layers without dead units: those with no kept input or no kept output."""
    tree = [tuple(layer) for layer in layers]
    found = st.find_groups(mlp, tree, x[:1])
    mask = [(kernel != 0, np.ones(bias.shape, bool)) for kernel, bias in tree]
    live = st.live_units(found, mask)
    units = {n: f if f.any() else np.arange(len(f)) == 0 for n, f in live.items()}
    taken: Layers = st.take(found, tree, units)
    return taken


def _compacted_pass(layers: Layers, x: NDArray[np.float32]) -> Pass:
    return dense_pass(compacted(layers, x), x)


def _bcoo_pass(layers: Layers, x: NDArray[np.float32]) -> Pass:
    bcoo_of: Any = sparse.BCOO.fromdense
    return dense_pass([(bcoo_of(kernel), bias) for kernel, bias in layers], x)


def _csr_pass(layers: Layers, x: NDArray[np.float32]) -> Pass:
    csr = [(scipy.sparse.csr_array(kernel.T), bias) for kernel, bias in layers]
    return lambda: _by_csr(csr, x)


def _by_csr(layers: Layers, x: Any) -> Any:
    *hidden, (kernel, bias) = layers
    x = x.T
    for inner, shift in hidden:
        x = np.maximum(inner @ x + shift[:, None], 0)
    return np.asarray((kernel @ x + bias[:, None]).T)


def _packed_pass(layers: Layers, x: NDArray[np.float32]) -> Pass:
    """Kernels that are not whole are packed 2:4 (`exchange.pack_nm`)."""

    def pack(kernel: NDArray[np.float32]) -> Any:
        packed = kernel if kernel.all() else pack_nm(kernel, kernel != 0, 2, 4)
        return packed[:2] if isinstance(packed, Packed) else packed

    return functools.partial(_packed, *jax.device_put(([(pack(k), b) for k, b in layers], x)))


@jax.jit
def _packed(layers: Layers, x: Any) -> Any:
    def kernel(found: Any) -> Any:
        if not isinstance(found, tuple):
            return found
        values, indices = (part[0, 0] for part in found)  # (groups, 2, outputs)
        here = indices[:, :, None] == jnp.arange(4, dtype=jnp.uint8)[:, None]
        whole = jnp.sum(jnp.where(here, values[:, :, None], 0), axis=1)
        return whole.reshape(-1, whole.shape[-1])

    return mlp([(kernel(found), bias) for found, bias in layers], x)


_PASSES: dict[str, Callable[[Layers, NDArray[np.float32]], Pass]] = {
    "masked": dense_pass,
    "compacted": _compacted_pass,
    "BCOO": _bcoo_pass,
    "CSR": _csr_pass,
    "2:4": _packed_pass,
}
