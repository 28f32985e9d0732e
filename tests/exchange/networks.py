"""Small networks of Flax, and their counterparts' axes."""

import flax.linen as nn
import jax
import numpy as np

from lth_jax import layouts


class Net(nn.Module):
    """Convolution, BatchNorm, two poolings, and dense layers on flattened features."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x))
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = nn.avg_pool(x, (2, 2), (1, 1), "SAME")
        x = nn.relu(nn.Dense(6)(x.reshape(x.shape[0], -1)))
        return nn.log_softmax(nn.Dense(3)(x))


X = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype(np.float32)
MAPPING = {
    "Conv_0/kernel": "conv.weight",
    "Conv_0/bias": "conv.bias",
    "BatchNorm_0/scale": "bn.weight",
    "BatchNorm_0/bias": "bn.bias",
    "Dense_0/kernel": {"name": "fc1.weight", "flattened": [2, 2, 4]},
    "Dense_0/bias": "fc1.bias",
    "Dense_1/kernel": "fc2.weight",
    "Dense_1/bias": "fc2.bias",
}
STATE_MAPPING = {"BatchNorm_0/mean": "bn.running_mean", "BatchNorm_0/var": "bn.running_var"}
LAYOUTS = layouts.of_linen(Net(), X)


def network():
    """Parameters, state and mask; half of each kernel is pruned."""
    variables = jax.tree.map(np.asarray, Net().init(jax.random.key(0), X))
    rng = np.random.default_rng(1)
    state = jax.tree.map(
        lambda p: rng.uniform(0.5, 2, p.shape).astype("f"), variables["batch_stats"]
    )
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype("f"), variables["params"])
    mask = jax.tree.map(lambda p: (rng.random(p.shape) < 0.5) | (p.ndim < 2), params)
    return params, state, mask


def apply(params, x, state):
    return Net().apply({"params": params, "batch_stats": state}, x)


def masked(params, mask):
    return jax.tree.map(lambda p, m: np.where(m, p, np.float32(0)), params, mask)
