"""Layouts from the types of Keras's layers; Keras is imported on use."""

from collections.abc import Callable
from typing import Any

from lth_jax.layouts.layout import DENSE, Layout, conv
from lth_jax.layouts.modules import (
    Describe,
    einsum_layout,
    general_layout,
    of_layer,
    present,
    transposed_conv,
)


def of_keras(model: Any, *args: Any, **kwargs: Any) -> dict[str, Layout]:
    """The layouts of a Keras model's kernels, from the types of its layers.

    A leaf is omitted if its layer's type is not known (see `register`).

    Args:
      model: a `keras.Model` whose variables exist; without variables, the result is empty.
      *args: an example of its inputs, as in `of_linen`; ignored.
      **kwargs: ignored.

    Returns:
      Path of a trainable variable to layout.

    Raises:
      ModuleNotFoundError: Keras is not installed.
      AttributeError: `model` is not a Keras model.

    Example::

        import os

        os.environ["KERAS_BACKEND"] = "jax"  # before the first import of Keras
        import keras

        of_keras(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")]))
        # {'sequential/out/kernel': Layout(inputs=(0,), outputs=(1,))}
    """
    from keras import layers as kl

    del args, kwargs

    def window(layer: Any) -> int:
        return len(layer.kernel_size)

    def each(layout: Layout, *names: str) -> Describe:
        return lambda layer: {name: (layout, ()) for name in names}

    def of_window(name: str, make: Callable[[int], Layout]) -> Describe:
        return lambda layer: {name: (make(window(layer)), ())}

    def depthwise(n: int) -> Layout:  # (*window, channels, outputs of each)
        return Layout((), (n, n + 1), tuple(range(n)))

    def separable(layer: Any) -> dict[str, tuple[Layout, Any]]:
        n = window(layer)
        return {"depthwise_kernel": (depthwise(n), ()), "pointwise_kernel": (conv(n), ())}

    def attention(layer: Any) -> dict[str, tuple[Layout, Any]]:
        made = each(general_layout(1, 2), "query/kernel", "key/kernel", "value/kernel")(layer)
        return {**made, "attention_output/kernel": (general_layout(2, 1), ())}

    def cell(layout: Layout) -> Describe:
        return each(layout, "kernel", "recurrent_kernel")

    known: dict[type, Describe] = {
        kl.Dense: each(DENSE, "kernel"),
        kl.Embedding: each(DENSE, "embeddings"),
        kl.EinsumDense: lambda m: present("kernel", einsum_layout(m.equation, m.kernel.shape), ()),
        kl.MultiHeadAttention: attention,
        kl.SimpleRNNCell: cell(DENSE),
        **dict.fromkeys((kl.LSTMCell, kl.GRUCell), cell(DENSE.of_kind("gated"))),
        **dict.fromkeys((kl.Conv1D, kl.Conv2D, kl.Conv3D), of_window("kernel", conv)),
        **dict.fromkeys(
            (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose),
            of_window("kernel", lambda n: transposed_conv(n, swapped=True)),
        ),
        **dict.fromkeys((kl.DepthwiseConv1D, kl.DepthwiseConv2D), of_window("kernel", depthwise)),
        **dict.fromkeys((kl.SeparableConv1D, kl.SeparableConv2D), separable),
    }
    found: dict[str, Layout] = {}
    for layer in model._flatten_layers():  # outer ones first; Keras 3.15 has no public walk
        for name, (layout, _) in of_layer(layer, known).items():
            for variable in layer.trainable_variables:
                if variable.path.endswith(f"/{name}"):
                    found.setdefault(variable.path, layout)
    return found
