"""Levels whose tickets are reconstructed: weights and masks are those of the library's methods."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lth_jax as lth
from lth_jax import lottery
from lth_jax.lottery import arms_programs, check_ladder, make_ladder
from lth_jax.population import Plan
from lth_jax.pruning.masks import apply_mask
from lth_jax.reconstruct import Reconstruction, magnitude, prune, refit, sparse_gpt
from lth_jax.store import fingerprint

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(80, 6)) @ RNG.normal(size=(6, 6))).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
CALIBRATION = [(X[:30], Y[:30]), (X[30:60], Y[30:60])]


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.relu(nn.Dense(5)(x)))


def task(rate):
    """At the rate 0 networks end where they start."""
    return lottery.Task(Net(), (X, Y), optimizer=optax.sgd(rate), batch_size=8, steps=4)


def spec(reconstruct, levels=1, **changes):
    changes = {"scope": lth.layerwise(), "batches": CALIBRATION, **changes}
    return lottery.imp(levels, 0.5, reconstruct=reconstruct, **changes)


def ends(reconstruct, levels=1):
    """Trees of the dense networks, and of the tickets of each level with their masks."""
    found = lottery.run(
        task(0.0), spec(reconstruct, levels), replicates=2, plan=Plan(2), progress=False
    )
    dense = [found.as_tree(start.params) for start in found.starts(0, arm="dense")]
    tickets = [found.tickets(level) for level in range(1, levels + 1)]
    return dense, [[(one.trained, one.mask) for one in each] for each in tickets]


def apply(params, x):
    return Net().apply({"params": params}, x)


INPUTS = [x for x, _ in CALIBRATION]


@pytest.mark.slow
def test_tickets_start_from_the_weights_that_the_method_fits():
    dense, [tickets] = ends(Reconstruction(refit()))
    for params, (fitted, mask) in zip(dense, tickets, strict=True):
        known, _, _ = prune(apply, params, INPUTS, method=refit(), mask=mask)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), fitted, known)
        assert not np.allclose(
            fitted["Dense_1"]["kernel"], apply_mask(mask, params)["Dense_1"]["kernel"]
        )


@pytest.mark.slow
def test_the_method_chooses_the_mask_and_the_ticket_is_rewound():
    dense, [first, second] = ends(Reconstruction(sparse_gpt(), "method", "rewound"), levels=2)
    for params, (start, mask), (_, later) in zip(dense, first, second, strict=True):
        _, known, _ = prune(apply, params, INPUTS, method=sparse_gpt(), density=0.5)
        jax.tree.map(np.testing.assert_array_equal, mask, known)
        jax.tree.map(np.testing.assert_array_equal, start, apply_mask(mask, params))
        kept = [
            [int(tree[name]["kernel"].sum()) for name in sorted(tree)] for tree in (mask, later)
        ]
        assert kept == [[5, 15], [3, 8]]  # half of 10 and 30, and a fourth, halves up
        for name in mask:
            assert not (np.asarray(later[name]["kernel"]) & ~np.asarray(mask[name]["kernel"])).any()


@pytest.mark.slow
def test_the_method_chooses_among_live_weights_only():
    params, x = {"w": jnp.array([[3.0], [2.0], [1.0]])}, jnp.eye(3)
    live = {"w": jnp.array([[False], [True], [True]])}  # an update has revived the first
    mask = {"w": jnp.array([[False], [False], [True]])}
    run = Reconstruction(magnitude(), "method")
    new, chosen, _ = run(lambda p, x: x @ p["w"], params, mask, live, [x], {"w": True})
    assert chosen["w"].ravel().tolist() == [False, True, False]
    assert new["w"].ravel().tolist() == [0.0, 2.0, 0.0]


def programs(reconstruct, batches=CALIBRATION):
    """The fingerprints of the ticket's program and of the calibration data."""
    own = task(0.1)
    ladder = make_ladder(own, spec(reconstruct, batches=batches))
    arms = arms_programs(own, ladder, jax.random.key(0))
    return arms["ticket"], fingerprint(ladder.batches)


