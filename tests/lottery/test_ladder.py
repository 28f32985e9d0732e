"""The ladder on a tiny problem: starts of the arms, shared networks, continuation after a stop."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import schema, trees
from lth_jax.data import indices
from lth_jax.keys import derive
from lth_jax.lottery import (
    Hooks,
    Ladder,
    Rewind,
    Seeds,
    Splits,
    Task,
    check_ladder,
    level_sizes,
    make_experiment,
    named,
    node_training,
    run_ladder,
)
from lth_jax.models import MLP, from_linen
from lth_jax.population import OnHost, Plan, Trainer, correct, cross_entropy
from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.prune import prune
from lth_jax.store import Interrupted, SaveTimer, Store
from lth_jax.types import Batch
from tests.lottery.setups import Setup
from tests.thinning import thinned

R, STOP, EVERY = 2, 6, 3
CONTROLS = ("reinit", "shuffle", "random")
PLANS = [(0, Plan(2))]


def examples(seed, n):
    x = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
    return Batch(jnp.asarray(x), jnp.asarray((x[:, 0] > 0).astype(np.int32)))


def make_setup(rate=1e-2, traces=None, replicates=R):
    def loss(out, y):
        if traces is not None:
            traces.append(out.shape)
        return cross_entropy(out, y)

    trainer = Trainer(
        model=from_linen(MLP((6, 2))),
        make_optimizer=lambda h: optax.sgd(h["learning_rate"], momentum=0.9),
        loss=loss,
        metrics={"loss": cross_entropy, "accuracy": correct},
        schedule=optax.constant_schedule(1.0),
        order=lambda key, step, n: indices(key, step, steps=n, batch_size=4, size=24),
        eval_every=EVERY,
    )
    data = Splits(examples(0, 24), examples(1, 10), examples(2, 10))
    task = Task.from_parts(trainer, data, {"learning_rate": rate}, STOP)
    return Setup(task, Seeds(jax.random.key(5), replicates))


def make_ladder(setup, densities=(0.5, 0.25), scope=None, **changes):
    scope = scope or scopes.layerwise()
    params, _ = setup.task.shapes
    prunable = masks.prunable_leaves(params)
    ladder = Ladder(
        counts=[scope.counts(params, d, prunable=prunable) for d in densities],
        pruner=prune(criteria.magnitude(), scope),
        prunable=prunable,
        rewind=Rewind(),
        controls={},
        stop=STOP,
        score_step=STOP,
    )
    changes["controls"] = named(changes.get("controls", CONTROLS))
    return ladder._replace(**changes)


def run(folder, setup, ladder, plans=PLANS, **options):
    store = Store(folder)
    [entries] = run_ladder([make_experiment(*setup, ladder)], store=store, plans=plans, **options)
    return entries, [schema.read_record(store, entry.key) for entry in entries]


def check_same_arrays(node, other):
    parts = [one._replace(facts=()) for one in (node, other)]
    jax.tree.map(np.testing.assert_array_equal, *parts)


def by_arm(nodes, level):
    """`{arm: {replicate: (arrays of this member)}}` of one level."""
    found = {}
    for node in nodes:
        if node.facts.level == level:
            points = {name: point._asdict() for name, point in node.points.items()}
            parts = {"mask": node.mask, "results": node.results, **points}
            for i, member in enumerate(node.facts.members):
                found.setdefault(member.arm, {})[member.replicate] = trees.index(parts, i)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A ladder climbed without interruption, and how often its loss was traced."""
    traces = []
    setup = make_setup(traces=traces)
    folder = tmp_path_factory.mktemp("store")
    entries, nodes = run(folder, setup, make_ladder(setup))
    return folder, entries, nodes, traces


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """The same ladder at learning rate 0: where members end is where they started."""
    setup = make_setup(rate=0.0)
    return run(tmp_path_factory.mktemp("still"), setup, make_ladder(setup))[1]


def test_the_whole_ladder_compiles_its_training_program_once(trained):
    *_, traces = trained
    # Once for the key, once for one program: dense parents, tickets and controls of all levels.
    assert len(traces) == 2


def test_counts_are_exact_and_masks_are_nested(trained):
    *_, nodes, _ = trained
    before = by_arm(nodes, 0)["dense"]
    for level, density in ((1, 0.5), (2, 0.25)):
        arms = by_arm(nodes, level)
        for members in arms.values():
            for member in members.values():
                kept = sum(member["mask"][f"Dense_{i}/kernel"].sum() for i in range(2))
                assert kept == round(30 * density) + round(12 * density)
        for replicate, member in arms["ticket"].items():
            for name, mask in member["mask"].items():
                assert not (mask & ~before[replicate]["mask"][name]).any()
        before = arms["ticket"]


