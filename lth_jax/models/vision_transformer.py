"""Networks on sequences of image patches: Vision Transformer and MLP-Mixer."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lth_jax.models.layers import Dropout, Initialization, as_floats, dense, glorot_normal
from lth_jax.models.transformer import TransformerBlock


def patches(x: jax.Array, size: int) -> jax.Array:
    """Cuts every image into squares: `(batch, h, w, n) -> (batch, h/size · w/size, size² n)`.

    A dense layer on them is a convolution whose windows do not overlap.

    Raises:
      ValueError: if `x` is not a batch of images, or `size` does not divide their sides.

    >>> patches(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1].tolist()
    [2.0, 3.0, 6.0, 7.0]
    """
    if x.ndim != 4 or x.shape[1] % size or x.shape[2] % size:
        raise ValueError(
            f"`x` must have shape (batch, height, width, channels) with sides that the patch size "
            f"{size} divides, got {x.shape}."
        )
    batch, height, width, n = x.shape
    cut = as_floats(x).reshape(batch, height // size, size, width // size, size, n)
    return cut.swapaxes(2, 3).reshape(batch, -1, size * size * n)


class VisionTransformer(nn.Module):
    """ViT: dense layer on patches, class token in front, positions, blocks, dense layer.

    The logits are computed from the class token after a last LayerNorm. The defaults are much
    smaller than the papers' sizes, of which `networks.NETWORKS` has `vit_tiny` (5.7 million
    parameters), `vit_small` and `vit_base`.

    Source: Dosovitskiy et al. (2021), "An image is worth 16x16 words"; Touvron et al. (2021) for
    the tiny and the small size.

    Attributes:
      patch: side of the square patches; it divides the sides of the image.
      width: size of the residual stream.
      layers: number of blocks.
      heads: number of attention heads in each.
      hidden: width of the perceptrons' hidden layer.
      classes: number of outputs.
      initialization: distributions of kernels and biases.
      dropout: probability of dropping an entry in training, after the positions and in the blocks.

    >>> from lth_jax.models.adapters import from_linen
    >>> model = from_linen(VisionTransformer(patch=4, width=8, heads=2, hidden=16, layers=1))
    >>> x = jnp.zeros((1, 8, 8, 3))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> params["positions"].shape, params["Dense_0"]["kernel"].shape
    ((5, 8), (48, 8))
    """

    patch: int = 2
    width: int = 48
    layers: int = 2
    heads: int = 4
    hidden: int = 96
    classes: int = 10
    initialization: Initialization = glorot_normal
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, height, width, channels)` to logits `(batch, classes)`."""
        h = dense(patches(x, self.patch), self.width, self.initialization)
        token = self.param("class_token", nn.initializers.zeros, (self.width,))
        h = jnp.concatenate([jnp.broadcast_to(token, (len(h), 1, self.width)), h], axis=1)
        shape = (h.shape[1], self.width)
        h = h + self.param("positions", nn.initializers.normal(0.02), shape)
        h = Dropout(self.dropout)(h, train=train)
        for _ in range(self.layers):
            block = TransformerBlock(self.heads, self.hidden, self.initialization, self.dropout)
            h = block(h, train=train)
        return dense(nn.LayerNorm()(h)[:, 0], self.classes, self.initialization)


class MixerBlock(nn.Module):
    """`x ← x + P(N(x)ᵀ)ᵀ`, then `x ← x + P'(N(x))`: perceptrons over patches and over channels.

    Attributes:
      patch_hidden: hidden width of P, over the patches.
      hidden: hidden width of P', over the channels.
      initialization: distributions of kernels and biases.
      dropout: probability of dropping an entry of an added term in training.
    """

    patch_hidden: int
    hidden: int
    initialization: Initialization = glorot_normal
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, patches, width)` to the same shape."""
        h = self._perceptron(nn.LayerNorm()(x).swapaxes(1, 2), self.patch_hidden)
        x = x + Dropout(self.dropout)(h.swapaxes(1, 2), train=train)
        h = self._perceptron(nn.LayerNorm()(x), self.hidden)
        return x + Dropout(self.dropout)(h, train=train)

    def _perceptron(self, x: jax.Array, hidden: int) -> jax.Array:
        h = nn.gelu(dense(x, hidden, self.initialization))
        return dense(h, x.shape[-1], self.initialization)


class Mixer(nn.Module):
    """MLP-Mixer: dense layer on patches, mixer blocks, mean over patches, dense layer.

    `networks.NETWORKS` has `mixer_small` (patches of 16, 18.5 million parameters); the defaults
    are much smaller.

    Source: Tolstikhin et al. (2021), "MLP-Mixer: an all-MLP architecture for vision".

    Attributes:
      patch: side of the square patches; it divides the sides of the image.
      width: number of channels.
      layers: number of blocks.
      patch_hidden: hidden width of the perceptrons over patches.
      hidden: hidden width of the perceptrons over channels.
      classes: number of outputs.
      initialization: distributions of kernels and biases.
      dropout: probability of dropping an entry of an added term in training.

    >>> from lth_jax.models.adapters import from_linen
    >>> model = from_linen(Mixer(patch=4, width=8, layers=1))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> params["MixerBlock_0"]["Dense_0"]["kernel"].shape
    (4, 24)
    """

    patch: int = 2
    width: int = 48
    layers: int = 2
    patch_hidden: int = 24
    hidden: int = 96
    classes: int = 10
    initialization: Initialization = glorot_normal
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, height, width, channels)` to logits `(batch, classes)`."""
        h = dense(patches(x, self.patch), self.width, self.initialization)
        for _ in range(self.layers):
            block = MixerBlock(self.patch_hidden, self.hidden, self.initialization, self.dropout)
            h = block(h, train=train)
        return dense(nn.LayerNorm()(h).mean(axis=1), self.classes, self.initialization)
