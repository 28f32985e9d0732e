"""Wanda's input norms against sums written out, in Linen and in NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from lth_jax.pruning import criteria, masks

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 4)), jnp.float32)
TOKENS = jnp.array([[0, 2, 2], [1, 2, 0]])


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


class Images(nn.Module):
    """A strided grouped convolution, BatchNorm, and a dense layer under remat, called twice."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 2), strides=2, feature_group_count=2, name="conv")(x)
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        dense = nn.remat(nn.Dense)(6, name="dense")
        return dense(nn.relu(dense(x.mean((1, 2)))))


def linen_forward(module, variables):
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    return lambda params, x, **kw: module.apply({"params": params, **rest}, x, **kw)


def weighted(layer, shape, x):
    """`Σ x²`, one weight at a time: the squares of what that weight of one alone puts out."""
    sums = np.zeros(shape)
    for index in np.ndindex(shape):
        alone = jnp.zeros(shape).at[index].set(1.0)
        sums[index] = float(jnp.sum(layer(alone, x) ** 2))
    return sums


def conv(kernel, x):
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )


@pytest.fixture(scope="module")
def images():
    module = Images()
    return module, jax.jit(module.init)(jax.random.key(0), IMAGES)


def test_linen_inputs_are_those_that_each_weight_meets(images):
    module, variables = images
    params = variables["params"]
    sums = jax.jit(criteria.linen_inputs(linen_forward(module, variables)))(params, IMAGES)
    assert sorted(sums) == ["conv/bias", "conv/kernel", "dense/bias", "dense/kernel"]
    one_conv = jax.jit(conv)
    expected = weighted(one_conv, params["conv"]["kernel"].shape, IMAGES)
    np.testing.assert_allclose(sums["conv/kernel"], expected, rtol=1e-5)
    first = (conv(params["conv"]["kernel"], IMAGES) / jnp.sqrt(1 + 1e-5)).mean((1, 2))
    second = nn.relu(first @ params["dense"]["kernel"] + params["dense"]["bias"])
    squares = (first**2).sum(0) + (second**2).sum(0)  # the layer is called twice
    np.testing.assert_allclose(sums["dense/kernel"], np.tile(squares[:, None], 6), rtol=1e-4)
    assert sums["dense/bias"].tolist() == [4.0] * 6  # two examples, twice


def test_half_precision_layers_are_summed_in_float32():
    module = nn.Dense(1, dtype=jnp.float16, param_dtype=jnp.float16)
    params, x = {"kernel": jnp.ones((1, 1), jnp.float16)}, jnp.full((2, 1), 300.0, jnp.float16)
    sums = criteria.linen_inputs(linen_forward(module, {}))({**params, "bias": jnp.zeros(1)}, x)
    assert sums["kernel"].tolist() == [[180_000.0]]  # float16 ends at 65,504


class Net(nnx.Module):
    """The same as `Images`."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 6, (3, 2), strides=2, feature_group_count=2, rngs=rngs)
        self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
        self.dense = nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.conv(x)).mean((1, 2))
        dense = nnx.remat(lambda layer, x: layer(x))
        return dense(self.dense, nnx.relu(dense(self.dense, x)))


def test_nnx_inputs_agree_with_linen_inputs(images):
    module, variables = images
    model = Net(nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    nnx.replace_by_pure_dict(params, jax.tree.map(jnp.asarray, variables["params"]))
    inputs = criteria.nnx_inputs(lambda model, x: model(x), graphdef, rest)
    sums = jax.jit(inputs)(params, IMAGES)
    expected = jax.jit(criteria.linen_inputs(linen_forward(module, variables)))(
        variables["params"], IMAGES
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), sums, expected)
    assert type(model.dense) is nnx.Linear and not hasattr(model.dense, "recorded_inputs")


def test_embeddings_and_attention_are_read_too():
    class Text(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(4, 6, name="embed")(tokens)
            return nn.MultiHeadDotProductAttention(2, name="attention")(x)

    module = Text()
    variables = jax.jit(module.init)(jax.random.key(0), TOKENS)
    inputs = jax.jit(criteria.linen_inputs(linen_forward(module, variables)))
    sums = inputs(variables["params"], TOKENS)
    # One-hot inputs: the sum is how often each token occurs.
    assert sums["embed/embedding"][:, 0].tolist() == [2.0, 1.0, 3.0, 0.0]
    embedded = variables["params"]["embed"]["embedding"][TOKENS]
    squares = np.asarray((embedded**2).sum((0, 1)))
    np.testing.assert_allclose(
        sums["attention/query/kernel"],
        np.broadcast_to(squares[:, None, None], (6, 2, 3)),
        rtol=1e-5,
    )


def test_wanda_is_magnitude_times_the_norm_over_all_batches_in_the_masked_network():
    def forward(params, x, **kw):
        return nn.Sequential([nn.Dense(3), nn.Dense(2)]).apply({"params": params}, x, **kw)

    draw = np.random.default_rng(1)
    shapes = {"layers_0": (4, 3), "layers_1": (3, 2)}
    params = {
        name: {"kernel": jnp.asarray(draw.normal(size=s), jnp.float32), "bias": jnp.zeros(s[1])}
        for name, s in shapes.items()
    }
    mask = masks.ones_like(params)
    mask["layers_0"]["kernel"] = mask["layers_0"]["kernel"].at[:, 1].set(False)
    x = jnp.asarray(draw.normal(size=(5, 4)), jnp.float32)
    criterion = criteria.wanda(criteria.linen_inputs(forward))
    scores = jax.jit(lambda p, m: criterion(p, m, batches=[x[:2], x[2:]]))(params, mask)
    first = np.linalg.norm(x, axis=0)[:, None] * np.abs(params["layers_0"]["kernel"])
    np.testing.assert_allclose(scores["layers_0"]["kernel"][:, 0], first[:, 0], rtol=1e-5)
    hidden = np.asarray(x @ params["layers_0"]["kernel"]) * [1, 0, 1]
    second = np.linalg.norm(hidden, axis=0)[:, None] * np.abs(params["layers_1"]["kernel"])
    np.testing.assert_allclose(scores["layers_1"]["kernel"], second, rtol=1e-5)


def test_a_leaf_that_no_layer_reports_is_fed_by_ones():
    params = {"kernel": jnp.ones((2, 1)), "scale": jnp.array([-3.0])}
    inputs = lambda p, x: criteria.squared_inputs(  # noqa: E731
        lambda w, x: x @ w["kernel"], {"kernel": p["kernel"]}, x
    )
    scores = criteria.wanda(inputs)(params, masks.ones_like(params), batches=[jnp.ones((4, 2))])
    assert scores["scale"].tolist() == [3.0] and scores["kernel"].tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize(
    ("found", "words"), [({"params/w": jnp.ones(2)}, r"\['params/w'\]"), ({}, "none at all")]
)
def test_inputs_under_other_names_are_refused(found, words):
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=words):
        criteria.wanda(lambda p, b: found)(params, masks.ones_like(params), batches=[jnp.ones(1)])