def test_a_ticket_keeps_its_parents_largest_weights(trained):
    *_, nodes, _ = trained
    parent = by_arm(nodes, 0)["dense"][0]["end"]["params"]["Dense_0/kernel"]
    mask = by_arm(nodes, 1)["ticket"][0]["mask"]["Dense_0/kernel"]
    assert np.abs(parent[mask]).min() >= np.abs(parent[~mask]).max()


def test_every_arm_starts_where_it_should(still):
    dense = by_arm(still, 0)["dense"]
    for level in (1, 2):
        arms = by_arm(still, level)
        for r in range(R):
            initial = dense[r]["rewound"]["params"]
            for arm in ("ticket", "shuffle", "random"):
                member = arms[arm][r]
                for name, value in member["end"]["params"].items():
                    np.testing.assert_array_equal(value, initial[name] * member["mask"][name])
            ticket, reinit = arms["ticket"][r], arms["reinit"][r]
            kernel, mask = (
                reinit["end"]["params"]["Dense_0/kernel"],
                ticket["mask"]["Dense_0/kernel"],
            )
            np.testing.assert_array_equal(reinit["mask"]["Dense_0/kernel"], mask)
            np.testing.assert_array_equal(kernel != 0, mask)
            assert not np.isin(kernel[mask], initial["Dense_0/kernel"]).any()


def test_no_control_is_a_silent_no_op(still):
    for level in (1, 2):
        arms = by_arm(still, level)
        for r in range(R):
            ticket = arms["ticket"][r]
            for arm in ("shuffle", "random"):
                assert any((arms[arm][r]["mask"][n] != m).any() for n, m in ticket["mask"].items())
            shuffled = arms["shuffle"][r]["mask"]
            assert [m.sum() for m in shuffled.values()] == [
                m.sum() for m in ticket["mask"].values()
            ]
        first, second = arms["random"][0]["mask"], arms["random"][1]["mask"]
        assert any((first[n] != second[n]).any() for n in first)


def test_a_random_mask_moves_weights_between_layers(tmp_path):
    setup = make_setup(rate=0.0)
    _, nodes = run(tmp_path, setup, make_ladder(setup, densities=(0.3,), controls=("random",)))
    arms = by_arm(nodes, 1)
    counts = [
        [arms[arm][r]["mask"][f"Dense_{i}/kernel"].sum() for i in range(2)]
        for arm in ("ticket", "random")
        for r in range(R)
    ]
    assert len({sum(c) for c in counts}) == 1 and len({tuple(c) for c in counts}) > 1


@pytest.mark.slow
def test_a_ticket_and_its_controls_see_the_same_batches(trained):
    # In the first batch of level 1 the loss of ticket and shuffle differ, their data must not:
    # a control that is made equal to its ticket trains to the same numbers.
    folder, *_ = trained
    setup = make_setup()
    ladder = make_ladder(setup, densities=(1.0,), controls=("shuffle",))
    arms = by_arm(run(folder, setup, ladder)[1], 1)
    for r in range(R):
        for name, value in arms["ticket"][r]["end"]["params"].items():
            np.testing.assert_allclose(value, arms["shuffle"][r]["end"]["params"][name], atol=1e-6)


def test_a_finished_ladder_is_read_not_trained(trained):
    folder, entries, *_ = trained
    setup = make_setup()
    reported = []
    again, _ = run(folder, setup, make_ladder(setup), hooks=Hooks(on_progress=reported.append))
    assert again == entries and reported == []


def test_a_longer_ladder_shares_its_trunk_and_first_levels(trained):
    folder, entries, *_ = trained
    setup = make_setup()
    reported = []
    ladder = make_ladder(setup, densities=(0.5, 0.25, 0.125))
    longer, _ = run(folder, setup, ladder, hooks=Hooks(on_progress=reported.append))
    assert longer[: len(entries)] == entries
    assert {progress.level for progress in reported} == {3}


class Killed(Exception):
    """Leaves the ladder as a kill does: nothing is saved on the way out."""


@pytest.mark.parametrize(
    ("after", "error", "most"),
    thinned([(4, Killed, 1), (1, Killed, 1), (9, Killed, 1), (4, Interrupted(15), 0)], 3),
)
def test_a_ladder_cut_off_anywhere_continues_to_the_same_bits(
    trained, tmp_path, after, error, most
):
    _, entries, nodes, _ = trained
    setup = make_setup()
    ladder = make_ladder(setup)
    reported = []

    def stop(progress):
        reported.append(progress)
        if len(reported) == after:
            raise error

    # A stop on request is saved on the way out, whatever the time; a kill is not.
    seconds = 0 if error is Killed else 1e9
    with pytest.raises(Killed if error is Killed else Interrupted):
        run(tmp_path, setup, ladder, hooks=Hooks(on_progress=stop), save_seconds=seconds)
    again = []
    resumed, same = run(tmp_path, setup, ladder, hooks=Hooks(on_progress=again.append))
    assert resumed == entries
    for node, other in zip(nodes, same, strict=True):
        check_same_arrays(node, other)
    repeated = len(reported) + len(again) - 2 * (1 + 4 + 4)
    assert 0 <= repeated <= most


