"""The exact spectrum of a trained ticket: every eigenvalue on its support, none estimated.

For `python -m experiments.benchmarks.landscape --full`, which takes a LeNet-300-100 of 3.6 % of its
weights on 5,000 images of MNIST.
"""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lth_jax as lth
from experiments.benchmarks.report import Row, row
from lth_jax import data, models
from lth_jax.landscape import dense_hessian
from lth_jax.types import Batch, Key, Mask, Params

RATE = 1.2e-3  # Adam's, of Frankle & Carbin (2019) for this network
BATCH = 60
BLOCK = 1000  # images computed together


class Network:
    """A network without state, and its mean cross-entropy."""

    def __init__(self, module: Any):
        self._model = models.from_linen(module)

    def init(self, key: Key, x: Any) -> Params:
        """Parameters before any training."""
        return jax.jit(self._model.init)(key, x)[0]

    def loss(self, params: Params, batch: Batch) -> jax.Array:
        """The mean over the batch."""
        logits, _ = self._model.apply(params, {}, batch.x, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()

    @partial(jax.jit, static_argnums=(0, 5))
    def train(self, params: Params, mask: Mask, images: Batch, key: Key, steps: int) -> Params:
        """So many steps of Adam on the weights of the mask."""
        optimizer = lth.masked(optax.adam(RATE))
        size = images.y.shape[0]
        rows = data.indices(key, 0, steps=steps, batch_size=BATCH, size=size)

        def step(carry: Any, row: jax.Array) -> tuple[Any, None]:
            params, state = carry
            batch = Batch(images.x[row], images.y[row])
            gradient = jax.grad(self.loss)(params, batch)
            updates, state = optimizer.update(gradient, state, params, mask=mask)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), rows)
        return params


def ticket(
    network: Network, images: Batch, key: Key, *, density: float, rounds: int, steps: int
) -> tuple[Params, Mask]:
    """A retrained ticket and its mask: rounds of training, global magnitude pruning, rewinding."""
    initial = network.init(key, images.x[:1])
    prunable, mask = lth.prunable_leaves(initial), lth.ones_like(initial)
    pruner = lth.prune(lth.magnitude(), lth.globally())
    schedule = lth.schedules.exponential(rounds, density)
    params = network.train(initial, mask, images, key, steps)
    for level in range(1, rounds + 1):
        count = lth.globally().counts(params, schedule(level), prunable=prunable)
        mask = pruner(params, mask, count, prunable=prunable)
        params = network.train(lth.apply_mask(mask, initial), mask, images, key, steps)
    return params, mask


def exact_row(
    module: Any, images: Batch, *, examples: int, density: float, rounds: int, steps: int
) -> Row:
    """Trains a ticket, takes its whole spectrum on a seeded subset, and tells the seconds."""
    network = Network(module)
    params, mask = ticket(
        network, images, jax.random.key(0), density=density, rounds=rounds, steps=steps
    )
    chosen = np.random.default_rng(0).permutation(len(images.y))[:examples]
    batches = [
        Batch(images.x[rows], images.y[rows])
        for rows in np.split(chosen, range(BLOCK, len(chosen), BLOCK))
    ]
    began = time.perf_counter()
    matrix = dense_hessian(network.loss, params, batches, mask=mask)
    written = time.perf_counter()
    values = np.linalg.eigvalsh(matrix)
    ended = time.perf_counter()
    print(f"matrix {written - began:.1f} s, eigvalsh {ended - written:.1f} s")
    print(f"eigenvalues from {values[0]:.4g} to {values[-1]:.4g}, {(values < 0).sum()} negative")
    return row(
        f"exact spectrum of a retrained ticket, {len(matrix)} weights, {len(chosen)} images, s",
        ended - began,
        largest=values[:-17:-1].tolist(),
        smallest=values[:16].tolist(),
    )


def on_mnist(manual_dir: str, data_dir: str) -> Row:
    """The row of LeNet-300-100 at 3.6 %: three rounds of 400 steps, 5,000 images."""
    mnist = data.load("mnist", data_dir=data_dir, manual_dir=manual_dir, seed=0, validation=5000)
    images = jax.tree.map(jnp.asarray, mnist.train)
    return exact_row(models.MLP(), images, examples=5000, density=0.036, rounds=3, steps=400)
