"""Units of a run: what is read back, tabled and drawn."""

import numpy as np
import pytest

from lth_jax import store
from lth_jax.report import plotting, unit_rows, units
from tests.report import measured_run
from tests.report.measured_run import ARMS, GROUPS, described, timed

LATENCY = {"latency", "latency_units"}


def listed(tmp_path, **nodes):
    shelf, folder = store.Store(tmp_path), tmp_path / "run"
    folder.mkdir()
    measured_run.add(shelf, folder, [({"kind": kind}, node) for kind, node in nodes.items()])
    return shelf, folder


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return units.read(*listed(tmp_path_factory.mktemp("s"), units=described(), latency=timed()))


def cell(found, arm, level, metric):
    [row] = [r for r in unit_rows.rows(found)
             if (r["arm"], r["level"], r["metric"]) == (arm, level, metric)]  # fmt: skip
    return row


def test_nothing_is_read_of_a_run_that_was_not_described(tmp_path):
    assert units.read(*listed(tmp_path)) is None


def test_a_network_without_units_has_no_figures(tmp_path):
    bare = store.Node({"alive": {}, "density": np.ones((1, 2))}, {"groups": [], "networks": []})
    assert units.read(*listed(tmp_path, units=bare)) is None


def test_densities_and_live_units_are_means_over_replicates(found):
    assert cell(found, "ticket", 2, "effective_density")["mean"] == pytest.approx(0.225)
    assert cell(found, "refill", 2, "units_alive/a/bias:0")["values"] == [2.0] * 3
    assert cell(found, "ticket", 2, "effective_density")["density"] == pytest.approx(0.25)


def test_latencies_are_relative_within_rounds(found):
    row = cell(found, "refill", 1, "latency_relative")
    assert row["mean"] == pytest.approx(0.6) and row["high"] == pytest.approx(0.6)
    assert cell(found, "ticket", 2, "latency_relative")["mean"] == 1.0


def test_arms_of_one_shape_are_compared_in_pairs(found):
    row = cell(found, "refill", 1, "accuracy_minus_refill_reinit")
    assert row["mean"] == pytest.approx(0.04) and row["replicates"] == 3


def test_at_latencies_the_tickets_never_have_nothing_is_compared(found):
    row = cell(found, "refill", 1, "accuracy_minus_ticket_at_latency")
    assert row["mean"] is None and row["values"] == [None] * 3


def test_between_levels_the_tickets_accuracy_is_linear_in_latency(found):
    quicker = [one._replace(relative=1 - 0.4 * one.level) if one.arm == "ticket" else one
               for one in found.timed]  # fmt: skip
    row = cell(found._replace(timed=quicker), "refill", 1, "accuracy_minus_ticket_at_latency")
    assert row["mean"] == pytest.approx(0.80 - 0.82)  # the ticket of level 1 is at 0.6 too
    quicker = [one._replace(relative=0.8) if one.arm == "refill" else one for one in quicker]
    row = cell(found._replace(timed=quicker), "refill", 1, "accuracy_minus_ticket_at_latency")
    assert row["mean"] == pytest.approx(0.80 - (0.9 + 0.82) / 2)


def test_figures_are_drawn_for_what_was_measured(found):
    drawn = units.draw(found)
    assert set(drawn) == {"unit_groups", "units_kept", "effective_density", *LATENCY}
    assert set(units.draw(found._replace(timed=[]))) == set(drawn) - LATENCY
    for name, figure in units.draw(found).items():
        assert plotting.image(figure, "svg") == plotting.image(drawn[name], "svg")


def test_figures_that_show_nothing_are_left_out(found):
    whole = {g["name"]: g["units"] for g in GROUPS}
    alive = [network._replace(alive=whole) for network in found.networks]
    assert units.draw(found._replace(networks=alive)) == {}  # no network is smaller or faster
    one = found._replace(groups=GROUPS[:1], timed=[])
    assert set(units.draw(one)) == {"units_kept", "effective_density"}


def test_the_drawing_of_groups_has_a_dot_for_each_slot(found):
    axes = units.unit_groups(GROUPS).axes[0]
    dots = sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o")
    assert dots == sum(len(g["slots"]) for g in GROUPS)
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "a/bias, axis 0", "a/kernel, axis 1", "b/bias, axis 0", "b/kernel, axis 1",
    ]  # fmt: skip


def test_live_units_are_drawn_of_the_arm_with_the_fewest(found):
    axes = units.units_kept(found).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [100, 50, 25])
    assert axes.get_ylabel() == "Live units (%)"
    assert [t.get_text() for t in axes.figure.legends[0].texts] == ["units of a", "units of b"]
    assert "the arm with the fewest (refilled)" in units.captions(found)["units_kept"].text


def test_the_table_has_a_line_for_each_arm_and_level(found):
    shown = unit_rows.table(found)
    assert len(shown.rows) == 1 + 2 * len(ARMS)
    assert [row[-1] for row in shown.rows][:2] == ["100", "100"]
