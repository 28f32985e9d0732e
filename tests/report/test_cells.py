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


def test_an_arm_has_its_best_cell_unless_a_seed_diverged():
    assert [results().best_cell(arm) for arm in ("dense", "ticket")] == ["slow", "fast"]
    assert results(fast_ticket=None).best_cell("ticket") == "slow"
    with pytest.raises(ValueError, match="no finite mean"):
        results(fast_dense=None, slow_dense=None).best_cell("dense")


def test_values_are_in_the_order_of_replicates_and_dense_is_level_0():
    found = results(fast_dense=5.0)
    np.testing.assert_array_equal(found.of("fast", "dense", "validation_loss_best"), [2.0, 5.0])
    assert found.levels("fast") == [0, 1, 2]
    assert found.member_steps == 2 * 10 * 2 * 3


def test_a_ticket_pays_for_its_search():
    step = 6.0 * 100 * 4 * 10
    flops = results().flops("fast")
    assert flops == {"dense": step, "ticket": step * (1 + 0.5 + 0.25)}


def test_each_arm_is_read_at_its_own_rate():
    found = results()
    by_rate = Results(
        [r | {"cell": {"fast": "0.1", "slow": "0.01"}[r["cell"]]} for r in found.rows],
        dict.fromkeys(("0.1", "0.01"), Cost(10, 4, 100)),
    )
    tuned = Tuned({"dense": 0.01, "ticket": 0.1}, by_rate)
    assert tuned.of("dense", "validation_loss_best").tolist() == [1.0, 1.0]
    assert tuned.of("ticket", "validation_loss_best").tolist() == [1.0, 1.0]
    assert tuned.described().endswith("dense 0.01, ticket 0.1.")
