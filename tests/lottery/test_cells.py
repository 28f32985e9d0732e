"""Many cells as one population: what they share, what stays their own, and one program for all."""

import jax
import numpy as np
import pytest

from lth_jax.lottery import Hooks, Label, MemberTable, Programs, Rewind, make_experiment, run_ladder
from lth_jax.lottery.member_table import check_experiments, member_keys
from lth_jax.population import Plan
from lth_jax.schema import read_entry
from lth_jax.store import Store
from lth_jax.types import DENSE, TICKET
from tests.lottery.test_ladder import EVERY, STOP, make_ladder, make_setup

PLANS = [(0, Plan(3))]


def cell_of(setup, ladder, rate=1e-2, seed=5):
    setup = setup.with_seeds(root=jax.random.key(seed)).with_task(hyper={"learning_rate": rate})
    arms = dict.fromkeys([TICKET, *ladder.controls], "arm")
    return make_experiment(*setup, ladder, data="data", training="program", arms=arms)


@pytest.fixture(scope="module")
def mixed():
    """Rates, seeds, densities, depths and controls that differ: four cells, and their traces."""
    traces = []
    setup = make_setup(traces=traces)
    both = make_ladder(setup, densities=(0.5, 0.25), controls=("reinit", "shuffle"))
    sparse = both._replace(counts=make_ladder(setup, densities=(0.3,)).counts)
    one_control = both._replace(controls={"reinit": both.controls["reinit"]})
    cells = [
        cell_of(setup, both),
        cell_of(setup, sparse),
        cell_of(setup, one_control),
        cell_of(setup, both, rate=0.1, seed=6),
    ]
    return cells, traces


@pytest.fixture(scope="module")
def climbed(mixed, tmp_path_factory):
    cells, traces = mixed
    folder = tmp_path_factory.mktemp("together")
    reported = []
    manifests = run_ladder(cells, store=Store(folder), plans=PLANS, hooks=Hooks(reported.append))
    return folder, manifests, reported, len(traces)


def members(store, manifest):
    """`{(level, arm, replicate): (weights, mask, curves)}` of one cell."""
    found = {}
    for entry in manifest:
        node = read_entry(store, entry)
        for i, member in enumerate(node.facts.members):
            history = {name: curve[:, i] for name, curve in node.curves.items()}
            place = (node.facts.level, member.arm, member.replicate)
            found[place] = (
                node.points["end"].params["Dense_0/kernel"][i],
                node.mask["Dense_0/kernel"][i],
                history,
            )
    return found


def test_each_cell_has_the_numbers_it_has_alone(mixed, climbed, tmp_path):
    cells, _ = mixed
    folder, manifests, *_ = climbed
    programs = Programs(cells[0].task.trainer)
    for i in (1, 3):
        cell = cells[i]
        store = Store(tmp_path / str(i))
        [alone] = run_ladder([cell], store=store, plans=[(0, Plan(2))], programs=programs)
        here, there = members(Store(folder), manifests[i]), members(store, alone)
        assert here.keys() == there.keys()
        for place, (weights, mask, history) in here.items():
            np.testing.assert_allclose(weights, there[place][0], atol=1e-5)
            np.testing.assert_array_equal(mask, there[place][1])
            for name, values in history.items():
                np.testing.assert_allclose(values, there[place][2][name], atol=1e-5)


def test_all_cells_train_in_one_program(climbed):
    *_, traces = climbed
    assert traces == 1


