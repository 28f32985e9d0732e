"""Transformers over sequences: encoders and causal decoders, whose attention can be inspected."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from lth_jax.models.layers import Dropout, Initialization, dense, glorot_normal, read_sequence


class Attention(nn.Module):
    """Multi-head self-attention, `Σ_i softmax_i(q · k_i / √d) v_i` per head, then a dense layer.

    All four layers are plain `nn.Dense`s `query`, `key`, `value` and `out`; head i has the i-th
    block of columns of the first three, and of rows of the last. The probabilities are sown as
    `probabilities` for `inspection.attention_probabilities`.

    Source: Vaswani et al. (2017), "Attention is all you need", section 3.2.

    With `top_k`, each query attends only to the keys of its `top_k` largest scores (Zhao et al.,
    2019, "Explicit sparse Transformer"); all ties are kept.

    Attributes:
      heads: number of heads; it divides the width of the input.
      initialization: distributions of kernels and biases.
      top_k: number of keys to which a query attends; None: all that the mask permits.
    """

    heads: int
    initialization: Initialization = glorot_normal
    top_k: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps `(batch, time, width)` to the same shape.

        Args:
          x: the sequence.
          mask: booleans `(queries, keys)`, True where a query may attend to a key; None for all.

        Raises:
          ValueError: if `heads` does not divide the width, or `top_k` is below 1.
        """
        width = x.shape[-1]
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, got {self.top_k}.")
        if width % self.heads:
            raise ValueError(f"`heads` must divide the width {width}, got {self.heads}.")
        query, key, value = (
            dense(x, width, self.initialization, name=name).reshape(*x.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(width // self.heads)
        if mask is not None:
            scores = jnp.where(mask, scores, -jnp.inf)
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            least = jax.lax.top_k(scores, self.top_k)[0][..., -1:]
            scores = jnp.where(scores >= jax.lax.stop_gradient(least), scores, -jnp.inf)
        probabilities = nn.softmax(scores)
        self.sow("intermediates", "probabilities", probabilities)
        seen = jnp.einsum("bhqk,bkhd->bqhd", probabilities, value)
        return dense(seen.reshape(x.shape), width, self.initialization, name="out")


class TransformerBlock(nn.Module):
    """`x ← x + D(A(N(x)))`, then `x ← x + D(W₂ φ(W₁ N(x)))`: attention and a perceptron.

    N is LayerNorm before each part (Xiong et al., 2020), φ GELU, D dropout.

    Attributes:
      heads: number of attention heads.
      hidden: width of the perceptron's hidden layer.
      initialization: distributions of kernels and biases.
      dropout: probability of dropping an entry of an added term in training.
      top_k: see `Attention`.
    """

    heads: int
    hidden: int
    initialization: Initialization = glorot_normal
    dropout: float = 0.0
    top_k: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Maps `(batch, time, width)` to the same shape; `mask` is that of `Attention`."""
        h = Attention(self.heads, self.initialization, self.top_k)(nn.LayerNorm()(x), mask)
        x = x + Dropout(self.dropout)(h, train=train)
        h = nn.gelu(dense(nn.LayerNorm()(x), self.hidden, self.initialization))
        h = dense(h, x.shape[-1], self.initialization)
        return x + Dropout(self.dropout)(h, train=train)


class Transformer(nn.Module):
    """Blocks over a sequence of tokens or of vectors, then LayerNorm and a dense layer.

    With `causal=True` no position attends to a later one: a decoder, read at its last position.
    Otherwise it is an encoder, read as the mean over positions. `every_step=True` gives logits at
    all positions (language models). Positions are learned, so sequences must be as long as the
    example given to `init`; other inputs are as for `recurrent.RecurrentNet`.

    Source: Vaswani et al. (2017); Radford et al. (2019) for the order of the parts and the
    positions.

    Attributes:
      width: size of embeddings and of the residual stream.
      layers: number of blocks.
      heads: number of attention heads in each.
      hidden: width of the perceptrons' hidden layer.
      classes: number of outputs, the size of the vocabulary for a language model.
      vocabulary: number of tokens; None if the inputs are numbers.
      causal: whether later positions are masked.
      every_step: logits at every position instead of for the whole sequence.
      initialization: distributions of kernels and biases.
      dropout: probability of dropping an entry in training, after the embedding and in the blocks.
      top_k: number of keys to which a query attends; None: all that the mask permits.

    >>> from lth_jax.models.adapters import from_linen
    >>> model = from_linen(Transformer(width=8, hidden=16, classes=7, vocabulary=7, layers=1))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 5), jnp.int32))
    >>> sorted(params)
    ['Dense_0', 'Embed_0', 'LayerNorm_0', 'TransformerBlock_0', 'positions']
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    hidden: int = 256
    classes: int = 10
    vocabulary: int | None = None
    causal: bool = False
    every_step: bool = False
    initialization: Initialization = glorot_normal
    dropout: float = 0.0
    top_k: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps a sequence to `(batch, classes)`, or to `(batch, time, classes)` at every step."""
        h = read_sequence(x, self.vocabulary, self.width)
        if self.vocabulary is None:
            h = dense(h, self.width, self.initialization)
        time = h.shape[1]
        start = nn.initializers.normal(0.02)
        h = h + self.param("positions", start, (time, self.width))
        h = Dropout(self.dropout)(h, train=train)
        mask = jnp.tril(jnp.ones((time, time), bool)) if self.causal else None
        for _ in range(self.layers):
            block = TransformerBlock(
                self.heads, self.hidden, self.initialization, self.dropout, self.top_k
            )
            h = block(h, mask, train=train)
        h = nn.LayerNorm()(h)
        if not self.every_step:
            h = h[:, -1] if self.causal else h.mean(axis=1)
        return dense(h, self.classes, self.initialization)
