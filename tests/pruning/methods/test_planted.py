"""Every method finds a ticket that was planted, where random masks do not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.pruning import masks, scopes
from lth_jax.pruning.methods import METHODS, Inputs
from tests.pruning.methods.problem import run
from tests.thinning import thinned

SEEDS, SHAPE, KEPT, STEPS = 4, (16, 8), 32, 400
NAMES = sorted(METHODS)


def planted(seed):
    """Weights, and a ticket in them: the target is the weights under the ticket's mask."""
    to_weights, to_mask = jax.random.split(jax.random.key(seed))
    weights = {"kernel": jax.random.normal(to_weights, SHAPE)}
    ticket = jax.random.permutation(to_mask, jnp.arange(128) < KEPT).reshape(SHAPE)
    return weights, {"kernel": ticket}


def trained(name, seed):
    """The share of the ticket in the final mask, its density, and the loss against a random mask's.

    The loss of linear regression on white inputs is the squared distance to the target. Training
    inside a random mask of density d leaves the weights of the ticket outside it: (1 − d) of the
    target's squared norm on average.
    """
    weights, ticket = planted(seed)
    target = masks.apply_mask(ticket, weights)
    method = METHODS[name](prunable={"kernel": True}, scope=scopes.globally(), steps=STEPS)
    noise = jax.random.key(99)

    def grads_of(params, step):
        """The gradient on a batch: of the expected loss, and noise."""
        batch = jax.random.normal(jax.random.fold_in(noise, step), SHAPE)
        return {"kernel": params["kernel"] - target["kernel"] + 0.1 * batch}

    shuffled = masks.shuffle(jax.random.key(seed + 50), ticket, prunable={"kernel": True})
    ones = masks.ones_like(ticket)
    start = ticket if name in ("static", "frozen") else ones if method.starts_dense else shuffled
    inputs = Inputs(start, jnp.int32(KEPT), jax.random.key(seed))
    (params, state), _ = run(method, optax.adam(0.02), inputs, STEPS, weights, grads_of)
    final, mask = method.final(params, state)
    density = jnp.mean(mask["kernel"])
    loss = jnp.sum((final["kernel"] - target["kernel"]) ** 2)
    recall = jnp.sum(mask["kernel"] & ticket["kernel"]) / KEPT
    return recall, density, loss / ((1 - density) * jnp.sum(target["kernel"] ** 2))


@pytest.mark.parametrize("name", thinned(NAMES[::-1], len(NAMES)))
def test_methods_find_the_planted_ticket(name):
    recall, density, loss = jax.jit(jax.vmap(lambda seed: trained(name, seed)))(jnp.arange(SEEDS))
    assert np.all(density < 0.7)
    assert np.all(recall > density + 0.2)
    assert np.mean(loss) < 0.5
