"""Methods that prune one matrix: `(weights, gram, keep) -> (weights, mask)`."""

from collections.abc import Callable, Mapping

from lth_jax.reconstruct.methods.alps import alps
from lth_jax.reconstruct.methods.method import LayerMethod, layer_error
from lth_jax.reconstruct.methods.obs import obs
from lth_jax.reconstruct.methods.simple import magnitude, refit, wanda
from lth_jax.reconstruct.methods.sparse_gpt import sparse_gpt

METHODS: Mapping[str, Callable[[], LayerMethod]] = {
    make.__name__: make for make in (alps, magnitude, obs, refit, sparse_gpt, wanda)
}
"""The builders by name."""

__all__ = [
    "METHODS",
    "LayerMethod",
    "alps",
    "layer_error",
    "magnitude",
    "obs",
    "refit",
    "sparse_gpt",
    "wanda",
]
