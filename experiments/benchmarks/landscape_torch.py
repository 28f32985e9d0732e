"""Power iteration and Lanczos in PyTorch, on the same network."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lth_jax.types import Batch

POWER, POWER_BOUND = "power iteration in PyTorch", "power iteration to its bound"
LANCZOS = "Lanczos in PyTorch"


def ways(params: Any, batch: Batch, *, steps: int, tolerance: float) -> dict[str, Callable]:
    """`() -> λmax` by power iteration, by its value and by its residual; `() -> T` by Lanczos.

    The gradient's graph is built once, before timing; every run has a new start vector. Empty if
    PyTorch is not installed.

    Args:
      params: parameters of an MLP or conv net whose layers are ordered by name.
      batch: the examples.
      steps: of Lanczos.
      tolerance: of power iteration, relative to the value.
    """
    try:
        import torch
    except ImportError:
        print("torch is not installed: no rows for it", flush=True)
        return {}
    leaves, loss = _twin(params, batch, torch)
    gradients = torch.autograd.grad(loss, leaves, create_graph=True)
    size, seeds = sum(leaf.numel() for leaf in leaves), itertools.count()
    flat = torch.cat([g.reshape(-1) for g in gradients])

    def product(v: Any) -> Any:
        found = torch.autograd.grad(flat, leaves, grad_outputs=v, retain_graph=True)
        return torch.cat([part.reshape(-1) for part in found])

    def start() -> Any:
        torch.manual_seed(next(seeds))
        v = torch.randn(size)
        return v / v.norm()

    def power_iteration(with_bound: bool) -> float:
        v, before = start(), 0.0
        for _ in range(200):
            w = product(v)
            value = float(v @ w)
            left = float((w - value * v).norm()) if with_bound else value - before
            v, before = w / w.norm(), value
            if abs(left) <= tolerance * abs(value):
                break
        return value

    def lanczos_iteration() -> np.ndarray:
        basis, matrix = torch.zeros(steps, size), np.zeros((steps, steps))
        q = start()
        for i in range(steps):
            basis[i] = q
            w = product(q)
            matrix[i, i] = float(q @ w)
            for _ in range(2):
                w = w - (basis[: i + 1] @ w) @ basis[: i + 1]
            length = w.norm()
            if i + 1 < steps:
                matrix[i, i + 1] = matrix[i + 1, i] = float(length)
            q = w / length
        return matrix

    return {
        POWER: partial(power_iteration, False),
        POWER_BOUND: partial(power_iteration, True),
        LANCZOS: lanczos_iteration,
    }


def _twin(params: Any, batch: Batch, torch: Any) -> tuple[list[Any], Any]:
    """The same parameters and loss in PyTorch."""
    from torch.nn import functional

    leaves = []
    for name in sorted(params):
        kernel = np.array(params[name]["kernel"])
        order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        leaves += [
            torch.tensor(kernel.transpose(order).copy()),
            torch.tensor(np.array(params[name]["bias"])),
        ]
    for leaf in leaves:
        leaf.requires_grad_(True)
    x, y = torch.tensor(np.array(batch.x)), torch.tensor(np.array(batch.y))
    h = x.permute(0, 3, 1, 2).contiguous()
    layers = list(zip(leaves[::2], leaves[1::2], strict=True))
    for kernel, bias in layers[:-1]:
        if kernel.ndim == 4:
            h = functional.max_pool2d(
                functional.relu(functional.conv2d(h, kernel, bias, padding=1)), 2
            )
        else:
            h = functional.relu(functional.linear(h.flatten(1), kernel, bias))
    if h.ndim == 4:  # the last kernel reads channels last, as Flax flattens
        h = h.permute(0, 2, 3, 1)
    logits = functional.linear(h.flatten(1), *layers[-1])
    return leaves, functional.cross_entropy(logits, y.long())
