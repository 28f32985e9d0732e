"""All figures of all pages: the same letters and density axis, nothing clipped, values on hover."""

import re

import pytest

from lth_jax.report import effects, figures, literature, maps, plotting, rendering, sweep_page, tidy
from lth_jax.report.display import percent
from lth_jax.report.effects import Effect
from lth_jax.report.levels import read_run
from lth_jax.report.page import MEASURED
from tests.report import measured_run, test_literature
from tests.report.test_atlas import ROWS, part
from tests.report.test_sweeps import sweep_of

pytestmark = pytest.mark.slow  # drawing all figures takes some ten seconds

WITHOUT_MEANS = {"unit_groups", "confusion", "loss_surface", "relative_sharpness", "latency_units"}
WITHOUT_MEANS |= {"sweep map", "atlas map"}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Every figure, laid out as its SVG is."""
    shelf, info = measured_run.write(tmp_path_factory.mktemp("gallery"))
    drawn = figures.draw(read_run(shelf, info.path))
    for kind in MEASURED.values():
        drawn |= kind.draw(kind.read(shelf, info.path))
    of_sweep, _ = sweep_page.draw(sweep_of(nets=("mlp", "conv")))
    drawn |= {f"sweep {name}": figure for name, figure in of_sweep.items()}
    recipe = literature.draw(test_literature.trained(read_run(shelf, info.path)))
    drawn |= {f"literature {name}": figure for name, figure in recipe.items()}
    axes = {"label": "Error (%)", "x_label": "Examples"}
    drawn |= {
        "atlas arms": tidy.by_arm(ROWS, ["train error", "test error"], "Error (%)"),
        "atlas curve": tidy.against(ROWS, "size", "test error", zero=True, **axes),
        "atlas curves": tidy.against_each({"a": ROWS, "b": ROWS}, "size", **axes),
        "atlas map": tidy.grid_map(ROWS, "size", "replicate", "test error", y_label="y", **axes),
        "atlas map of effects": maps.effects(
            [row | {"cell": row["arm"]} for row in ROWS if row["size"] == 10], 1.0, group="arm"
        ),
        "atlas effects": effects.draw(
            [
                Effect("X1", "one", "supported", [part()]),
                Effect("X3", "three", "inconclusive", [part()]),
                Effect("X2", "two", "reversed", [part(delta=0)]),
            ]
        ),
    }
    return {
        name: (figure, plotting.image(figure, "svg").decode()) for name, figure in drawn.items()
    }


def test_letters_are_equally_large_on_every_page(gallery):
    for name, (figure, _) in gallery.items():
        assert figure.get_figwidth() in (plotting.SIZE[0], plotting.WIDE), name
        sizes = {
            label.get_fontsize()
            for axes in figure.axes
            for axis in (axes.xaxis, axes.yaxis)
            for label in axis.get_ticklabels()
            if label.get_text()
        }
        assert sizes <= {plotting.STYLE["xtick.labelsize"]}, name


@plotting.style()  # ticks that are made while it is measured have the size of the others
def test_nothing_is_clipped(gallery):
    for name, (figure, _) in gallery.items():
        figure.dpi = 72  # as in an SVG
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        figure.dpi = 100
        assert box.x0 >= -0.02 and box.x1 <= width + 0.02, name
        assert box.y0 >= -0.02 and box.y1 <= height + 0.02, name


def test_density_runs_from_dense_at_the_left_with_the_same_ticks(gallery):
    axes = [
        one
        for figure, _ in gallery.values()
        for one in figure.axes
        if one.get_xlabel() == "Weights remaining (%)"
    ]
    assert len(axes) > 15
    for one in axes:
        assert one.xaxis_inverted() and one.get_xscale() == "log"
        shown = one.xaxis.get_ticklabels()
        assert [text.get_text() for text in shown] == [percent(x) for x in one.get_xticks()]


def test_means_and_intervals_are_read_on_hover(gallery):
    for name, (_, svg) in gallery.items():
        titles = re.findall("<title>(.*?)</title>", svg)
        assert bool(titles) != (name in WITHOUT_MEANS), name
        assert all(re.search(r": −?[\d.e+]+", title) for title in titles), name
    _, svg = gallery["test_accuracy_final"]
    assert re.search(r"<title>ticket, [\d.]+ % of weights: [\d.]+ \[[\d.]+, [\d.]+\]</title>", svg)


def test_no_figure_of_the_gallery_is_left_out(gallery):
    for name, (figure, _) in gallery.items():
        assert plotting.shows_nothing(figure) == "", name


def test_each_figure_has_a_title_and_a_caption_of_its_own(gallery):
    shown = [
        rendering.caption(name) for name in gallery if name[:5] not in ("sweep", "atlas", "liter")
    ]
    assert len({caption.title for caption in shown}) == len(shown)
    assert len({caption.text for caption in shown}) == len(shown)
    assert all(caption.text.endswith(".") for caption in shown)


def test_a_disc_lies_over_its_mean(gallery):
    figure, svg = gallery["mask_overlap"]
    [axes] = figure.axes
    [line] = [line for line in axes.lines if line.get_label() == "tickets"]
    x, y = axes.transData.transform(line.get_xydata()[0]) * 72 / figure.dpi
    height = 72 * figure.get_figheight()
    assert f'cx="{x:.1f}" cy="{height - y:.1f}"' in svg