@pytest.mark.parametrize(("seconds", "repeated"), thinned([(7, 2), (5, 1)], 2))
@pytest.mark.slow
def test_a_kill_repeats_what_the_clock_allows(trained, tmp_path, monkeypatch, seconds, repeated):
    setup, reported, again = make_setup(), [], []
    ladder = make_ladder(setup)
    clock = itertools.count(0, 3).__next__  # a node is two segments of 3 seconds
    monkeypatch.setattr(node_training, "SaveTimer", functools.partial(SaveTimer, clock=clock))

    def kill(progress):
        reported.append(progress)
        if len(reported) == 4:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, setup, ladder, hooks=Hooks(on_progress=kill), save_seconds=seconds)
    _, same = run(tmp_path, setup, ladder, hooks=Hooks(on_progress=again.append))
    assert len(reported) + len(again) == 2 * (1 + 4 + 4) + repeated
    for node, other in zip(trained[2], same, strict=True):
        check_same_arrays(node, other)


@pytest.mark.slow
def test_a_stop_within_a_streamed_evaluation_trains_nothing_twice(trained, tmp_path):
    setup, reported, again = make_setup(), [], []
    train = OnHost(*jax.tree.map(np.asarray, setup.task.data.train))
    setup = setup.with_task(data=setup.task.data._replace(train=train))
    ladder = make_ladder(setup)

    def stop():
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        hooks = Hooks(on_progress=reported.append, on_block=stop)
        run(tmp_path, setup, ladder, hooks=hooks, save_seconds=1e9)
    _, nodes = run(tmp_path, setup, ladder, hooks=Hooks(on_progress=again.append))
    assert len(reported) == 2 and len(reported) + len(again) == 2 * (1 + 4 + 4)
    for node, other in zip(trained[2], nodes, strict=True):
        jax.tree.map(np.testing.assert_array_equal, node.mask, other.mask)


@pytest.mark.slow
def test_out_of_memory_restarts_the_level_at_half_the_chunk(trained, tmp_path):
    setup = make_setup()
    replans, failures = [], []

    def fail_once(progress):
        if progress.level == 1 and not failures:
            failures.append(progress)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    hooks = Hooks(
        on_progress=fail_once, on_replan=lambda level, plan: replans.append((level, plan))
    )
    entries, _ = run(tmp_path, setup, make_ladder(setup), hooks=hooks)
    assert replans == [(1, Plan(1))]
    assert [entry.level for entry in entries] == [0] + [1] * 8 + [2] * 8
    recorded, _ = run(tmp_path, setup, make_ladder(setup), plans=[*PLANS, *replans])
    assert recorded == entries


@pytest.mark.parametrize("what", ["learning_rate", "nothing"])
@pytest.mark.slow
def test_weights_that_are_not_rewound_stay_as_trained(tmp_path, what):
    # The learning rate falls to 0 at step 3, so members that start behind it do not change.
    setup = make_setup()
    schedule = optax.piecewise_constant_schedule(1.0, {2: 0.0})
    setup = setup.with_trainer(schedule=schedule)
    ladder = make_ladder(
        setup, densities=(0.5,), controls=("shuffle",), rewind=Rewind(what, step=3)
    )
    _, nodes = run(tmp_path, setup, ladder)
    for r in range(R):
        trunk = by_arm(nodes, 0)["dense"][r]
        ticket, control = (by_arm(nodes, 1)[arm][r] for arm in ("ticket", "shuffle"))
        for name, value in trunk["end"]["params"].items():
            np.testing.assert_array_equal(value, trunk["rewound"]["params"][name])
            for member in (ticket, control):
                expected = value * member["mask"][name]
                np.testing.assert_array_equal(member["end"]["params"][name], expected)


def test_rewinding_to_a_later_step_takes_the_weights_from_there(tmp_path):
    setup = make_setup()
    schedule = optax.piecewise_constant_schedule(1.0, {2: 0.0})
    setup = setup.with_trainer(schedule=schedule)
    rewind = Rewind(step=2, optimizer="rewind", data="rewind")
    ladder = make_ladder(setup, densities=(0.5,), controls=(), rewind=rewind)
    _, nodes = run(tmp_path, setup, ladder)
    assert nodes[0].eval_steps.tolist() == [2, 3, 6]
    for r in range(R):
        trunk, ticket = by_arm(nodes, 0)["dense"][r], by_arm(nodes, 1)["ticket"][r]
        moved = trunk["rewound"]["params"]["Dense_0/kernel"]
        np.testing.assert_array_equal(
            ticket["end"]["params"]["Dense_0/kernel"],
            moved * ticket["mask"]["Dense_0/kernel"],
        )
        assert any(np.abs(v).max() > 0 for v in trunk["rewound"]["opt_state"].values())


