"""A ladder from a root key of any implementation, whatever JAX's default is."""

import jax
import numpy as np
import optax
import pytest

from lth_jax import keys
from lth_jax.lottery import Hooks, check_ladder, make_experiment, run_ladder
from lth_jax.models import MLP, from_linen
from lth_jax.schema import read_record
from lth_jax.store import Store
from tests.lottery.test_ladder import PLANS, by_arm, check_same_arrays, make_ladder, make_setup


def setup_of(root):
    """Networks with dropout, whose noise also comes from the members' keys."""
    setup = make_setup()
    model = from_linen(MLP((6, 2), dropout=0.3))
    return setup.with_seeds(root=root).with_trainer(model=model)


def run(folder, root, **options):
    setup = setup_of(root)
    ladder = make_ladder(setup, densities=(1.0,), controls=("shuffle", "reinit"))
    [entries] = run_ladder(
        [make_experiment(*setup, ladder)], store=Store(folder), plans=PLANS, **options
    )
    return [read_record(Store(folder), entry.key) for entry in entries]


def same(nodes, others):
    for node, other in zip(nodes, others, strict=True):
        check_same_arrays(node, other)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("impl", ["rbg", pytest.param("unsafe_rbg", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_ladder_climbs_from_any_root(tmp_path, impl):
    root = jax.random.key(5, impl=impl)
    nodes = run(tmp_path / "at once", root)
    arms = by_arm(nodes, 1)
    for replicate in range(2):
        # At density 1 the shuffled ticket is the ticket: it saw the same batches and dropout.
        ticket, shuffled, redrawn = (
            arms[arm][replicate]["end"]["params"] for arm in ("ticket", "shuffle", "reinit")
        )
        for name, value in ticket.items():
            np.testing.assert_allclose(value, shuffled[name], atol=1e-6)
        assert (ticket["Dense_0/kernel"] != redrawn["Dense_0/kernel"]).any()
    kernels = [arms["ticket"][i]["end"]["params"]["Dense_0/kernel"] for i in range(2)]
    assert (kernels[0] != kernels[1]).any()

    reported = []

    def stop(progress):
        reported.append(progress)
        if len(reported) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run(tmp_path / "resumed", root, hooks=Hooks(on_progress=stop), save_seconds=0)
    same(nodes, run(tmp_path / "resumed", root))


@pytest.mark.slow
def test_the_default_implementation_decides_no_number(tmp_path):
    nodes = run(tmp_path / "threefry", keys.from_seed(5))
    with jax.default_prng_impl("rbg"):
        same(nodes, run(tmp_path / "rbg", keys.from_seed(5)))


def test_keys_in_an_optimizers_state_keep_their_implementation():
    state = optax.EmptyState(), jax.random.split(jax.random.key(1, impl="rbg"), 2)
    found = keys.from_data(keys.to_data(state), jax.eval_shape(lambda tree: tree, state))
    assert found[1].dtype == state[1].dtype
    np.testing.assert_array_equal(*map(jax.random.key_data, (found[1], state[1])))


def test_raw_keys_are_refused_in_one_sentence():
    setup = make_setup()
    ladder = make_ladder(setup)
    with pytest.raises(TypeError, match=r"^`root` must be a typed key \(jax.random.key\), not"):
        check_ladder(setup.seeds._replace(root=jax.random.PRNGKey(0)), ladder)
