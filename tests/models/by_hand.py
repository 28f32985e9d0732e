"""Layers written out with JAX's own functions, outside of training."""

from jax import lax


def conv(x, p, stride=1):
    """A 1-wide or 3-wide convolution of images, with equal padding on both sides."""
    side = p["kernel"].shape[0] // 2
    return lax.conv_general_dilated(
        x,
        p["kernel"],
        (stride, stride),
        [(side, side)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def batch_norm(x, p, s):
    """BatchNorm with its running statistics."""
    return (x - s["mean"]) / (s["var"] + 1e-5) ** 0.5 * p["scale"] + p["bias"]


def dense(x, p):
    """A dense layer."""
    return x @ p["kernel"] + p["bias"]
