"""Small Keras models on the JAX backend; an import of this file skips where Keras is absent."""

import os

import pytest

os.environ["KERAS_BACKEND"] = "jax"  # Keras reads it when it is first imported
keras = pytest.importorskip("keras", reason="Keras is not installed: `pip install keras`")

from keras import layers as kl  # noqa: E402


def convnet():
    """Convolutions of all kinds, norms, a sum, squeeze and excitation, a model in a model."""
    images = keras.Input((6, 6, 3))
    h = kl.Conv2D(6, 3, use_bias=False, name="stem")(kl.ZeroPadding2D()(images))
    h = kl.Activation("relu")(kl.BatchNormalization(name="norm")(h))
    gate = kl.Reshape((1, 1, 6))(kl.GlobalAveragePooling2D()(h))
    gate = kl.Conv2D(3, 1, activation="relu", name="squeeze")(gate)
    h = kl.Multiply()([h, kl.Conv2D(6, 1, activation="sigmoid", name="excite")(gate)])
    depth = kl.DepthwiseConv2D(3, padding="same", name="depth")
    separable = kl.SeparableConv2D(6, 3, padding="same", name="separable")
    h = kl.Add()([h, kl.Dropout(0.3)(keras.Sequential([depth, separable], name="deep")(h))])
    h = kl.MaxPooling2D()(kl.Conv2D(4, 3, padding="same", groups=2, name="grouped")(h))
    up = kl.Conv2DTranspose(4, 2, strides=2, name="up")(h)
    up = kl.GroupNormalization(2, name="group_norm")(up)
    h = kl.Concatenate()([kl.AveragePooling2D(2)(up), h])
    h = kl.PReLU(shared_axes=(1, 2), name="slopes")(h)
    h = kl.Dense(5, activation="gelu", name="hidden")(kl.Flatten()(h))
    return keras.Model(images, kl.Dense(3, name="logits")(h), name="convnet")


def reader():
    """An embedding, attention, a norm with a residual sum, and a recurrent layer."""
    words = keras.Input((4,), dtype="int32")
    h = kl.Embedding(7, 6, name="words")(words)
    h = kl.Add()([h, kl.MultiHeadAttention(2, 3, dropout=0.2, name="attention")(h, h)])
    h = kl.LSTM(5, name="recurrent")(kl.LayerNormalization(name="norm")(h))
    return keras.Model(words, kl.Dense(3, name="logits")(h), name="reader")


NETWORKS = {"convnet": convnet, "reader": reader}
