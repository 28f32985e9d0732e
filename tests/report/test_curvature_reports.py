"""Spectra, stability and learning rates drawn from made-up nodes of a made-up run."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from lth_jax import cli, store
from lth_jax.report import learning_rates, spectra, stability
from lth_jax.store.analyses import add_analysis
from tests.report import synthetic

REPLICATES = 3
DENSITIES = (1.0, 0.5, 0.25)


def spectrum(rng, arm, level, replicate, point):
    top = 8.0 / (level + 1) * (1 + 0.1 * replicate)
    nodes = np.sort(rng.normal(size=(2, 12)) * 0.3, axis=1)
    nodes[:, -2:] = [0.8 * top, top]
    return {
        "largest": np.array([top, 0.8 * top, 0.5, 0.4]),
        "largest_bounds": np.full(4, 1e-3),
        "smallest": np.array([-0.5, -0.4]),
        "smallest_bounds": np.full(2, 1e-3),
        "nodes": nodes,
        "weights": np.full((2, 12), 1 / 12),
    }


def labelled(rng):
    """Labels, further facts, and arrays of every node."""
    for level, density in enumerate(DENSITIES):
        for arm, points in (
            [("dense", ("dense", "start"))]
            if level == 0
            else [("ticket", ("start", "masked", "retrained")), ("random", ("masked",))]
        ):
            for replicate in range(REPLICATES):
                for point in points:
                    about = {"arm": arm, "level": level, "replicate": replicate, "point": point}
                    facts = {"density": density, "size": int(1000 * density), "converged": True}
                    arrays = spectrum(rng, arm, level, replicate, point)
                    yield {"kind": "spectrum", **about}, facts, arrays
            about = {"arm": arm, "level": level, "replicate": 0, "point": points[-1]}
            xs = np.linspace(-1, 1, 5)
            arrays = {"xs": xs, "ys": xs, "loss": 0.1 + xs[:, None] ** 2 + 2 * xs**2}
            yield {"kind": "surface", **about}, {"density": density}, arrays
    for rewind, height in ((0, 0.3), (20, 0.1), (100, 0.01)):
        for level, density in enumerate(DENSITIES[:2]):
            barriers = np.full((REPLICATES, 1), height) + 0.001 * np.arange(REPLICATES)[:, None]
            arrays = {f"{split}_error_barrier": barriers for split in ("train", "test")}
            about = {"kind": "stability", "level": level, "rewind": rewind}
            yield (
                about,
                {"density": density},
                arrays | {"alive": np.array([True, True, level == 0])},
            )
    rates = 2.0 ** np.arange(-3, 2)
    for arm, level, best in (("dense", 0, 1), ("ticket", 2, 3)):
        losses = 0.1 + (np.arange(5) - best) ** 2 + 0.01 * np.arange(REPLICATES)[:, None]
        losses[:, -1] = np.nan  # diverged
        arrays = {
            "rates": rates,
            "step": np.array([10, 20]),
            "train_loss": losses,
            "test_accuracy": np.full((REPLICATES, 5), 0.5),
            "relative_sharpness": np.full((2, REPLICATES, 5), 0.7) * rates,
            **{name: np.full(REPLICATES, 0.9) for name in learning_rates.PREDICTIONS},
        }
        arrays["start_best"] = np.full(REPLICATES, np.nan)
        about = {"kind": "learning_rates", "arm": arm, "level": level}
        yield about, {"density": DENSITIES[level]}, arrays


def given(node, _):
    return node


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    info = synthetic.write(root, nodes=synthetic.ladder(levels=1))
    shelf = store.Store(root)
    for labels, facts, arrays in labelled(np.random.default_rng(0)):
        key = store.content_key(labels)
        shelf.node(key, partial(given, store.Node(arrays, {**labels, **facts})))
        add_analysis(info.path, key, labels)
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