def test_the_criterion_can_look_before_the_end(tmp_path):
    setup = make_setup(rate=0.5)
    ladder = make_ladder(setup, densities=(0.5,), controls=(), score_step=3)
    _, nodes = run(tmp_path, setup, ladder)
    scored = by_arm(nodes, 0)["dense"][0]["scored"]["params"]["Dense_0/kernel"]
    mask = by_arm(nodes, 1)["ticket"][0]["mask"]["Dense_0/kernel"]
    assert np.abs(scored[mask]).min() >= np.abs(scored[~mask]).max()


def test_controls_only_where_they_are_asked_for(tmp_path):
    setup = make_setup()
    ladder = make_ladder(setup, control_levels=frozenset({2}))
    assert level_sizes(setup.seeds, ladder) == [2, 2, 8]
    _, nodes = run(tmp_path, setup, ladder)
    assert set(by_arm(nodes, 1)) == {"ticket"}
    assert set(by_arm(nodes, 2)) == {"ticket", *CONTROLS}


def test_a_diverged_ticket_has_no_children_and_its_siblings_do(tmp_path):
    setup = make_setup()
    model = setup.task.trainer.model

    def init(key, x):
        params, state = model.init(key, x)
        first = jnp.all(
            jax.random.key_data(key) == jax.random.key_data(derive(setup.seeds.root, 0, "init"))
        )
        kernel = params["Dense_0"]["kernel"]
        params["Dense_0"]["kernel"] = jnp.where(first, jnp.full_like(kernel, jnp.nan), kernel)
        return params, state

    setup = setup.with_trainer(model=model._replace(init=init))
    _, nodes = run(tmp_path, setup, make_ladder(setup, controls=("shuffle",)))
    for level in range(3):
        for members in by_arm(nodes, level).values():
            assert np.isnan(members[0]["results"]["test_accuracy_final"])
            assert np.isfinite(members[1]["results"]["test_accuracy_final"])
            assert all(np.isfinite(v).all() for v in members[1]["end"]["params"].values())
    dead = [m for node in nodes for m in node.facts.members if m.replicate == 0]
    assert all(member.diverged_at == 0 for member in dead)


@pytest.mark.slow
def test_a_ticket_whose_scores_overflow_is_named_and_not_trained(tmp_path, caplog):
    setup = make_setup()

    def overflowing(params, mask, **_):  # replicate 0 alone: its keys are known by a weight
        first = params["Dense_0"]["bias"].sum() < marks.mean()
        return jax.tree.map(lambda p: jnp.where(first, jnp.inf, jnp.abs(p)), params)

    _, nodes = run(tmp_path / "plain", setup, make_ladder(setup, densities=(), controls=()))
    marks = nodes[0].points["end"].params["Dense_0/bias"].sum(1)
    bad, good = (0, 1) if marks[0] < marks[1] else (1, 0)
    pruner = prune(overflowing, scopes.layerwise())
    _, nodes = run(tmp_path, setup, make_ladder(setup, pruner=pruner, controls=("shuffle",)))
    for level in (1, 2):
        for members in by_arm(nodes, level).values():
            assert np.isnan(members[bad]["results"]["test_accuracy_final"])
            assert np.isfinite(members[good]["results"]["test_accuracy_final"])
    members = [m for n in nodes if n.facts.level for m in n.facts.members]
    assert all((m.unscored is None) == (m.replicate == good) for m in members)
    lost = next(m.unscored for m in members if m.replicate == bad)
    assert lost.criterion == "overflowing" and "Dense_0/kernel" in lost.leaves
    assert "`overflowing` gives scores that are NaN or infinite at 'Dense_0/kernel'" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": 0}, "`steps` is 0"),
        ({"controls": ("reinit", "twin")}, "`controls` is 'twin'"),
        ({"controls": ("reinit", "reinit")}, "may be named once"),
        ({"score_step": 7}, "`score_step` is 7"),
        ({"rewind": Rewind(step=6)}, "`rewind.step` is 6"),
        ({"rewind": Rewind(what="mask")}, "`rewind.what` is 'mask'"),
        ({"rewind": Rewind(optimizer="old")}, "`rewind.optimizer` is 'old'"),
    ],
)
def test_a_ladder_that_cannot_be_climbed_is_refused(changes, message):
    setup = make_setup()
    with pytest.raises(ValueError, match=message):
        check_ladder(setup.seeds, make_ladder(setup, **changes))
    with pytest.raises(ValueError, match="`replicates` is 0"):
        check_ladder(setup.seeds._replace(replicates=0), make_ladder(setup))