def test_method_and_calibration_data_are_in_the_key():
    one, other = Reconstruction(refit()), [(x + 1, y) for x, y in CALIBRATION]
    found = [programs(each) for each in (None, one, Reconstruction(refit(damping=0.1)))]
    assert len({ticket for ticket, _ in found}) == 3
    assert programs(one, other)[0] == found[1][0]
    assert programs(one, other)[1] != found[1][1]


@pytest.mark.parametrize(
    ("reconstruct", "changes", "words"),
    [
        (Reconstruction(refit(), "method"), {"batches": None}, "`batches` is None"),
        (Reconstruction(refit()), {"batches": INPUTS}, "`[(x, None) for x in batches]`"),
        (Reconstruction(refit(), "criterion", "rewound"), {}, "changes nothing"),
        (Reconstruction(refit(), "methods"), {}, "did you mean 'method'"),
        (Reconstruction(refit), {}, "call it: `refit()`"),
        (Reconstruction(refit(damping=0)), {}, "`damping` 0"),
        (Reconstruction(refit()), {"batches": [(INPUTS[0] * jnp.nan, None)]}, "NaN or infinite"),
        (
            Reconstruction(refit(), "method"),
            {"granularity": lth.granularity.n_m(1, 2)},
            "chooses single weights",
        ),
    ],
)
def test_bad_arguments_are_named(reconstruct, changes, words):
    with pytest.raises((ValueError, TypeError)) as error:
        ladder = make_ladder(task(0.1), spec(reconstruct, **changes))
        check_ladder(lottery.Seeds(jax.random.key(0), 2), ladder)
    assert words in str(error.value)


def test_damping_that_leaves_a_singular_matrix_singular_is_refused_before_training():
    own, seeds = task(0.1), lottery.Seeds(jax.random.key(0), 2)
    with pytest.raises(ValueError, match=r"`damping` 1e-08.*6 inputs of 'Dense_1/kernel'.*above"):
        lottery.make_experiment(
            own, seeds, make_ladder(own, spec(Reconstruction(refit(damping=1e-8))))
        )


class Experts(nn.Module):
    """Two experts, of which each reads some channels of the rows."""

    @nn.compact
    def __call__(self, x):
        w = self.param("experts", nn.initializers.normal(), (2, 3, 2))
        return jnp.einsum("bei,eio->beo", x.reshape(len(x), 2, 3), w).sum(1)


@pytest.mark.slow
def test_a_replicate_that_cannot_be_fitted_has_a_reason(caplog):
    x = X.copy()
    x[2:, 3:] = 0  # the second expert gets two rows
    own = lottery.Task(Experts(), (x, Y), optimizer=optax.sgd(0.1), batch_size=8, steps=4)
    batches = [(x[:30], Y[:30])]
    found = lottery.run(
        own,
        spec(Reconstruction(refit()), batches=batches),
        replicates=2,
        plan=Plan(2),
        progress=False,
    )
    assert "`reconstruct` cannot fit 'experts': no inputs other than 0, or an expert" in caplog.text
    [level] = [one for one in found.record.levels if one.level == 1]
    assert [one.unscored.leaves for one in level.members] == [["experts"]] * 2
    assert "give more calibration examples" in level.members[0].unscored.sentence


def test_flags_are_those_of_the_layers():
    params, mask = {"w": jnp.ones((2, 3, 2))}, {"w": jnp.ones((2, 3, 2), bool)}
    run = Reconstruction(refit())

    def flags(x):
        f = lambda p, x: jnp.einsum("bei,eio->beo", x, p["w"])  # noqa: E731
        info = run(f, params, mask, mask, [x], {"w": True})[2]
        return run.reasons(info, ["w"])

    x = jax.random.normal(jax.random.key(0), (9, 2, 3))
    assert flags(x) == {}
    assert "fewer rows" in flags(x.at[2:, 1].set(0))["w"]
    assert "NaN" in run.reasons({"few_rows": [False], "not_fitted": [True]}, ["w"])["w"]
