"""Every Python block of the README runs, in the order of the page."""

import re
from pathlib import Path

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

README = Path(__file__).resolve().parents[1] / "README.md"
X, Y = jax.random.normal(jax.random.key(1), (12, 8)), jnp.arange(12) % 4


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))


def blocks():
    """The code of each block, in the order of the page."""
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


def names_of(code):
    """What the reader of a block has already: a network, its loss, data."""
    module = nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(4)])
    common = {"jax": jax, "x": X, "y": Y, "key": jax.random.key(0)}
    common |= {"cross_entropy": cross_entropy}
    params = module.init(jax.random.key(0), X)["params"]

    def loss(params, batch=X):
        return cross_entropy(module.apply({"params": params}, batch), Y)

    if "nnx.split" in code:
        return common | {"model": Network(nnx.Rngs(0))}
    if "from_equinox" in code:
        both = {"hk": hk, "network": lambda x: hk.Linear(4)(x), "module": module}
        return common | both | {"Network": Either}
    if "find_groups" in code:
        apply = lambda params, x: module.apply({"params": params}, x)  # noqa: E731
        return common | {"apply": apply, "params": params, "lth": __import__("lth_jax")}
    mask = jax.tree.map(lambda p: p > 0, params)
    return common | {"model": module, "loss": loss, "params": params, "batches": [X], "mask": mask}


class Either:
    """An NNX network where it gets `rngs`, an Equinox one where it gets `key`."""

    def __new__(cls, rngs=None, key=None):
        return Network(rngs) if key is None else eqx.nn.MLP(8, 4, 16, 1, key=key)


@pytest.mark.slow
def test_every_block_runs():
    found = {}
    for code in blocks():
        # The layouts continue the block of the transforms, whose names they use.
        names = found["transforms"] if "of_linen" in code else names_of(code)
        exec(compile(code, "README.md", "exec"), names)
        if "lth.masked(" in code:
            found["transforms"] = names
        elif "of_linen" in code:
            found["layouts"] = names
        elif "compact" in code:
            found["compact"] = names
    assert set(found) == {"transforms", "layouts", "compact"}
    kernel = np.asarray(found["layouts"]["mask"]["layers_0"]["kernel"]).reshape(2, 4, 16)
    assert kernel.sum(1).max() <= 2
    small, full = found["compact"]["small"], found["compact"]["params"]
    assert sum(map(jnp.size, jax.tree.leaves(small))) < sum(map(jnp.size, jax.tree.leaves(full)))
