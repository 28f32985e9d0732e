"""Spectra, stability and learning rates drawn from made-up nodes of a made-up run."""

import json
import subprocess
import sys

import numpy as np
import pytest

from lth_jax import cli, store
from lth_jax.report import learning_rates, spectra, stability
from tests.report import measured_run, synthetic
from tests.report.measured_run import REPLICATES


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    info = synthetic.write(root, nodes=synthetic.ladder(levels=1))
    shelf = store.Store(root)
    measured_run.add(shelf, info.path, measured_run.curvature())
    return shelf, info


def row_of(rows, **place):
    [row] = [row for row in rows if all(row[k] == v for k, v in place.items())]
    return row


def test_spectra_are_summarised_by_point(measured):
    shelf, info = measured
    rows = spectra.rows(spectra.read(shelf, info.path))
    row = row_of(rows, arm="ticket", level=1, point="retrained", metric="largest_eigenvalue")
    np.testing.assert_allclose(row["values"], [4.0, 4.4, 4.8])
    assert row["mean"] == pytest.approx(4.4) and row["low"] < 4.4 < row["high"]
    assert row_of(rows, arm="dense", point="dense", metric="outliers")["values"] == [2.0] * 3
    assert row_of(rows, arm="random", level=2, point="masked", metric="support")["mean"] == 250


def test_each_point_has_a_panel_and_the_dense_parent_a_line(measured):
    shelf, info = measured
    figures = spectra.draw(spectra.read(shelf, info.path))
    assert set(figures) == {"largest_eigenvalue", "spectral_density", "loss_surface"}
    panels = {axes.get_title(): axes for axes in figures["largest_eigenvalue"].axes}
    assert list(panels) == [spectra.POINTS[p] for p in ("start", "masked", "retrained")]
    lines = {line.get_label(): line for line in panels[spectra.POINTS["retrained"]].lines}
    assert set(lines) == {"ticket", "dense"}
    geometric = (4.0 * 4.4 * 4.8) ** (1 / 3)
    assert lines["ticket"].get_ydata()[0] == pytest.approx(geometric)
    axes = figures["largest_eigenvalue"].axes[-1]
    assert axes.get_xlim()[0] > axes.get_xlim()[1] and axes.get_yscale() == "log"


def test_outliers_are_marked_above_the_density(measured):
    shelf, info = measured
    figure = spectra.spectral_density(spectra.read(shelf, info.path).spectra)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert [len(line.get_xdata()) for line in marks] == [2 * REPLICATES] * 2


def test_surfaces_share_a_scale_and_stand_the_right_way_up(measured):
    shelf, info = measured
    *panels, bar = spectra.loss_surface(spectra.read(shelf, info.path).surfaces).axes
    assert [axes.get_title() for axes in panels][:2] == [
        "dense, 100 % of weights",
        "ticket, 50 % of weights",
    ]
    assert len({axes.collections[0].norm.vmax for axes in panels}) == 1
    assert bar.get_ylabel() == "Training loss"


def test_barriers_leave_diverged_children_out(measured):
    shelf, info = measured
    found = stability.read(shelf, info.path)
    row = row_of(stability.rows(found), level=1, rewind=20, metric="test_error_barrier")
    assert row["replicates"] == 2 and row["values"][2] is None
    (axes,) = stability.instability(found).axes
    [dense] = [line for line in axes.lines if line.get_label() == "100 % of weights"]
    np.testing.assert_allclose(dense.get_xdata(), [0, 20, 100])
    np.testing.assert_allclose(dense.get_ydata(), [30.1, 10.1, 1.1])


def test_the_best_rate_is_starred_beside_the_predicted_ones(measured):
    shelf, info = measured
    found = learning_rates.read(shelf, info.path)
    rows = learning_rates.rows(found)
    assert row_of(rows, arm="ticket", metric="best_rate")["values"] == [1.0] * REPLICATES
    assert row_of(rows, arm="ticket", metric="start_edge")["mean"] == pytest.approx(0.9)
    assert row_of(rows, arm="ticket", metric="start_best")["mean"] is None
    assert row_of(rows, arm="dense", metric="train_loss", rate=2.0)["replicates"] == 0
    figures = learning_rates.draw(found)
    stars = [line for line in figures["learning_rates"].axes[0].lines if line.get_marker() == "*"]
    assert [float(np.ravel(star.get_xdata())[0]) for star in stars] == [0.25, 1.0]
    [legend] = figures["learning_rates"].legends
    named = {text.get_text() for text in legend.get_texts()}
    assert "2/(λmin + λmax), trained" in named
    assert "2/(λmin + λmax) at the start" not in named  # no replicate has one
    assert len(figures["relative_sharpness"].axes) == 3  # two arms and the colour bar


@pytest.mark.slow
def test_lth_spectrum_shows_and_draws(measured, capsys):
    _, info = measured
    assert cli.main(["spectrum", info.path]) == 0
    out = capsys.readouterr().out
    assert "Largest Hessian eigenvalue" in out and "4.4±" in out
    page = out.partition("page: ")[2].strip()
    text = open(page).read()
    for name in ("spectral_density", "instability", "learning_rates"):
        assert f'aria-label="{name}"' in text
    assert 'href="data/spectra.csv"' in text
    assert cli.main(["spectrum", info.path, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["run"] == info.run and len(shown["rows"]) == 5 * (2 + 2 * 4)


def test_lth_spectrum_needs_no_model(measured):
    _, info = measured
    code = (
        "import sys\nfrom lth_jax import cli\n"
        f"assert cli.main(['spectrum', {info.path!r}, '--json']) == 0\n"
        "rooms = ['models', 'data', 'training', 'lottery', 'landscape', 'structure']\n"
        "unwanted = ['flax', 'experiments', *(f'lth_jax.{room}' for room in rooms)]\n"
        "print([name for name in unwanted if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.endswith("[]\n")


def test_a_run_without_spectra_says_how_to_get_them(tmp_path, capsys):
    info = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=1))
    assert cli.main(["spectrum", info.path]) == 2
    err = capsys.readouterr().err
    assert "has no spectra yet; `python -m experiments.spectrum" in err and err.count("\n") == 1
