"""What all figures share: figures that show nothing, and the description of every control."""

import pytest

from lth_jax.lottery import controls
from lth_jax.report import plotting
from lth_jax.report.arms import LOOKS


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([([1, 1], [2, 3])], "it would have one point for each line; the tables have the values"),
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


def test_every_control_is_described():
    tables = [table for name, table in vars(controls).items() if name.endswith("CONTROLS")]
    names = {name for table in tables for name in table}
    assert len(names) > 8 and all(LOOKS[name].says for name in names)
