"""What was measured of a run's networks: read back, tabled and drawn."""

import numpy as np
import pytest

from lth_jax import store
from lth_jax.report import behaviour, plotting, rendering
from tests.report import measured_run


@pytest.fixture
def seen(tmp_path):
    def read(groups):
        shelf, folder = store.Store(tmp_path), tmp_path / "run"
        folder.mkdir()
        measured_run.add(shelf, folder, [({"kind": "behaviour"}, measured_run.behaviour(groups))])
        return behaviour.read(shelf, folder)

    return read


def test_before_anything_was_measured_there_is_nothing(tmp_path):
    assert behaviour.read(store.Store(tmp_path), tmp_path) is None


def test_rows_are_means_over_replicates_of_each_arm_and_level(seen):
    found = seen(["0", "1"])
    rows = {(r["arm"], r["level"], r["metric"]): r for r in behaviour.rows(found)}
    row = rows["ticket", 2, "nll"]
    assert row["density"] == 0.25
    assert row["values"] == found.scores["nll"][9:].tolist()
    assert row["low"] < row["mean"] < row["high"]
    counts = found.confusions[9:, 1]
    right = np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2))
    np.testing.assert_allclose(rows["ticket", 2, "accuracy/1"]["values"], right)
    assert rows["random", 1, "confusion/0/1/0"]["values"] == found.confusions[6:9, 0, 1, 0].tolist()


@pytest.mark.parametrize(
    ("groups", "more"), [(["0", "1"], {"confusion", "group_accuracy"}), ([], set())]
)
def test_there_is_a_picture_of_all_there_is(seen, groups, more):
    drawn = behaviour.draw(seen(groups))
    assert drawn.keys() == {"calibration", "recovery", "dead_units"} | more
    assert drawn.keys() <= rendering.texts().keys()
    assert all(b"<svg" in plotting.image(figure, "svg") for figure in drawn.values())


def test_the_confusions_of_the_last_level_are_shares_of_each_label(seen):
    found = seen(["0", "1"])
    figure = behaviour.confusion(found)
    panes = figure.axes[:6]  # dense, ticket and random, for each group
    ticket = found.confusions[9:, 0].sum(axis=0)
    np.testing.assert_allclose(
        panes[1].images[0].get_array(), ticket / ticket.sum(axis=1, keepdims=True)
    )


def test_a_regression_has_no_calibration(seen):
    found = seen([])
    for name in ("ece", "nll", "brier"):
        del found.scores[name]
    assert "calibration" not in behaviour.draw(found)
    assert not {"ece", "nll"} & {row["metric"] for row in behaviour.rows(found)}
