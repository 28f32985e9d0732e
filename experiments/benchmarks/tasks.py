"""The training tasks of the benchmarks: networks, data and masks.

All ways train the same networks: Linen parameters, masks that keep a fifth of each kernel, and
separate weights and batches for each member.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from lth_jax import trees
from lth_jax.data import indices
from lth_jax.models import MLP, ConvNet, ResNet, from_linen
from lth_jax.population import Member, Trainer, cross_entropy, init_member
from lth_jax.population.segment import masked_start
from lth_jax.types import Batch, Model

DENSITY, RATE, EXAMPLES = 0.2, 1.2e-3, 2048
VOCABULARY, LENGTH, WIDTH, HEADS = 64, 32, 64, 4


class Transformer(nn.Module):
    """A small causal language model: two blocks of attention and MLP with norms before them."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps tokens `(batch, length)` to logits `(batch, length, vocabulary)`."""
        del train
        place = self.param("place", nn.initializers.normal(0.02), (LENGTH, WIDTH))
        h = nn.Embed(VOCABULARY, WIDTH)(x) + place
        for _ in range(2):
            q, k, v = jnp.split(nn.Dense(3 * WIDTH)(nn.LayerNorm()(h)), 3, axis=-1)
            heads = [a.reshape(*a.shape[:-1], HEADS, WIDTH // HEADS) for a in (q, k, v)]
            mixed = jax.nn.dot_product_attention(*heads, is_causal=True)
            h = h + nn.Dense(WIDTH)(mixed.reshape(h.shape))
            h = h + nn.Dense(WIDTH)(nn.gelu(nn.Dense(4 * WIDTH)(nn.LayerNorm()(h))))
        return nn.Dense(VOCABULARY)(nn.LayerNorm()(h))


class LSTM(nn.Module):
    """A small language model: an embedding, one LSTM layer (gates i, f, g, o), a linear layer."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps tokens `(batch, length)` to logits `(batch, length, vocabulary)`."""
        del train
        gates = nn.Dense(4 * WIDTH)(nn.Embed(VOCABULARY, WIDTH)(x))
        kernel = self.param("recurrent", nn.initializers.orthogonal(), (WIDTH, 4 * WIDTH))

        def cell(carry: tuple[jax.Array, jax.Array], gate: jax.Array) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(gate + h @ kernel, 4, axis=-1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
            h = nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((len(x), WIDTH), gates.dtype)
        _, out = lax.scan(cell, (zeros, zeros), jnp.swapaxes(gates, 0, 1))
        return nn.Dense(VOCABULARY)(jnp.swapaxes(out, 0, 1))


class StockConvNet(nn.Module):
    """`models.ConvNet` with one convolution per stage and the same parameters, by Flax's layers."""

    widths: tuple[int, ...] = (32, 32, 64)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, height, width, channels)` to logits `(batch, 10)`."""
        del train
        for width in self.widths:
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


class Task(NamedTuple):
    """One network to train.

    Attributes:
      name: its name in the report.
      kind: a key of `TASKS`: selects the PyTorch version.
      trainer: the static part of the training.
      stock: the network with Flax's layers, without this library's convolution.
      data: training examples.
      batch: examples per step.
      members: networks in the population.
    """

    name: str
    kind: str
    trainer: Trainer
    stock: Model
    data: Batch
    batch: int
    members: int


def sequence_loss(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Cross-entropy per sequence, the mean over its positions."""
    flat = cross_entropy(logits.reshape(-1, VOCABULARY), tokens.reshape(-1))
    return flat.reshape(tokens.shape).mean(axis=1)


TASKS: dict[str, tuple[str, nn.Module, tuple[int, ...], int, int]] = {
    "mlp": ("LeNet-300-100, batch 60", MLP(), (28, 28), 60, 16),
    "conv": ("three conv layers, batch 32", ConvNet(((32,), (32,), (64,)), ()), (32, 32, 3), 32, 8),
    "resnet": ("ResNet-20, batch 32", ResNet((3, 3, 3), 16), (32, 32, 3), 32, 8),
    "transformer": ("small Transformer, batch 16", Transformer(), (), 16, 8),
    "lstm": ("small LSTM, batch 16", LSTM(), (), 16, 8),
}
"""By kind: name, network, shape of an input (tokens where empty), batch, members."""


def task(kind: str, steps: int) -> Task:
    """A task by name, whose segments are `steps` long."""
    name, module, shape, batch, members = TASKS[kind]
    inputs, targets = jax.random.split(jax.random.key(0))
    if shape:
        x = jax.random.normal(inputs, (EXAMPLES, *shape))
        data = Batch(x, jax.random.randint(targets, (EXAMPLES,), 0, 10))
    else:
        tokens = jax.random.randint(inputs, (EXAMPLES, LENGTH + 1), 0, VOCABULARY)
        data = Batch(tokens[:, :-1], tokens[:, 1:])
    loss = cross_entropy if shape else sequence_loss

    def order(key: jax.Array, step: Any, n: int) -> jax.Array:
        return indices(key, step, steps=n, batch_size=batch, size=EXAMPLES)

    trainer = Trainer(
        model=from_linen(module),
        make_optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
        loss=loss,
        metrics={"loss": loss},
        schedule=optax.constant_schedule(1.0),
        order=order,
        eval_every=steps,
    )
    stock = from_linen(StockConvNet()) if kind == "conv" else trainer.model
    return Task(name, kind, trainer, stock, data, batch, members)


def population(task: Task, members: int, density: float = DENSITY) -> Member:
    """Members at step 0, each under a random mask that keeps `density` of its kernels."""

    def one(key: jax.Array) -> Member:
        member = init_member(task.trainer, key, key, {"learning_rate": RATE}, task.data.x[:1])

        def draw(name: str, leaf: jax.Array) -> jax.Array:
            if leaf.ndim < 2:
                return jnp.ones(leaf.shape, bool)
            place = trees.names(member.params).index(name)
            return jax.random.bernoulli(jax.random.fold_in(key, place), density, leaf.shape)

        return masked_start(member._replace(mask=trees.map_named(draw, member.params)))

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), members))
