"""Networks for the benchmarks of structured pruning: shapes of their variables, and functions.

ConvNeXt is that of Liu et al. (2022), the decoder that of Llama (Touvron et al., 2023): RMSNorm,
rotary positions, SwiGLU, no biases.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn


class ConvBlock(nn.Module):
    """A depthwise convolution, LayerNorm, and two dense layers, scaled and added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[batch, h, w, width]` to the same shape."""
        width = x.shape[-1]
        h = nn.LayerNorm()(nn.Conv(width, (7, 7), feature_group_count=width)(x))
        h = nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(h)))
        return x + h * self.param("scale", nn.initializers.constant(1e-6), (width,))


class ConvNeXt(nn.Module):
    """ConvNeXt; the defaults are its size "tiny".

    Attributes:
      blocks: number of blocks in each stage.
      width: channels of the first stage; each further stage has twice as many.
      classes: number of outputs.
    """

    blocks: Sequence[int] = (3, 3, 9, 3)
    width: int = 96
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits `[batch, classes]` of images `[batch, h, w, 3]`, alike in both modes."""
        del train
        x = nn.LayerNorm()(nn.Conv(self.width, (4, 4), (4, 4))(x))
        for stage, count in enumerate(self.blocks):
            if stage:
                x = nn.Conv(self.width * 2**stage, (2, 2), (2, 2))(nn.LayerNorm()(x))
            for _ in range(count):
                x = ConvBlock()(x)
        return nn.Dense(self.classes)(nn.LayerNorm()(x.mean((1, 2))))


class Decoder(NamedTuple):
    """The sizes of a decoder; the defaults are those with 7 billion weights.

    Attributes:
      width: size of the residual stream.
      layers: number of blocks.
      heads: number of heads; it divides `width` into even parts.
      hidden: size of the gated layers.
      vocabulary: number of tokens.
      scanned: whether the blocks are stacked and run by `lax.scan`.
      dtype: of the parameters.
    """

    width: int = 4096
    layers: int = 32
    heads: int = 32
    hidden: int = 11008
    vocabulary: int = 32000
    scanned: bool = False
    dtype: Any = jnp.bfloat16

    def shapes(self) -> Any:
        """The shapes of the parameters."""
        wide, hidden = (self.width, self.width), (self.width, self.hidden)
        block = {
            "norm": (self.width,), "query": wide, "key": wide, "value": wide, "out": wide,
            "hidden_norm": (self.width,), "gate": hidden, "up": hidden, "down": hidden[::-1],
        }  # fmt: skip
        if self.scanned:
            blocks: Any = {name: (self.layers, *shape) for name, shape in block.items()}
        else:
            blocks = [block] * self.layers
        table = (self.vocabulary, self.width)
        tree = {"embed": table, "blocks": blocks, "norm": (self.width,), "head": table[::-1]}
        return jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct(shape, self.dtype),
            tree,
            is_leaf=lambda x: isinstance(x, tuple),
        )

    def apply(self, params: Any, tokens: jax.Array) -> jax.Array:
        """Logits `[batch, time, vocabulary]` of tokens `[batch, time]`."""
        x = params["embed"][tokens]
        if self.scanned:
            x, _ = jax.lax.scan(lambda x, p: (self.block(p, x), None), x, params["blocks"])
        else:
            for p in params["blocks"]:
                x = self.block(p, x)
        return normalized(params["norm"], x) @ params["head"]

    def block(self, p: Any, x: jax.Array) -> jax.Array:
        """Attention, then the gated layers, each added to `x`, `[batch, time, width]`."""
        split = (*x.shape[:2], self.heads, self.width // self.heads)
        h = normalized(p["norm"], x)
        query, key, value = ((h @ p[name]).reshape(split) for name in ("query", "key", "value"))
        mixed = jax.nn.dot_product_attention(rotated(query), rotated(key), value, is_causal=True)
        x = x + mixed.reshape(x.shape) @ p["out"]
        h = normalized(p["hidden_norm"], x)
        return x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]


def normalized(scale: jax.Array, x: jax.Array) -> jax.Array:
    """RMSNorm: `x / √(mean x² + 10⁻⁵)` times `scale`."""
    mean = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(mean + 1e-5) * scale


def rotated(x: jax.Array) -> jax.Array:
    """Rotary positions (Su et al., 2021) of `[batch, time, heads, size]`."""
    half = x.shape[-1] // 2
    rates = 1e4 ** (-jnp.arange(half) / half)
    angles = jnp.arange(x.shape[1])[:, None, None] * rates
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
