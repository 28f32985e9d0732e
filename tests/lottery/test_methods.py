"""Every method through populations, ladders, controls and the store; its mask as a ticket."""

import functools

import jax
import numpy as np
import optax
import pytest

from lth_jax import lottery, schema, trees
from lth_jax.lottery import Hooks, Seeds, Task, make_experiment, make_ladder, run_ladder
from lth_jax.models import MLP
from lth_jax.population import Plan
from lth_jax.pruning import criteria, methods
from lth_jax.store import Interrupted, Store
from tests.foreign import NETWORKS
from tests.foreign import data as foreign_data
from tests.thinning import sampled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
TASK = Task(
    MLP((6, 2)),
    (X, (X[:, 0] > 0).astype(int)),
    optimizer=optax.sgd(0.1, momentum=0.9),
    batch_size=4,
    steps=12,
    eval_every=3,
)
DENSITY, SEEDS = 0.4, Seeds(jax.random.key(5), 2)


def experiment_of(name, controls=(), retrain=True, **changes):
    spec = lottery.sparse_training(methods.METHODS[name], DENSITY, retrain=retrain, **changes)
    levels = [2] if retrain else None
    return make_experiment(TASK, SEEDS, make_ladder(TASK, spec, controls, levels))


def nodes(folder, experiment, plan=2, **options):
    store = Store(folder)
    [entries] = run_ladder([experiment], store=store, plans=[(0, Plan(plan))], **options)
    found = {}
    for node in [schema.read_record(store, entry.key) for entry in entries]:
        points = {name: point._asdict() for name, point in node.points.items()}
        for i, member in enumerate(node.facts.members):
            place = (node.facts.level, member.arm, member.replicate)
            parts = {"mask": node.mask, "results": node.results} | points
            found[place] = trees.index(parts, i)
    return found


# Each method beside members trained alone: three side by side, or in chunks of two, of which the
# second is padded. Each framework has both.
FRAMEWORKS = sorted(NETWORKS)
ROWS = [
    (name, FRAMEWORKS[i % len(FRAMEWORKS)], 2 + i % 2)
    for i, name in enumerate(sorted(methods.METHODS))
]


@functools.cache
def foreign_task(framework):
    """One task for all methods, so that they share compiled functions."""
    changes = {"batch_size": 8, "steps": 6, "eval_every": 3}
    return Task(
        NETWORKS[framework](), foreign_data(), optimizer=optax.sgd(0.1, momentum=0.9), **changes
    )


@pytest.mark.parametrize(
    ("name", "framework", "chunk"),
    sampled(ROWS, 5),
)
def test_a_method_in_a_population_ends_with_tickets(tmp_path, name, framework, chunk):
    task, seeds = foreign_task(framework), Seeds(jax.random.key(5), 3)
    spec = lottery.sparse_training(methods.METHODS[name], DENSITY, retrain=True)
    ladder = make_ladder(task, spec, ("shuffle",), [2])
    experiment = make_experiment(task, seeds, ladder)
    found = nodes(tmp_path, experiment, plan=chunk)
    prunable = trees.to_named(ladder.prunable)
    for replicate in range(seeds.replicates):
        moved, kept = found[1, "ticket", replicate], found[2, "ticket", replicate]
        for leaf, mask in moved["mask"].items():
            assert mask.all() or prunable[leaf]
            assert not moved["end"]["params"][leaf][~mask].any()
            assert not kept["end"]["params"][leaf][~mask].any()
            np.testing.assert_array_equal(mask, kept["mask"][leaf])
        sizes = {leaf: mask.sum() for leaf, mask in moved["mask"].items() if prunable[leaf]}
        if ladder.methods[1].exact:
            total = sum(moved["mask"][leaf].size for leaf in sizes)
            assert sum(sizes.values()) <= round(DENSITY * total) + 1
        shuffled = found[2, "shuffle", replicate]["mask"]
        assert {leaf: shuffled[leaf].sum() for leaf in sizes} == sizes
        assert np.isfinite(kept["results"]["test_loss_final"])
    alone = nodes(tmp_path / "alone", experiment, plan=1)
    for place, member in found.items():
        jax.tree.map(np.testing.assert_array_equal, member["mask"], alone[place]["mask"])


