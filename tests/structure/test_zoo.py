"""Every family of networks of the house: its groups, and the proof that removing is masking."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from lth_jax import structure as st
from lth_jax.models import NETWORKS, from_linen, networks
from tests.thinning import sampled

IMAGES, VECTORS, SEQUENCES = (2, 8, 8, 2), (2, 6), (2, 4, 3)
BLOCK = {"width": 8, "layers": 1, "hidden": 10, "classes": 3}

# For each family: the shape of its data, small sizes, and the units of its groups.
ZOO = {
    "mlp": (VECTORS, {"features": (7, 5, 3)}, [7, 5]),
    "residual_mlp": (VECTORS, {"width": 6, "classes": 3}, [6]),
    "convnet": (IMAGES, {"stages": ((4,), (5,)), "hidden": (6,), "classes": 3}, [4, 5, 6]),
    "vgg": (IMAGES, {"stages": ((4,), (5,), (6,)), "classes": 3}, [4, 5, 6]),
    "resnet": (IMAGES, {"blocks": (1, 1), "width": 4, "classes": 3, "dropout": 0.2}, [4, 4, 8, 8]),
    "wide_resnet": (IMAGES, {"blocks": (1, 1), "width": 4, "classes": 3}, [4, 4, 8, 8]),
    "wide_resnet_group_norm": (IMAGES, {"blocks": (1, 1), "width": 4, "classes": 3}, [4, 4, 8, 8]),
    "rnn": (SEQUENCES, {"width": 5, "classes": 3}, [5]),
    "gru": (SEQUENCES, {"width": 5, "classes": 3}, [5]),
    "lstm": (SEQUENCES, {"width": 5, "layers": 2, "classes": 3}, [5, 5]),
    "transformer_encoder": (SEQUENCES, {**BLOCK, "heads": 2}, [8, 2, 10]),
    "transformer_decoder": (SEQUENCES, {**BLOCK, "heads": 2}, [8, 2, 10]),
    "vit": (IMAGES, {**BLOCK, "heads": 2}, [8, 2, 10]),
    "mixer": (IMAGES, {**BLOCK, "patch_hidden": 5}, [8, 5, 10]),
}


def network(name):
    """`(model, apply, x)`, with parameters and state as one tree."""
    shape, options, _ = ZOO[name]
    model = from_linen(NETWORKS[name](**options))
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), "float32")

    def apply(variables, x):
        return model.apply(variables["params"], variables["state"], x, train=False)[0]

    return model, apply, x


def variables_of(model, x):
    params, state = jax.jit(model.init)(jax.random.key(1), x)
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda v: np.asarray(v) + rng.uniform(0.1, 0.3, v.shape).astype(v.dtype),
        {"params": params, "state": state},
    )


@pytest.mark.parametrize("name", ZOO)
def test_groups_of_every_family(name):
    model, apply, x = network(name)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    found = st.find_groups(apply, {"params": params, "state": state}, x)
    assert found.unknown == () and found.unused == ()
    assert sorted(g.units for g in found.groups) == sorted(ZOO[name][2])
    inexact = [g.units for g in found.groups if not g.exact]
    # Tokens of the mixer share biases, which are there where a channel is masked.
    assert inexact == ([8] if name == "mixer" else [])


def test_no_family_is_left_out():
    made = {NETWORKS[name](**options).__class__ for name, (_, options, _) in ZOO.items()}
    assert {make().__class__ for make in networks._FAMILIES.values()} == made


@pytest.mark.parametrize("name", sampled(ZOO, 2))
def test_removed_is_masked_in_every_family(name, check):
    """In outputs and gradients, and after twenty steps of training.

    Running statistics train like parameters here; training mode has the next test to itself.
    """
    model, apply, x = network(name)
    check(apply, variables_of(model, x), x, atol=2e-4)


@pytest.mark.slow
def test_a_compact_residual_network_trains_as_the_masked_one():
    """Twenty steps of training mode: BatchNorm on its own batch, new statistics, dropout."""
    model, _, x = network("resnet")
    x = jnp.asarray(np.random.default_rng(5).normal(size=(8, *x.shape[1:])), "float32")
    labels = jnp.arange(8) % 3
    start = variables_of(model, x)

    def forward(variables, x, key):
        return model.apply(variables["params"], variables["state"], x, key=key, train=True)

    found = st.find_groups(forward, start, x, jax.random.key(0), pin_outputs=(True, False))
    units = {g.name: np.arange(g.units) % 2 == 0 for g in found.groups}
    optimizer = optax.sgd(0.05, momentum=0.9)
    mask = st.expand(found, units)

    def train(forward, variables, project):
        def step(carry, key):
            variables, opt_state = carry

            def loss(params):
                logits, state = forward({**variables, "params": params}, x, key)
                return optax.losses.softmax_cross_entropy_with_integer_labels(
                    logits, labels).mean(), state  # fmt: skip

            grads, state = jax.grad(loss, has_aux=True)(variables["params"])
            updates, opt_state = optimizer.update(project(grads), opt_state)
            params = optax.apply_updates(variables["params"], updates)
            return ({"params": params, "state": state}, opt_state), None

        carry = variables, optimizer.init(variables["params"])
        return jax.jit(lambda c: lax.scan(step, c, jax.random.split(jax.random.key(4), 20))[0][0])(
            carry
        )

    masked = jax.tree.map(lambda m, p: jnp.where(m, p, 0), mask, start)
    wide = train(forward, masked, lambda g: jax.tree.map(jnp.multiply, mask["params"], g))
    small, compact = st.compact(found, masked, units)
    narrow = train(compact, small, lambda g: g)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3),
        st.take(found, wide, units)["params"],
        narrow["params"],
    )
