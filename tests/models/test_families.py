"""One network of each family through the other rooms: curvature, ticket files, populations."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import coding, trees
from lth_jax.landscape import extremes, hessian
from lth_jax.models import compute_in, from_linen
from lth_jax.pruning import masks
from lth_jax.types import Batch
from tests.models.families import FAMILIES, family, fill
from tests.thinning import sampled

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def tiers(fast, but=(), every=1):
    """All families `but` some: some are `fast`, each `every`-th of the others is slow."""
    others = [n for n in FAMILIES if n not in (*fast, *but)]
    return pytest.mark.parametrize("name", [*fast, *sampled(others, every)])


def ticket(name):
    """`(model, params, state, x, mask)` of a random ticket of a family."""
    module, x = family(name)
    model = from_linen(module)
    params, state = fill(model, x)
    rng = np.random.default_rng(2)
    prunable = masks.prunable_leaves(params)
    mask = jax.tree.map(
        lambda p, may: jnp.asarray((rng.random(p.shape) < 0.5) | (not may)), params, prunable
    )
    return model, masks.apply_mask(mask, params), state, x, mask


@tiers(fast=(), every=3)
def test_the_top_of_the_spectrum_is_that_of_the_whole_matrix(name):
    model, params, state, x, mask = ticket(name)
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def loss(params, batch):
        out, _ = model.apply(params, state, batch.x, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(out, batch.y).mean()

    out = jax.eval_shape(lambda p: model.apply(p, state, x, train=False)[0], params)
    data = Batch(x, jnp.arange(int(np.prod(out.shape[:-1]))).reshape(out.shape[:-1]) % 4)
    found = extremes(hessian(loss, params, [data], mask=mask), jax.random.key(0), exact_below=0)
    whole = jax.jit(jax.hessian(lambda flat: loss(unravel(flat), data)), compiler_options=QUICK)
    kept = np.asarray(jax.flatten_util.ravel_pytree(mask)[0], bool)
    exact = np.linalg.eigvalsh(np.float64(whole(flat))[np.ix_(kept, kept)])
    assert found.converged
    np.testing.assert_allclose(found.largest[0], exact[-1], rtol=2e-3)
    assert exact[-1] > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_a_ticket_survives_its_file(name, tmp_path):
    _, params, _, _, mask = ticket(name)
    prunable = masks.prunable_leaves(params)
    coding.save(tmp_path / "one.ticket", mask, params, prunable=prunable)
    loaded = coding.load(tmp_path / "one.ticket")
    for ours, theirs in ((loaded.params, params), (loaded.mask, mask)):
        assert trees.names(ours) == trees.names(theirs)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@tiers(fast=(), every=2)
def test_members_agree_with_single_runs(name):
    model, params, state, x, _ = ticket(name)

    def gradient(params):
        def loss(params):
            out, new = model.apply(params, state, x, train=True)
            return (out**2).mean(), new

        return jax.grad(loss, has_aux=True)(params)

    members = [params, jax.tree.map(lambda p: 1.1 * p, params)]
    quick = functools.partial(jax.jit, compiler_options=QUICK)
    together = quick(jax.vmap(gradient))(trees.stack(members))
    alone = quick(gradient)
    for i, member in enumerate(members):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4),
            trees.index(together, i),
            alone(member),
        )


@tiers(fast=(), but=("residual_mlp",), every=2)  # the one that has no dropout
def test_members_drop_by_their_own_keys(name):
    module, x = family(name)
    model = from_linen(module.clone(dropout=0.5))
    params, state = fill(model, x)

    @functools.partial(jax.jit, compiler_options=QUICK)
    @jax.vmap
    def members(key):
        return model.apply(params, state, x, key=key, train=True)[0]

    keys = jax.random.split(jax.random.key(0), 3)
    out = members(keys)
    assert all(not np.allclose(out[i], out[i - 1]) for i in range(3))
    np.testing.assert_array_equal(members(keys), out)


@tiers(fast=("rnn",), but=("residual_mlp",))
def test_members_drop_at_their_own_rates(name):
    module, x = family(name)
    params, state = fill(from_linen(module), x)

    def say(rate):
        model = from_linen(module.clone(dropout=rate))
        return model.apply(params, state, x, key=jax.random.key(0), train=True)[0]

    rates = (0.1, 0.6)
    together = jax.jit(jax.vmap(say), compiler_options=QUICK)(jnp.array(rates))
    for out, rate in zip(together, rates, strict=True):
        alone = jax.jit(lambda rate=rate: say(rate), compiler_options=QUICK)()
        np.testing.assert_allclose(out, alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_computes_in_either_type(name, dtype):
    """Under strict promotion in float32; flax's own normalisations promote bfloat16 themselves."""
    module, x = family(name)
    model = compute_in(from_linen(module), dtype)
    with jax.numpy_dtype_promotion("strict" if dtype == jnp.float32 else "standard"):
        params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        out, after = jax.eval_shape(
            functools.partial(model.apply, x=x, key=jax.random.key(1), train=True), params, state
        )
    assert out.dtype == jnp.float32
    trees.check_same_structure("after", after, "state", state)