@pytest.mark.slow
def test_a_method_cut_off_continues_to_the_same_bits(tmp_path):
    whole = nodes(tmp_path / "whole", experiment_of("sparse_evolution", retrain=False))
    left = [5]

    def stop(progress):
        left[0] -= 1
        if not left[0]:
            raise Interrupted(15)

    experiment = experiment_of("sparse_evolution", retrain=False)
    with pytest.raises(Interrupted):
        nodes(tmp_path / "cut", experiment, hooks=Hooks(on_progress=stop), save_seconds=0)
    again = nodes(tmp_path / "cut", experiment)
    jax.tree.map(np.testing.assert_array_equal, whole, again)


@pytest.mark.slow
def test_a_static_method_has_the_numbers_of_no_method(tmp_path):
    spec = lottery.Spec([DENSITY], criterion=criteria.magnitude())
    plain = make_experiment(TASK, SEEDS, make_ladder(TASK, spec))
    ladder = plain.ladder._replace(methods={1: methods.static(**options_of(plain.ladder))})
    by_method = make_experiment(TASK, SEEDS, ladder)
    found = nodes(tmp_path, plain), nodes(tmp_path, by_method)
    for place, member in found[0].items():
        jax.tree.map(np.testing.assert_array_equal, member["mask"], found[1][place]["mask"])
        jax.tree.map(
            np.testing.assert_array_equal,
            member["end"]["params"],
            found[1][place]["end"]["params"],
        )


@pytest.mark.slow
def test_frozen_tickets_and_their_signs_are_not_trained(tmp_path):
    spec = lottery.Spec([DENSITY], criterion=criteria.magnitude())
    plain = make_experiment(TASK, SEEDS, make_ladder(TASK, spec, lottery.named(["signs"])))
    ladder = plain.ladder._replace(methods={1: methods.frozen(**options_of(plain.ladder))})
    frozen = make_experiment(TASK, SEEDS, ladder)
    found = nodes(tmp_path, frozen)
    for replicate in range(SEEDS.replicates):
        ticket, signs = (found[1, arm, replicate] for arm in ("ticket", "signs"))
        for leaf, w in found[0, "dense", replicate]["rewound"]["params"].items():
            mask = ticket["mask"][leaf]
            np.testing.assert_array_equal(ticket["end"]["params"][leaf], w * mask)
            constant = np.sign(w) * np.std(w) if "kernel" in leaf else w
            np.testing.assert_allclose(signs["end"]["params"][leaf], constant * mask, rtol=1e-5)
            np.testing.assert_array_equal(signs["mask"][leaf], mask)


def options_of(ladder):
    return {"prunable": ladder.prunable, "layouts": ladder.layouts, "scope": None, "steps": 12}


@pytest.mark.slow
def test_methods_have_keys_of_their_own(tmp_path):
    keys = {
        name: experiment_of(name).identity.methods["1"]["training"] for name in ("rigl", "gradual")
    }
    assert len(set(keys.values())) == 2
    assert experiment_of("rigl").identity.methods["1"]["training"] == keys["rigl"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {3: None}}, "`methods` includes level 3; the ladder has levels 1 to 2"),
        ({"score_step": 6}, "`score_step` is 6; with `methods` it must be the last step, 12"),
        (
            {"rewind": lottery.Rewind(optimizer="keep")},
            "`rewind.optimizer` is 'keep'; with `methods`",
        ),
    ],
)
def test_ladders_that_cannot_have_methods_are_refused(changes, message):
    ladder = experiment_of("rigl").ladder._replace(**changes)
    with pytest.raises(ValueError, match=message):
        lottery.check_ladder(SEEDS, ladder)


@pytest.mark.slow
def test_a_method_is_run_like_any_spec():
    spec = lottery.sparse_training(methods.METHODS["gradual"], DENSITY, retrain=True)
    result = lottery.run(TASK, spec, replicates=2, plan=Plan(2), progress=False)
    assert result.ticket(2, 1).density == pytest.approx(DENSITY, abs=0.02)
    assert "undecided_events" in result.metrics
