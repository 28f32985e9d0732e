"""Matplotlib, imported when the first figure is drawn: tables and numbers do without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lth_jax.extras import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

mpl: Any = lazy("matplotlib", "A figure")
ticker: Any = lazy("matplotlib.ticker", "A figure")
_figure: Any = lazy("matplotlib.figure", "A figure")


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches, outside pyplot's global list."""
    return _figure.Figure(figsize=(width, height))
