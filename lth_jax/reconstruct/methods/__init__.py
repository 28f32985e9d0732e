"""Methods that prune one matrix: `(weights, gram, keep) -> (weights, mask)`."""

from lth_jax.reconstruct.methods.alps import alps
from lth_jax.reconstruct.methods.method import LayerMethod, layer_error
from lth_jax.reconstruct.methods.obs import obs
from lth_jax.reconstruct.methods.simple import magnitude, refit, wanda
from lth_jax.reconstruct.methods.sparse_gpt import sparse_gpt

__all__ = ["LayerMethod", "alps", "layer_error", "magnitude", "obs", "refit", "sparse_gpt", "wanda"]
