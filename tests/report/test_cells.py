"""Results of several ladders: by cell, the best cell, and costs."""

import numpy as np
import pytest

from lth_jax.report.cells import Cost, Results, Tuned

VALUES = {("fast", "dense"): 2.0, ("fast", "ticket"): 1.0, ("slow", "dense"): 1.0}
VALUES["slow", "ticket"] = 3.0


def row(cell, arm, replicate, value):
    level, density = (0, 1.0) if arm == "dense" else (2, 0.25)
    place = {"cell": cell, "arm": arm, "level": level, "replicate": replicate, "density": density}
    return {**place, "metric": "validation_loss_best", "value": value}


def results(**changed):
    rows = [
        row(cell, arm, i, changed.get(f"{cell}_{arm}", value) if i else value)
        for (cell, arm), value in VALUES.items()
        for i in (1, 0)
    ]
    middle = [r | {"level": 1, "density": 0.5} for r in rows if r["arm"] == "ticket"]
    return Results(rows + middle, dict.fromkeys(("fast", "slow"), Cost(10, 4, 100)))


def test_values_are_in_the_order_of_replicates_and_dense_is_level_0():
    found = results(fast_dense=5.0)
    np.testing.assert_array_equal(found.of("fast", "dense", "validation_loss_best"), [2.0, 5.0])
    assert found.levels("fast") == [0, 1, 2]
    assert found.member_steps == 2 * 10 * 2 * 3


def test_a_ticket_pays_for_its_search():
    step = 6.0 * 100 * 4 * 10
    flops = results().flops("fast")
    assert flops == {"dense": step, "ticket": step * (1 + 0.5 + 0.25)}


def tuned_of(table, by="test_accuracy_final"):
    """Dense networks of one cell for each rate, with one value per replicate."""
    rows = [
        row(cell, "dense", i, value) | {"metric": metric}
        for cell, values in table.items()
        for i, value in enumerate(values)
        for metric in {by, "test_accuracy_final"}
    ]
    rates = sorted({float(cell.split()[-1]) for cell in table})
    return Tuned(Results(rows, dict.fromkeys(table, Cost(10, 4, 100))), rates, by)


def test_a_rate_is_chosen_by_the_other_half_of_the_seeds():
    # Even seeds do best at .1, odd ones at .2: each half has the other half's rate.
    tuned = tuned_of({"0.1": [9.0, 1.0, 9.0, 1.0], "0.2": [2.0, 8.0, 2.0, 8.0]})
    assert tuned.chosen("dense").tolist() == [0.2, 0.1, 0.2, 0.1]
    assert tuned.of("dense", "test_accuracy_final").tolist() == [2.0, 1.0, 2.0, 1.0]
    assert tuned.usual("dense") == 0.1 and tuned.member_steps == 2 * 4 * 10


def test_a_variant_is_an_arm_with_rates_of_its_own():
    tuned = tuned_of(
        {"0.1": [1.0] * 2, "0.2": [2.0] * 2, "small 0.1": [4.0] * 2, "small 0.2": [3.0] * 2}
    )
    assert tuned.chosen("dense").tolist() == [0.2, 0.2]
    assert tuned.of("small", "test_accuracy_final").tolist() == [4.0, 4.0]
    assert set(tuned.flops()) == {"dense", "small"}
    assert tuned.described() == (
        "Learning rates, each chosen by the other half of the seeds: dense 0.2, small 0.1. Rates "
        "at an end of the grid from 0.1 to 0.2: dense, small."
    )


def test_a_rate_at_which_a_seed_diverged_is_not_chosen():
    diverged = tuned_of({"0.1": [1.0, 1.0], "0.2": [None, 5.0]})
    assert diverged.chosen("dense").tolist() == [0.2, 0.1]
    with pytest.raises(ValueError, match="every learning rate diverged for 'dense'"):
        tuned_of({"0.1": [None, 1.0], "0.2": [None, 5.0]}).of("dense", "test_accuracy_final")


def test_the_smallest_loss_is_chosen():
    tuned = tuned_of({"0.1": [1.0, 1.0], "0.2": [2.0, 2.0]}, by="validation_loss_best")
    assert tuned.chosen("dense").tolist() == [0.1, 0.1]


def test_a_level_is_chosen_by_the_other_half_of_the_seeds_with_its_best_rate():
    # Level 1 is best for even seeds, at one of the rates; level 2 for odd seeds, at both.
    values = {("0.1", 1): [1.0, 0.0], ("0.2", 1): [9.0, 1.0]}
    values |= {("0.1", 2): [5.0, 5.0], ("0.2", 2): [5.0, 5.0]}
    metric = "test_accuracy_final"
    rows = [
        row(cell, "ticket", i, value) | {"level": level, "metric": metric}
        for (cell, level), pair in values.items()
        for i, value in enumerate(pair * 2)
    ]
    tuned = Tuned(
        Results(rows, dict.fromkeys(("0.1", "0.2"), Cost(10, 4, 100))), (0.1, 0.2), metric
    )
    assert tuned.best_level("ticket", (1, 2)).tolist() == [2, 1, 2, 1]


def test_the_other_half_of_the_seeds_chooses_the_arm():
    accuracy = {"snip": [0.9, 0.1, 0.9, 0.1], "grasp": [0.5] * 4}  # snip is best on even seeds
    results = {
        (arm, rate): {"test_accuracy_final": np.array(values) - (rate == 0.1) * 0.05}
        for rate in (0.01, 0.1)
        for arm, values in accuracy.items()
    }
    tuned = Tuned.of_results(results, Cost(1, 1, 1))
    assert tuned.best_arm(("snip", "grasp")) == ["grasp", "snip", "grasp", "snip"]
    assert tuned.member_steps == 2 * 2 * 4
