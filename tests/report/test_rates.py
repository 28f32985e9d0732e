from pathlib import Path

import numpy as np
import pytest

from lth_jax import store
from lth_jax.report import rates
from lth_jax.report.page import write_report
from tests.report import synthetic


@pytest.fixture(scope="module")
def figure():
    return rates.frontier(synthetic.rates())


def line_of(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def test_a_line_goes_through_the_tickets_of_one_precision(figure):
    (axes,) = figure.axes
    rows = [r for r in synthetic.rates() if r["arm"] == "ticket" and r["precision"] == "float32"]
    line = line_of(axes, "float32")
    np.testing.assert_allclose(line.get_xdata(), [row["file_bytes"] / 1000 for row in rows])
    np.testing.assert_allclose(line.get_ydata(), [100 * row["mean"] for row in rows])
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("File (kB)", "Test accuracy at the end (%)")


def test_scales_per_channel_are_dashed_in_the_colour_of_their_precision(figure):
    (axes,) = figure.axes
    whole, channels = line_of(axes, "int4"), line_of(axes, "int4, scale per channel")
    assert whole.get_color() == channels.get_color() != line_of(axes, "float32").get_color()
    assert (whole.get_linestyle(), channels.get_linestyle()) == ("-", "--")


def test_the_frontier_is_ringed_and_dense_networks_are_stars(figure):
    (axes,) = figure.axes
    ringed = sorted(r["file_bytes"] / 1000 for r in synthetic.rates() if r["frontier"])
    np.testing.assert_allclose(line_of(axes, "on the frontier").get_xdata(), ringed)
    stars = [line for line in axes.lines if line.get_marker() == "*" and len(line.get_xdata())]
    dense = [r["file_bytes"] / 1000 for r in synthetic.rates() if r["arm"] == "dense"]
    assert sorted(float(star.get_xdata()[0]) for star in stars) == sorted(dense)


def test_one_replicate_has_points_without_intervals():
    (axes,) = rates.frontier(synthetic.rates(replicates=1)).axes
    np.testing.assert_allclose(line_of(axes, "float32").get_ydata(), [69.0, 66.0, 61.0, 54.0])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    info = synthetic.write(root, nodes=synthetic.ladder(levels=1))
    rates.write(info.path, info.config_hash, synthetic.rates())
    return store.Store(root), info


def test_a_run_whose_rates_are_known_shows_them_on_its_page(measured):
    page = write_report(*measured)
    text = page.read_text()
    assert 'aria-label="frontier"' in text and "no other point has a smaller mean size" in text
    for name in ("figures/frontier.png", "figures/frontier.svg"):
        assert (page.parent / name).stat().st_size > 0
    for name in ("data/frontier.csv", "data/frontier.parquet"):
        assert f'href="{name}"' in text and (page.parent / name).is_file()
    lines = (page.parent / "data/frontier.csv").read_text().splitlines()
    assert len(lines) == 1 + len(synthetic.rates())


def test_damaged_rates_are_named(measured, tmp_path):
    info = synthetic.write(tmp_path, nodes=[])
    path = Path(info.path, rates.FILE)
    path.parent.mkdir(parents=True)
    path.write_text('{"rows": []}')
    with pytest.raises(store.CorruptError, match=r"frontier\.json is damaged"):
        write_report(store.Store(tmp_path), info)


def test_a_run_without_rates_has_none(tmp_path):
    info = synthetic.write(tmp_path, nodes=[])
    assert rates.read(None, info.path) is None
