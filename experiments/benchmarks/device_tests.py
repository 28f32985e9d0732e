"""Numeric equalities of a device: its results beside float64 NumPy and the CPU."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.population import our_way
from experiments.benchmarks.tasks import RATE, StockConvNet, Task, population, task
from lth_jax import trees
from lth_jax.analysis.ratios import Row, row
from lth_jax.coding import codecs
from lth_jax.coding.quantize import dequantize, quantize
from lth_jax.landscape import hessian
from lth_jax.models import MLP, ConvNet, compute_in, from_linen
from lth_jax.population import Member, Plan, cross_entropy
from lth_jax.population.segment import batch_rows
from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.prune import prune
from lth_jax.types import Batch

Pair = tuple[Any, Any]
STEPS = 3


def error(found: Any, expected: Any) -> float:
    """The largest difference of two arrays, relative to the largest expected magnitude."""
    found, expected = (np.asarray(a, np.float64) for a in (found, expected))
    scale = max(float(np.abs(expected).max()), np.finfo(np.float64).tiny)
    return float(np.abs(found - expected).max()) / scale


def softmax(logits: np.ndarray) -> np.ndarray:
    """The probabilities of each row."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: np.ndarray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return found


def segment() -> Pair:
    """One segment of a masked MLP by Adam; two members, and the first in float64 NumPy."""
    full = compute_in(from_linen(MLP((32, 10))), "float32", full_precision=True)
    one = task("mlp", STEPS)
    one = one._replace(trainer=one.trainer._replace(model=full))
    members = population(one, 2)
    expected = adam_in_numpy(one, trees.index(members, 0))
    [(after, _)] = our_way(one, members, Plan(2)).run()
    found = trees.to_named(trees.index(after.params, 0))
    return flat([found[name] for name in expected]), flat(list(expected.values()))


def flat(leaves: Sequence[Any]) -> np.ndarray:
    """All values of some arrays."""
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def adam_in_numpy(one: Task, member: Member) -> dict[str, np.ndarray]:
    """The parameters of an MLP with one hidden layer after a segment, in float64."""
    w = {n: np.asarray(leaf, np.float64) for n, leaf in trees.to_named(member.params).items()}
    mask = {n: np.asarray(leaf) for n, leaf in trees.to_named(member.mask).items()}
    first, second = ({n: np.zeros_like(leaf) for n, leaf in w.items()} for _ in range(2))
    for step, rows in enumerate(np.asarray(batch_rows(one.trainer, member, 0)), 1):
        x = np.asarray(one.data.x, np.float64)[rows].reshape(len(rows), -1)
        h = x @ w["Dense_0/kernel"] + w["Dense_0/bias"]
        active = np.maximum(h, 0)
        out = softmax(active @ w["Dense_1/kernel"] + w["Dense_1/bias"])
        out = (out - np.eye(10)[np.asarray(one.data.y)[rows]]) / len(rows)
        back = (out @ w["Dense_1/kernel"].T) * (h > 0)
        gradients = {
            "Dense_0/kernel": x.T @ back,
            "Dense_0/bias": back.sum(0),
            "Dense_1/kernel": active.T @ out,
            "Dense_1/bias": out.sum(0),
        }
        for name, gradient in gradients.items():
            g = gradient * mask[name]
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            scale = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
            w[name] = w[name] - RATE * first[name] / (1 - 0.9**step) / scale
    return w


def pruned() -> tuple[Any, np.ndarray, np.ndarray]:
    """A kernel, its mask by global magnitude pruning to a fifth, and that of a sort in NumPy."""
    params = {"kernel": jax.random.normal(jax.random.key(0), (300, 100))}
    prunable, scope = masks.prunable_leaves(params), scopes.globally()
    count = scope.counts(params, 0.2, prunable=prunable)
    pruner = prune(criteria.magnitude(), scope)
    mask = pruner(params, masks.ones_like(params), count, prunable=prunable)["kernel"]
    sizes = np.abs(np.asarray(params["kernel"])).ravel()
    expected = np.zeros(sizes.size, bool)
    expected[np.argsort(-sizes, kind="stable")[: sizes.size // 5]] = True
    return params["kernel"], np.asarray(mask), expected.reshape(mask.shape)


def mask_code() -> Pair:
    """The mask of the device, encoded and decoded."""
    _, mask, _ = pruned()
    codec, code = codecs.encode(mask)
    return codecs.decode(codec, code, mask.shape, int(mask.sum())), mask


def integers() -> Pair:
    """Values after quantisation to 4 bits with a scale per column, and in float32 NumPy."""
    kernel, _, _ = pruned()
    x = np.asarray(kernel)
    scale = np.abs(x).max(axis=0, keepdims=True) / np.float32(7)
    return dequantize(quantize(kernel, 4, channel_axis=-1)), np.round(x / scale) * scale


def hessian_product() -> Pair:
    """A product with the Hessian of softmax regression, and `Xᵀ(diag p − ppᵀ)XV/n` in float64."""
    w, v = (jax.random.normal(key, (50, 10)) for key in jax.random.split(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (128, 50))
    batch = Batch(x, jnp.arange(128) % 10)
    operator = hessian(lambda w, b: cross_entropy(b.x @ w, b.y).mean(), w, [batch])
    weights, inputs, tangent = (np.asarray(a, np.float64) for a in (w, x, v))
    p, change = softmax(inputs @ weights), inputs @ tangent
    change = p * change - p * (p * change).sum(axis=1, keepdims=True)
    return operator(v.ravel()), (inputs.T @ change / len(inputs)).ravel()


def gradient() -> Pair:
    """A conv net's gradient, and that of Flax's layers on the CPU, both with all bits."""
    networks = ConvNet(((8,), (16,)), ()), StockConvNet((8, 16))
    ours, usual = (compute_in(from_linen(n), "float32", full_precision=True) for n in networks)
    x, y = jax.random.normal(jax.random.key(0), (16, 16, 16, 3)), jnp.arange(16) % 10
    params, state = ours.init(jax.random.key(1), x)

    def of(model: Any, given: Any) -> np.ndarray:
        def loss(params: Any, x: Any, y: Any) -> jax.Array:
            return cross_entropy(model.apply(params, state, x, train=True)[0], y).mean()

        return flat(jax.tree.leaves(jax.jit(jax.grad(loss))(*given)))

    there = jax.device_put((params, x, y), jax.devices("cpu")[0])
    return of(ours, (params, x, y)), of(usual, there)


TESTS: dict[str, tuple[Callable[[], Pair], float]] = {
    "a segment of training beside float64": (segment, 1e-4),
    "a global mask beside a sort": (lambda: pruned()[1:], 0.0),
    "a mask after its code": (mask_code, 0.0),
    "4-bit values beside NumPy": (integers, 1e-6),
    "a Hessian product beside float64": (hessian_product, 1e-5),
    "a gradient of convolutions beside the CPU": (gradient, 1e-5),
}
"""By name: `() -> (found, expected)`, and the largest relative error."""


def rows(quick: bool) -> Iterator[Row]:
    """The largest relative error of each test."""
    del quick
    for name, (test, goal) in TESTS.items():
        found = error(*test())
        yield row(f"largest relative error: {name}", found, goal=goal, judged=found)
