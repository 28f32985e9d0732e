import io

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from PIL import Image

from lth_jax.report import figures, plotting
from lth_jax.report.arms import looks
from tests.report import synthetic

METRIC = "test_accuracy_final"


@pytest.fixture(scope="module")
def drawn(run):
    return figures.draw(run)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def line_of(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def test_every_figure_that_was_promised_is_drawn(drawn):
    assert list(drawn) == [
        "test_accuracy_final",
        "test_accuracy_early_stop",
        "test_loss_final",
        "test_loss_early_stop",
        "early_stop_step",
        "validation_accuracy_curves",
        "validation_loss_curves",
        "leaf_density",
        "mask_overlap",
    ]


@pytest.mark.parametrize("name", [METRIC, "early_stop_step", "mask_overlap"])
def test_density_runs_from_dense_at_the_left_on_a_log_scale(drawn, run, name):
    (axes,) = drawn[name].axes
    left, right = axes.get_xlim()
    assert left > right
    assert axes.get_xscale() == "log"
    shown = [float(text) for text in labels(axes.xaxis)]
    assert shown == sorted(shown, reverse=True)
    assert shown[-1] == pytest.approx(100 * run.levels[-1].density, rel=0.01)
    assert axes.get_xlabel() == "Weights remaining (%)"


def test_a_curve_holds_the_means_in_percent_and_a_band(drawn, run):
    (axes,) = drawn[METRIC].axes
    line = line_of(axes, "random mask")
    means = [
        100 * np.mean([v for v, m in zip(level.results[METRIC], level.members, strict=True)
                       if m.arm == "random"])
        for level in run.levels[1:]
    ]  # fmt: skip
    np.testing.assert_allclose(line.get_ydata(), means, rtol=1e-6)
    np.testing.assert_allclose(line.get_xdata(), [level.density for level in run.levels[1:]])
    assert len(axes.collections) == 4  # a band for every arm but the dense parent
    assert axes.get_ylabel() == "Test accuracy at the end (%)"


def test_arms_that_nobody_knows_look_like_none_that_is_there():
    used = looks(["ticket", "reinit", "one", "two", "three", "four", "five"])
    assert len({look.color for look in used.values()}) == len(used)


def test_an_arm_looks_the_same_everywhere_and_no_two_look_alike(drawn, run):
    used = looks(run.arms)
    assert len({look.color for look in used.values()}) == len(run.arms)
    assert len({look.marker for look in used.values()}) == len(run.arms)
    for name in (METRIC, "test_loss_final", "early_stop_step", "validation_accuracy_curves"):
        for look in used.values():
            assert (
                to_hex(line_of(drawn[name].axes[0], look.label).get_color()) == look.color.lower()
            )


def test_the_legend_covers_no_axes(drawn):
    for figure in drawn.values():
        plotting.image(figure, "png")  # lays it out
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_training_curves_show_levels_up_to_the_sparsest(drawn, run):
    figure = drawn["validation_accuracy_curves"]
    assert len(figure.axes) == 3
    sparsest = f"{100 * run.levels[-1].density:.3g} %"
    assert figure.axes[-1].get_title() == f"{sparsest} of weights"
    step, value = line_of(figure.axes[0], "dense").get_data()
    np.testing.assert_array_equal(step, run.levels[0].steps)
    want = 100 * run.levels[0].curves["validation_accuracy"].mean(axis=1)
    np.testing.assert_allclose(value, want, rtol=1e-5)


def test_leaf_density_falls_from_one_hundred_percent(drawn):
    (axes,) = drawn["leaf_density"].axes
    for line in axes.lines:
        assert line.get_ydata()[0] == 100
        assert np.all(np.diff(line.get_ydata()) < 0)


def test_many_leaves_get_a_color_bar_instead_of_a_legend(read, monkeypatch):
    shapes = {f"Block_{i}/kernel": (4, 5) for i in range(12)}
    monkeypatch.setattr(synthetic, "LEAVES", shapes)
    monkeypatch.setattr(synthetic, "SPEED", dict.fromkeys(shapes, 1.0))
    figure = figures.leaf_density(read(synthetic.ladder(levels=1)))
    axes, bar = figure.axes
    assert len(axes.lines) == 12 and not figure.legends
    assert labels(bar.yaxis)[0] == "Block_0/kernel"
    assert labels(bar.yaxis)[-1] == "Block_11/kernel"


def test_overlap_stands_beside_its_chance_level(drawn):
    (axes,) = drawn["mask_overlap"].axes
    tickets, chance = line_of(axes, "tickets"), line_of(axes, "chance, at equal densities")
    assert np.all(tickets.get_ydata() > chance.get_ydata())


def test_images_repeat_byte_for_byte_at_a_resolution_for_print(run):
    def draw(kind):
        return plotting.image(figures.against_density(run, METRIC), kind)

    svg, png = draw("svg"), draw("png")
    assert (draw("svg"), draw("png")) == (svg, png)
    assert b"<dc:date>" not in svg
    width, _ = Image.open(io.BytesIO(png)).size
    assert width / plotting.SIZE[0] >= 150


def test_drawing_leaves_matplotlib_as_it_was(run):
    before = rcParams.copy()
    plotting.image(figures.against_density(run, METRIC), "svg")
    assert rcParams.copy() == before


@pytest.mark.parametrize(
    "ladder",
    [
        {"levels": 0},
        {"levels": 1, "replicates": 1},
        {"levels": 1, "replicates": 1, "diverged": [(1, "ticket", 0)]},
        {"levels": 1, "replicates": 2, "diverged": [(0, "dense", 0), (0, "dense", 1)]},
        {"levels": 12, "rate": 0.05, "replicates": 2, "evaluations": 1},
    ],
    ids=["dense only", "one replicate", "ticket lost", "dense lost", "many levels"],
)
@pytest.mark.slow
def test_odd_runs_are_drawn_without_a_warning(read, ladder, recwarn):
    run = read(synthetic.ladder(**{"evaluations": 3} | ladder))
    drawn = figures.draw(run)
    for name in {METRIC, "validation_loss_curves", "leaf_density", "mask_overlap"} & set(drawn):
        assert plotting.image(drawn[name], "svg").startswith(b"<?xml")
    assert [str(warning.message) for warning in recwarn] == []


def test_a_run_without_levels_has_no_figures(read):
    assert figures.draw(read([], finish=False)) == {}


def test_what_was_never_measured_is_not_drawn(run):
    def without_validation(tables):
        return {
            k: v if k.startswith("t") and "early" not in k else v * np.nan
            for k, v in tables.items()
        }

    levels = tuple(
        level._replace(
            results=without_validation(level.results), curves=without_validation(level.curves)
        )
        for level in run.levels
    )
    names = list(figures.draw(run._replace(levels=levels)))
    assert names == ["test_accuracy_final", "test_loss_final", "leaf_density", "mask_overlap"]
