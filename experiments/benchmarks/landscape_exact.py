"""The exact spectrum of a trained ticket: all eigenvalues on its support.

For `python -m experiments.benchmarks.landscape --full`, which uses a LeNet-300-100 with 3.6 % of
its weights on 5,000 images of MNIST.
"""

import time
from typing import Any

import jax
import numpy as np
import optax

from lth_jax import data, lottery, models, trees
from lth_jax.analysis.ratios import Row, row
from lth_jax.landscape import dense_hessian
from lth_jax.population import Plan
from lth_jax.types import Batch, Params

RATE = 1.2e-3  # learning rate of Frankle & Carbin (2019) for this network
BATCH = 60
BLOCK = 1000  # images per batch


def ticket(
    module: Any, images: Any, *, density: float, rounds: int, steps: int
) -> tuple[lottery.Task, lottery.StoredTicket]:
    """A retrained ticket: rounds of training, global magnitude pruning, rewinding."""
    optimizer = optax.adam(RATE)
    task = lottery.Task(module, images, optimizer=optimizer, batch_size=BATCH, steps=steps)
    spec = lottery.imp(rounds, 1 - density ** (1 / rounds))
    result = lottery.run(task, spec, replicates=1, plan=Plan(1), progress=False)
    return task, result.ticket(rounds)


def mean_loss(task: lottery.Task) -> Any:
    """`(params, batch) -> mean loss`, for a network without state."""

    def loss(params: Params, batch: Batch) -> jax.Array:
        logits, _ = task.trainer.model.apply(params, {}, batch.x, train=False)
        return task.trainer.loss(logits, batch.y).mean()

    return loss


def exact_row(
    module: Any, images: Any, *, examples: int, density: float, rounds: int, steps: int
) -> Row:
    """Trains a ticket, and measures the seconds of its whole spectrum on a random subset."""
    task, found = ticket(module, images, density=density, rounds=rounds, steps=steps)
    train = task.data.train
    chosen = np.random.default_rng(0).permutation(len(train.y))[:examples]
    batches = [
        trees.index(train, rows) for rows in np.split(chosen, range(BLOCK, len(chosen), BLOCK))
    ]
    began = time.perf_counter()
    matrix = dense_hessian(mean_loss(task), found.trained, batches, mask=found.mask)
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
    return exact_row(models.MLP(), mnist, examples=5000, density=0.036, rounds=3, steps=400)
