"""Cost of an exact mask, and of masking in a training step.

Global magnitude at density 0.2 on a tree of 25M float32 weights is compared with the usual ways,
and a step of masked Adam on LeNet-300-100 with plain Adam. Values are seconds; a ratio is the
median over alternated pairs of (ours / alternative).

    python -m experiments.benchmarks.prune [--quick]
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lth_jax as lth
from experiments.benchmarks.report import main
from lth_jax.analysis.ratios import Row, beside_each

DENSITY = 0.2


def network(weights: int) -> dict[str, jax.Array]:
    """Leaves of unequal sizes, as in a convolutional network."""
    shapes = {"a": (3, 3, 512, 512), "b": (4096, 1000), "c": (1, 1, 1024, 2048), "d": (2048, 64)}
    left = weights - sum(int(np.prod(shape)) for shape in shapes.values())
    shapes["e"] = (max(left, 1000) // 1000, 1000)
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}


def flat_magnitudes(params: dict[str, jax.Array]) -> jax.Array:
    return jnp.concatenate([jnp.abs(leaf).ravel() for leaf in params.values()])


def ways_to_mask(params: dict[str, jax.Array], count: int) -> dict[str, Callable[[], Any]]:
    """The alternatives; none keeps exactly `count` under ties and masks in one program."""
    size = sum(leaf.size for leaf in params.values())

    @jax.jit
    def by_sort(params):
        threshold = jnp.sort(flat_magnitudes(params))[size - count]
        return jax.tree.map(lambda leaf: jnp.abs(leaf) >= threshold, params)

    @jax.jit
    def by_top_k(params):
        threshold = jax.lax.top_k(flat_magnitudes(params), count)[0][-1]
        return jax.tree.map(lambda leaf: jnp.abs(leaf) >= threshold, params)

    @jax.jit
    def as_jaxpruner(params):
        """All scores sorted by `argsort`, the lowest set to 0 by a scatter, then split."""
        order = jnp.argsort(flat_magnitudes(params))
        mask = jnp.ones(size, jnp.uint8).at[order[: size - count]].set(0)
        ends = np.cumsum([leaf.size for leaf in params.values()])[:-1]
        parts = jnp.split(mask, ends)
        return [p.reshape(leaf.shape) for p, leaf in zip(parts, params.values(), strict=True)]

    def by_numpy():
        flat = np.concatenate([np.abs(np.asarray(leaf)).ravel() for leaf in params.values()])
        threshold = np.partition(flat, size - count)[size - count]
        return [np.abs(np.asarray(leaf)) >= threshold for leaf in params.values()]

    ways = {
        "jnp.sort threshold": lambda: by_sort(params),
        "jax.lax.top_k threshold": lambda: by_top_k(params),
        "jaxpruner's way (argsort and scatter)": lambda: as_jaxpruner(params),
        "numpy.partition on the host": by_numpy,
    }
    try:
        import torch
    except ImportError:
        print("torch is not installed: no torch.kthvalue column", flush=True)
        return ways
    flat = torch.from_numpy(np.array(flat_magnitudes(params)))
    ways["torch.kthvalue, threshold alone"] = lambda: torch.kthvalue(flat, size - count + 1).values
    return ways


def mask_cases(weights: int, pairs: int) -> list[Row]:
    params = network(weights)
    prunable, scope = lth.prunable_leaves(params), lth.globally()
    count = scope.counts(params, DENSITY, prunable=prunable)
    pruner = lth.prune(lth.magnitude(), scope)
    ours = jax.jit(lambda params, mask: pruner(params, mask, count, prunable=prunable))
    ones = lth.ones_like(params)
    tied = jax.tree.map(lambda leaf: jnp.round(leaf, 1), params)
    for case in (params, tied):
        assert lth.count_kept(ours(case, ones), prunable) == count
    ways = ways_to_mask(params, int(count))
    goals = {"jnp.sort threshold": 1 / 15, "torch.kthvalue, threshold alone": 1.5}
    case = f"exact global mask, {weights / 1e6:g}M weights"
    return beside_each(case, lambda: ours(params, ones), ways, pairs, goals)


def lenet_loss(params: dict[str, list[jax.Array]], x: jax.Array, y: jax.Array) -> jax.Array:
    *hidden, (last, bias) = params["layers"]
    for kernel, b in hidden:
        x = jax.nn.relu(x @ kernel + b)
    return optax.softmax_cross_entropy_with_integer_labels(x @ last + bias, y).mean()


def adam_cases(steps: int, pairs: int) -> list[Row]:
    """Whole training steps of LeNet-300-100, batch 60, in one scan of `steps` steps."""
    widths = (784, 300, 100, 10)
    keys = jax.random.split(jax.random.key(0), 3)
    glorot = jax.nn.initializers.glorot_normal()
    layers = [
        [glorot(k, shape), jnp.zeros(shape[1])]
        for k, shape in zip(keys, itertools.pairwise(widths), strict=True)
    ]
    params: dict = {"layers": layers}
    xs = jax.random.normal(jax.random.key(1), (steps, 60, 784))
    ys = jax.random.randint(jax.random.key(2), (steps, 60), 0, 10)
    prunable, scope = lth.prunable_leaves(params), lth.globally()
    pruner = lth.prune(lth.magnitude(), scope)
    count = scope.counts(params, DENSITY, prunable=prunable)
    mask = jax.jit(lambda p: pruner(p, lth.ones_like(p), count, prunable=prunable))(params)
    counts = jnp.stack([count, count // 2])

    def training(tx: optax.GradientTransformation, **extra: Any) -> Callable[[], Any]:
        tx = optax.with_extra_args_support(tx)

        @jax.jit
        def train(params, extra):
            def step(carry, batch):
                params, state = carry
                grads = jax.grad(lenet_loss)(params, *batch)
                updates, state = tx.update(grads, state, params, **extra)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, (params, tx.init(params)), (xs, ys))[0][0]

        return lambda: train(params, extra)

    adam = optax.adam(1.2e-3)
    plain = training(adam)
    never = 10 * steps  # no event within the measured steps
    owners = {
        "masked Adam": training(lth.masked(adam), mask=mask),
        "static sparse": training(lth.static_sparse(adam, lambda p: mask)),
        "gradual, between events": training(
            lth.gradual(adam, pruner, counts, lth.Events(begin=never), prunable=prunable)
        ),
        "RigL, between events": training(
            lth.rigl(adam, lambda p: mask, lth.Events(begin=never), prunable=prunable)
        ),
    }
    return [
        row
        for name, train in owners.items()
        for row in beside_each(
            f"{name}, {steps} steps of LeNet-300-100",
            train,
            {"plain Adam": plain},
            pairs,
            {"plain Adam": 1.15},
        )
    ]


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Masks, then training steps."""
    quick = options.quick
    yield from mask_cases(weights=4_000_000 if quick else 25_000_000, pairs=3 if quick else 5)
    yield from adam_cases(steps=100 if quick else 300, pairs=3 if quick else 9)


if __name__ == "__main__":
    main("prune", __doc__, measure)
