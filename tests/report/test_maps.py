"""The picture of a map: bands in units of δ, and marks where they lie above it."""

import numpy as np
import pytest

from lth_jax.measures.simultaneous import by_cell
from lth_jax.report import maps
from lth_jax.report.plotting import image, shows_nothing


def rows_of(means, seeds=12):
    """A map over `size` and `noise`, whose effects have these means."""
    rng = np.random.default_rng(0)
    return [
        {"cell": f"{size}, {noise}", "size": size, "noise": noise, "replicate": i, "value": v}
        for (size, noise), mean in means.items()
        for i, v in enumerate(mean + rng.normal(0, 0.5, seeds))
    ]


MEANS = {(10, 0.0): 0.0, (10, 0.2): 9.0, (20, 0.0): -9.0, (20, 0.2): 2.1}


def dots(figure):
    return [line for axes in figure.axes for line in axes.lines if hasattr(line, "values")]


@pytest.mark.parametrize(
    ("axes", "panels"), [({}, 1), ({"y": "size", "group": "noise"}, 1), ({"panel": "size"}, 2)]
)
def test_each_cell_has_its_band_and_those_above_delta_are_filled(axes, panels):
    rows = rows_of(MEANS)
    figure = maps.effects(rows, 2.0, **axes)
    assert len(figure.axes) == panels and not shows_nothing(figure)
    wanted = by_cell(
        {c: [r["value"] / 2 for r in rows if r["cell"] == c] for c in {r["cell"]: 0 for r in rows}}
    )
    found = {line.values[0]: line for line in dots(figure)}
    assert set(found) == set(wanted)
    for cell, line in found.items():
        _, low, high, across = line.values
        assert (line.get_xdata()[0], low, high) == pytest.approx(wanted[cell][:3]) and across
        assert (line.get_markerfacecolor() != "white") == (wanted[cell].low >= 1)
    filled = [cell for cell, line in found.items() if line.get_markerfacecolor() != "white"]
    assert filled == ["10, 0.2"]
    assert f"10, 0.2: {wanted['10, 0.2'].estimate:.4g} [" in image(figure, "svg").decode()


def test_wider_bands_fill_fewer_cells():
    rows = rows_of({(10, 0.0): 2.4, (20, 0.0): 0.0})

    def filled(confidence):
        figure = maps.effects(rows, 2.0, confidence=confidence)
        return [line.values[0] for line in dots(figure) if line.get_markerfacecolor() != "white"]

    assert filled(0.5) == ["10, 0.0"] and filled(0.9975) == []
