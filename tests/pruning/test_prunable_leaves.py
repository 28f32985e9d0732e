"""What is prunable by default: kernels of every framework, and nothing that acts entry by entry."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import nnx

import lth_jax as lth
from lth_jax import trees

KEY = jax.random.key(0)
IMAGE = jnp.ones((2, 6, 6, 8))
KERNEL = {"other": {"kernel": jnp.ones((4, 4))}}  # so that something is prunable


def chosen(params):
    prunable = trees.to_named(lth.prunable_leaves({"subject": params, **KERNEL}))
    return {
        name.removeprefix("subject").lstrip("/")
        for name, may in prunable.items()
        if may and name.startswith("subject")
    }


def stacks(make):
    """The parameters of one layer, and of a stack of five."""
    alone = eqx.filter(make(KEY), eqx.is_inexact_array)
    many = eqx.filter(eqx.filter_vmap(make)(jax.random.split(KEY, 5)), eqx.is_inexact_array)
    return alone, many


LINEN_NORMS = [
    nn.BatchNorm(use_running_average=False), nn.LayerNorm(), nn.RMSNorm(), nn.GroupNorm(4),
    nn.InstanceNorm(), nn.LayerNorm(reduction_axes=(-2, -1), feature_axes=(-2, -1)),
]  # fmt: skip


@pytest.mark.parametrize("norm", LINEN_NORMS, ids=lambda n: type(n).__name__)
def test_linen_norms_stay(norm):
    params = norm.init(KEY, IMAGE)["params"]
    assert chosen(params) == set()
    assert chosen(jax.tree.map(lambda p: jnp.stack([p] * 5), params)) == set()


NNX_NORMS = {
    "batch": lambda rngs: nnx.BatchNorm(8, rngs=rngs),
    "layer": lambda rngs: nnx.LayerNorm(8, rngs=rngs),
    "rms": lambda rngs: nnx.RMSNorm(8, rngs=rngs),
    "group": lambda rngs: nnx.GroupNorm(8, 4, rngs=rngs),
    "instance": lambda rngs: nnx.InstanceNorm(8, rngs=rngs),
}


@pytest.mark.parametrize("name", NNX_NORMS)
def test_nnx_norms_stay(name):
    many = nnx.vmap(lambda key: NNX_NORMS[name](nnx.Rngs(key)))(jax.random.split(KEY, 5))
    assert chosen(nnx.state(many, nnx.Param)) == set()
    assert chosen(nnx.to_pure_dict(nnx.state(many, nnx.Param))) == set()


EQUINOX_NORMS = {
    "layer": lambda key: eqx.nn.LayerNorm((4, 5)),
    "layer without bias": lambda key: eqx.nn.LayerNorm((4, 5), use_bias=False),
    "rms": lambda key: eqx.nn.RMSNorm((4, 5)),
    "group": lambda key: eqx.nn.GroupNorm(2, 8),
}


@pytest.mark.parametrize("name", EQUINOX_NORMS)
def test_equinox_norms_stay_whatever_their_names(name):
    for params in stacks(EQUINOX_NORMS[name]):
        assert chosen({"a": params}) == set()


@pytest.mark.parametrize(
    ("make", "kernels"),
    [
        (lambda key: eqx.nn.Linear(3, 4, key=key), {"weight"}),
        (lambda key: eqx.nn.Linear(3, 1, key=key), {"weight"}),
        (lambda key: eqx.nn.Conv2d(3, 4, 3, key=key), {"weight"}),
        (lambda key: eqx.nn.Embedding(3, 4, key=key), {"weight"}),
        (lambda key: eqx.nn.GRUCell(3, 4, key=key), {"weight_ih", "weight_hh"}),
    ],
)
def test_equinox_kernels_are_prunable_alone_and_stacked(make, kernels):
    for params in stacks(make):
        assert {name for name in chosen(params) if "weight" in name} == kernels


HAIKU = {
    "net/~/batchnorm": {"scale": jnp.ones((1, 1, 1, 8)), "offset": jnp.zeros((1, 1, 1, 8))},
    "net/~/layer_norm": {"scale": jnp.ones((5, 8)), "offset": jnp.zeros((5, 8))},
    "net/~/conv2_d": {"w": jnp.ones((3, 3, 8, 8)), "b": jnp.zeros(8)},
    "net/~/stack/linear": {"w": jnp.ones((5, 8, 8)), "b": jnp.zeros((5, 8))},
    "net/~/embed": {"embeddings": jnp.ones((10, 8))},
}


def test_haiku():
    assert chosen(HAIKU) == {
        "net/~/conv2_d/w", "net/~/stack/linear/w", "net/~/embed/embeddings",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layer_scale", (8, 1, 1)),
        ("block/gamma", (8, 1, 1)),
        ("block/ls1", (4, 8)),
        ("some_scale", (8, 1, 1)),
        ("anything", (8, 1, 1)),
        ("anything", (1, 1, 1, 8)),
        ("query/bias", (4, 8)),
        ("relative_position_bias_table", (49, 4)),
        ("block/bn1/weight", (5, 8)),
        ("block/ln_2/weight", (5, 8)),
        ("post_attention_layernorm/weight", (5, 8)),
        ("q_norm/weight", (5, 8)),
    ],
)
def test_scales_biases_and_norms_by_name_and_shape_stay(name, shape):
    assert chosen({name: jnp.ones(shape)}) == set()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("head/kernel", (1, 1, 8, 1)),
        ("head/weight", (1, 8, 1, 1)),
        ("spectral_norm/layer_instance/kernel", (3, 4)),
        ("normal_head/weight", (3, 4)),
        ("out", (8, 1)),
        ("table", (8, 3)),
        ("b", (3, 4)),
    ],
)
def test_kernels_of_few_entries_or_odd_names_are_prunable(name, shape):
    assert chosen({name: jnp.ones(shape)}) == {name}
