"""What all figures share: figures that show nothing, and the description of every control."""

import pytest

from lth_jax.lottery import controls
from lth_jax.report import plotting, rendering
from lth_jax.report.arms import LOOKS, looks
from lth_jax.types import DENSE, TICKET


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([([1, 1], [2, 3])], "each line would have one point"),
        ([([1, 2], [3, 3]), ([1, 2], [3, 3])], "all values are 3"),
        ([([1, 2], [float("nan")] * 2)], "only the dense networks have values"),
        ([([1, 2], [3, 3]), ([1, 2], [3, 4])], ""),
    ],
)
def test_figures_that_show_nothing_say_why(lines, why):
    with plotting.style():
        figure, axes = plotting.new()
        for x, y in lines:
            axes.plot(x, y)
    axes.axhline(5)
    axes.plot([9], [3], "*")  # the dense networks
    assert plotting.shows_nothing(figure) == why


@pytest.mark.parametrize("width", [plotting.SIZE[0], plotting.WIDE])
@pytest.mark.parametrize(
    "arms",
    [
        ["dense", "ticket", "reinit", "shuffle", "random"],
        ["dense", "ticket", "reinit", "scratch", "random_units"],
        ["ticket", "refill", "refill_reinit", "refill_scratch", "refill_random"],
        ["ticket", "reinit"],
        ["a_control_with_a_name_that_is_as_long_as_this_one"],
    ],
)
@plotting.style()
def test_a_legend_is_inside_its_figure(arms, width):
    figure = plotting.blank(width, 3)
    axes = figure.subplots()
    for look in looks(arms).values():
        axes.plot([0, 1], [0, 1], label=look.label, marker=look.marker)
    plotting.legend(figure, axes)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert len(arms) < 5 or box.width > 0.4 * figure.bbox.width  # as many columns as fit


def test_every_control_is_described():
    tables = [table for name, table in vars(controls).items() if name.endswith("CONTROLS")]
    names = {name for table in tables for name in table}
    assert len(names) > 8 and names | {DENSE, TICKET} == set(rendering.texts()["arms"]) == set(
        LOOKS
    )