def test_what_cells_have_in_common_is_trained_once(mixed, climbed):
    _, manifests, reported, _ = climbed
    # Level 0: 2 dense members for the first three cells, 2 for the last. Level 1: 6 + 6 + 0 + 6
    # (the third cell's tickets and reinit are the first's). Level 2: 6 + 0 + 0 + 6.
    chunks = [-(-n // 3) for n in (4, 18, 12)]
    assert len(reported) == sum(chunks) * (STOP // EVERY)
    assert [sum(len(e.rows) for e in manifest) for manifest in manifests] == [14, 8, 10, 14]
    trained = sum(entry.member_steps for manifest in manifests for entry in manifest)
    assert trained == (4 + 18 + 12) * STOP


def test_a_finished_population_is_read_not_trained(mixed, climbed):
    cells, _ = mixed
    folder, manifests, *_ = climbed
    reported = []
    again = run_ladder(cells[::-1], store=Store(folder), plans=PLANS, hooks=Hooks(reported.append))
    assert reported == []
    for before, after in zip(manifests, again[::-1], strict=True):
        assert [(e.key, e.rows) for e in before] == [(e.key, e.rows) for e in after]


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_a_population_cut_off_continues_to_the_same_bits(mixed, climbed, tmp_path):
    cells, _ = mixed
    folder, manifests, reported, _ = climbed
    seen = []

    def stop(progress):
        seen.append(progress)
        if len(seen) == 9:
            raise Stopped

    store = Store(tmp_path)
    with pytest.raises(Stopped):
        run_ladder(cells, store=store, plans=PLANS, hooks=Hooks(stop), save_seconds=0)
    resumed = []
    again = run_ladder(cells, store=store, plans=PLANS, hooks=Hooks(resumed.append))
    assert again == manifests
    assert len(seen) + len(resumed) <= len(reported) + 1
    for entry in {entry.key: entry for manifest in again for entry in manifest}.values():
        nodes = store.read(entry.key), Store(folder).read(entry.key)
        jax.tree.map(np.testing.assert_array_equal, *(node.arrays for node in nodes))


def test_a_key_is_made_of_what_decides_a_member():
    setup = make_setup()
    ladder = make_ladder(setup, densities=(0.5, 0.25))
    base = member_keys(cell_of(setup, ladder), PLANS)
    ticket, reinit = Label(TICKET, 0), Label("reinit", 0)
    assert len({key for level in base for key in level.values()}) == 2 + 8 + 8

    def keys(**changes):
        return member_keys(cell_of(setup, ladder._replace(**changes)), PLANS)

    fewer = keys(controls={}, control_levels=frozenset({2}))
    assert fewer[2] == {label: key for label, key in base[2].items() if label.arm == TICKET}
    other = keys(counts=[ladder.counts[0], make_ladder(setup, densities=(0.1,)).counts[0]])
    assert other[:2] == base[:2] and other[2][ticket] != base[2][ticket]
    earlier = keys(counts=[make_ladder(setup, densities=(0.6,)).counts[0], ladder.counts[1]])
    assert earlier[0] == base[0]
    assert earlier[2][ticket] != base[2][ticket]  # the same count, of another parent
    assert keys(rewind=Rewind(step=2))[0] != base[0]
    narrower = member_keys(cell_of(setup, ladder), [*PLANS, (1, Plan(1))])  # bits follow the width
    assert narrower[0] == base[0]
    assert not set(narrower[1].values()) & set(base[1].values())
    assert member_keys(cell_of(setup, ladder, seed=6), PLANS)[2][reinit] != base[2][reinit]


def test_a_table_lists_each_member_once(mixed):
    cells, _ = mixed
    table = MemberTable(cells, PLANS)
    assert [len(level) for level in table.levels] == [4, 18, 12]
    dense = table.levels[0][table.keys[1][0][Label(DENSE, 1)]]
    assert dense.experiments == [0, 1, 2] and dense.label == Label(DENSE, 1)


def test_cells_that_cannot_climb_together_are_refused():
    setup = make_setup()
    ladder = make_ladder(setup)
    cell = cell_of(setup, ladder)
    with pytest.raises(ValueError, match="`experiments` is empty"):
        check_experiments([])
    for other, message in (
        (
            cell._replace(identity=cell.identity._replace(constants="others")),
            r"`experiments\[1\]` differs from `experiments\[0\]` in its constants",
        ),
        (cell_of(setup, ladder._replace(rewind=Rewind(step=1))), "take the same steps"),
        (
            cell_of(setup, ladder._replace(prunable=jax.tree.map(lambda _: True, ladder.prunable))),
            "in its prunable leaves",
        ),
        (cell_of(setup, ladder._replace(stop=0)), "`steps` is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            check_experiments([cell, other])


def test_a_function_is_compiled_once_for_each_key():
    programs, x = Programs(make_setup().task.trainer), np.arange(3.0, dtype=np.float32)

    def times(key, factor):
        return programs.once(key, lambda x: factor * x, [x])

    assert times("double", 2.0) is times("double", 2.0) is not times("triple", 3.0)
    np.testing.assert_array_equal(times("triple", 3.0)(x), 3 * x)
