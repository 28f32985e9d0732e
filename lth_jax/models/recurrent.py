"""Recurrent networks whose time steps share their weights, or have separate ones."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from lth_jax.models.layers import Dropout, Initialization, dense, fan_in_uniform, read_sequence
from lth_jax.types import Key

State = tuple[jax.Array, ...]


class Cell(NamedTuple):
    """One step of a recurrent network, without its weights.

    Attributes:
      gates: number of pre-activations, each of the width of the state.
      states: number of carried vectors; the first, h, is the output.
      step: `(a, b, state) -> state`, with the pre-activations from the input, `a = x W + c`, and
        from the last step, `b = h U`, both `(batch, gates · width)`.
    """

    gates: int
    states: int
    step: Callable[[jax.Array, jax.Array, State], State]


def _tanh_step(a: jax.Array, b: jax.Array, state: State) -> State:
    del state
    return (jnp.tanh(a + b),)


def _gru_step(a: jax.Array, b: jax.Array, state: State) -> State:
    (h,) = state
    (r_in, z_in, n_in), (r_rec, z_rec, n_rec) = jnp.split(a, 3, -1), jnp.split(b, 3, -1)
    reset, update = nn.sigmoid(r_in + r_rec), nn.sigmoid(z_in + z_rec)
    new = jnp.tanh(n_in + reset * n_rec)
    return ((1 - update) * new + update * h,)


def _lstm_step(a: jax.Array, b: jax.Array, state: State) -> State:
    _, c = state
    enter, forget, new, leave = jnp.split(a + b, 4, -1)
    c = nn.sigmoid(forget + 1) * c + nn.sigmoid(enter) * jnp.tanh(new)
    return nn.sigmoid(leave) * jnp.tanh(c), c


tanh_cell = Cell(1, 1, _tanh_step)
"""`h' = tanh(x W + h U + c)` (Elman, 1990)."""

gru_cell = Cell(3, 1, _gru_step)
"""`r, z = σ(x W + h U + c)`, `n = tanh(x W + r ∘ (h U) + c)`, `h' = (1 - z) ∘ n + z ∘ h`.

The columns of the kernels are those of r, z and n. Source: Cho et al. (2014), with the reset gate
after the product, as in cuDNN."""

lstm_cell = Cell(4, 2, _lstm_step)
"""`i, f, g, o = x W + h U + c`; `c' = σ(f + 1) ∘ c + σ(i) ∘ tanh(g)`, `h' = σ(o) ∘ tanh(c')`.

The columns of the kernels are those of i, f, g and o. Source: Hochreiter and Schmidhuber (1997);
Gers et al. (2000); the added 1 keeps the forget gate open at the start (Jozefowicz et al.,
2015)."""


def orthogonal_gates(gates: int) -> Callable[..., jax.Array]:
    """Initializer of recurrent kernels `(width, gates · width)`: an orthogonal block per gate.

    So each block has spectral radius 1. Source: Saxe et al. (2014).

    >>> kernel = orthogonal_gates(2)(jax.random.key(0), (3, 6))
    >>> jnp.allclose(kernel[:, 3:] @ kernel[:, 3:].T, jnp.eye(3), atol=1e-5).item()
    True
    """

    def init(key: Key, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        # One after the other: several batched decompositions in one program can deadlock on a CPU
        # (jaxlib 0.10.2).
        @jax.custom_batching.sequential_vmap
        def block(key: Key) -> jax.Array:
            return nn.initializers.orthogonal()(key, (shape[0],) * 2, dtype)

        blocks = jax.vmap(block)(jax.random.split(key, gates))
        return jnp.moveaxis(blocks, 0, 1).reshape(shape)

    return init


class TiedLayer(nn.Module):
    """A layer with the same weights in all steps: a scan over time.

    Attributes:
      cell: the computation of a step.
      width: size of the state.
      initialization: distributions of the input kernel and bias; the recurrent kernel is
        orthogonal.
    """

    cell: Cell
    width: int
    initialization: Initialization = fan_in_uniform

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(batch, time, n)` to the states h of all steps, `(batch, time, width)`."""
        gates = self.cell.gates
        shape = (self.width, gates * self.width)
        inputs = dense(x, shape[1], self.initialization)
        kernel = self.param("recurrent_kernel", orthogonal_gates(gates), shape)

        def step(state: State, a: jax.Array) -> tuple[State, jax.Array]:
            state = self.cell.step(a, state[0] @ kernel, state)
            return state, state[0]

        start = (jnp.zeros((len(x), self.width), inputs.dtype),) * self.cell.states
        return lax.scan(step, start, inputs.swapaxes(0, 1))[1].swapaxes(0, 1)


class UntiedLayer(TiedLayer):
    """`TiedLayer` unrolled, with separate weights in each step.

    With equal weights in all steps the two layers compute the same. The first step has no recurrent
    kernel, because the initial state is zero. The loop is a Python loop: the compile time grows
    with the number of steps, and sequences must be as long as the example given to `init`.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(batch, time, n)` to the states h of all steps, `(batch, time, width)`."""
        gates = self.cell.gates
        shape = (self.width, gates * self.width)
        state = (jnp.zeros((len(x), self.width), x.dtype),) * self.cell.states
        outputs = []
        for t in range(x.shape[1]):
            a = dense(x[:, t], shape[1], self.initialization)
            b = jnp.zeros_like(a)
            if t:
                b = state[0] @ self.param(f"recurrent_kernel_{t}", orthogonal_gates(gates), shape)
            state = self.cell.step(a, b, state)
            outputs.append(state[0])
        return jnp.stack(outputs, axis=1)


class RecurrentNet(nn.Module):
    """Recurrent layers over a sequence, then a dense layer on the last state or on all states.

    Tokens are integers `(batch, time)` and are embedded; numbers are floats `(batch, time, ...)`
    whose further axes are flattened: `(batch, time)` is one number per step, an image
    `(batch, 28, 28, 1)` one row per step.

    Attributes:
      cell: `tanh_cell`, `gru_cell` or `lstm_cell`.
      width: size of states and embeddings.
      layers: number of recurrent layers.
      classes: number of outputs, the size of the vocabulary for a language model.
      vocabulary: number of tokens; None if the inputs are numbers.
      tied: whether all steps share their weights.
      every_step: logits at every step instead of after the last one.
      initialization: distributions of input and output kernels and biases.
      dropout: probability of dropping an output of a layer in training.

    >>> from lth_jax.models.adapters import from_linen
    >>> model = from_linen(RecurrentNet(gru_cell, width=4, classes=7, vocabulary=7))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 5), jnp.int32))
    >>> params["TiedLayer_0"]["recurrent_kernel"].shape, params["Embed_0"]["embedding"].shape
    ((4, 12), (7, 4))
    """

    cell: Cell = lstm_cell
    width: int = 64
    layers: int = 1
    classes: int = 10
    vocabulary: int | None = None
    tied: bool = True
    every_step: bool = False
    initialization: Initialization = fan_in_uniform
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps a sequence to `(batch, classes)`, or to `(batch, time, classes)` at every step."""
        layer = TiedLayer if self.tied else UntiedLayer
        h = read_sequence(x, self.vocabulary, self.width)
        for _ in range(self.layers):
            h = layer(self.cell, self.width, self.initialization)(h)
            h = Dropout(self.dropout)(h, train=train)
        return dense(h if self.every_step else h[:, -1], self.classes, self.initialization)
