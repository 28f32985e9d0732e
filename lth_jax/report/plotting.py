"""Shared by all figures: style, sizes, axes, bands with values on hover, and files.

Matplotlib is imported when the first figure is drawn. Every figure is an object of its own, outside
pyplot's global list.
"""

from __future__ import annotations

import functools
import html
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lth_jax.extras import lazy
from lth_jax.measures.intervals import Interval
from lth_jax.report.arms import Look
from lth_jax.report.display import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

mpl: Any = lazy("matplotlib", "A figure")
ticker: Any = lazy("matplotlib.ticker", "A figure")
_figure: Any = lazy("matplotlib.figure", "A figure")

SIZE = (4.8, 3.6)
WIDE = 9.9
"""Inches. A page scales both widths alike, so that letters are equally large in all figures."""
GREY = "#666666"
MOST_POINTS = 20  # of a line that get a marker, and their value on hover
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "lth_jax",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings for all figures, for a `with` block or as a decorator.

    >>> with style():
    ...     mpl.rcParams["savefig.dpi"]
    200.0
    """
    if mpl.rcParams["svg.hashsalt"] == STYLE["svg.hashsalt"]:  # set already; it takes 20 ms
        yield
        return
    settings = {**mpl.rcParamsDefault, **STYLE}
    del settings["backend"]  # to set it imports pyplot, which takes half a second
    with mpl.rc_context(settings):
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure of the given size in inches, which notebooks show without pyplot."""
    figure = _figure.Figure(figsize=(width, height))
    figure._repr_png_ = functools.partial(image, figure, "png")
    return figure


def new() -> tuple[Figure, Axes]:
    """A figure of the usual size with one pair of axes."""
    figure = blank(*SIZE)
    return figure, figure.subplots()


def panes(
    count: int, x_label: str, y_label: str, *, share_x: bool = True, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """Axes on common scales: two in a row, or up to four if there are more than four."""
    rows = -(-count // (2 if count <= 4 else 4))
    columns = -(-count // rows)
    figure = blank(SIZE[0] if count <= 4 else WIDE, SIZE[1] if count == 1 else 0.9 + 2.1 * rows)
    grid = figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(y_label)
    for axes in grid.flat[count - columns : count]:
        axes.set_xlabel(x_label)
        axes.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def legend(figure: Figure, axes: Axes) -> None:
    """Draws the legend below the axes, where it covers no data, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = next(n for n in range(len(labels), 0, -1) if n == 1 or _fits(figure, labels, n))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _fits(figure: Figure, labels: Sequence[str], columns: int) -> bool:
    """Whether a legend is no wider than its figure, by the number of letters in its columns."""
    widest = [max(map(len, column)) for column in np.array_split(labels, columns)]
    return sum(letters + 8 for letters in widest) <= 14.5 * figure.get_figwidth()


def density_axis(axes: Axes, densities: Sequence[float]) -> None:
    """The weights remaining in percent on a log scale, from dense at the left to sparse."""
    axes.set_xscale("log")
    axes.update_datalim([(density, 0) for density in densities], updatey=False)  # all may be NaN
    axes.autoscale_view(scaley=False)
    axes.xaxis.set_major_locator(ticker.FixedLocator(density_ticks(densities)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: percent(value)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.fmt_xdata = lambda density: f"{percent(density)} % of weights"
    if not axes.xaxis_inverted():
        axes.invert_xaxis()
    spec = axes.get_subplotspec()
    if spec is None or spec.is_last_row():
        axes.set_xlabel("Weights remaining (%)")


def density_ticks(densities: Sequence[float], gap: float = 1.45) -> list[float]:
    """The densities that get a tick: all, where at least a factor `gap` lies between neighbours.

    The largest and the smallest always have one.

    >>> density_ticks([1.0, 0.9, 0.5, 0.2, 0.19])
    [1.0, 0.5, 0.19]
    """
    ordered = sorted(set(densities), reverse=True)
    ticks = ordered[:1]
    for density in ordered[1:]:
        if ticks[-1] / density >= gap and density / ordered[-1] >= gap:
            ticks.append(density)
    return ticks + ordered[-1:] if len(ordered) > 1 else ticks


def plain_log(axis: Any) -> None:
    """A log scale for what is drawn, with plain numbers at 1, 2 and 5 times powers of ten.

    Beyond two decades only the powers of ten have one.
    """
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def value_ticks(axis: Any, values: Sequence[float]) -> None:
    """Ticks at these values only; at every second one if there are more than 8."""
    shown = list(values)[:: 1 + (len(values) > 8)]
    axis.set_major_locator(ticker.FixedLocator(shown))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: tick_text(value)))
    axis.set_minor_locator(ticker.NullLocator())


def tick_text(value: float) -> str:
    """A number with three significant digits; integers from 1000 to a million with all digits.

    >>> tick_text(1024), tick_text(0.0123456), tick_text(2e7)
    ('1024', '0.0123', '2e+07')
    """
    return f"{value:.0f}" if 1000 <= value < 1e6 and value == round(value) else f"{value:.3g}"


def band(
    axes: Axes,
    x: ArrayLike,
    intervals: Sequence[Interval],
    look: Look,
    line: str = "-",
    *,
    alpha: float = 0.15,
    **options: Any,
) -> None:
    """A line through the estimates and a band between the ends; on hover, the values."""
    mean, low, high = ends(intervals)
    places = np.asarray(x, float)
    [drawn] = axes.plot(
        places, mean, line, color=look.color, marker=look.marker, label=look.label,
        markevery=max(1, len(places) // MOST_POINTS), **options,
    )  # fmt: skip
    if len(places) == 1:  # a band of one point is invisible
        axes.vlines(places, low, high, color=look.color, linewidth=0.8)
    axes.fill_between(places, low, high, color=look.color, alpha=alpha, linewidth=0)
    with_ends(drawn, low, high, look.label)


def ends(intervals: Sequence[Interval]) -> Any:
    """Estimates, lower and upper ends, each as an array."""
    return np.array([one[:3] for one in intervals], float).reshape(-1, 3).T


def exponential(one: Interval) -> Interval:
    """The interval of a geometric mean, from that of the logarithms' mean."""
    mean, low, high = np.exp(one[:3]).tolist()
    return one._replace(estimate=mean, low=low, high=high)


def span(values: ArrayLike) -> Interval:
    """The mean of some values, and their range as its ends; NaN where there are none."""
    found = np.asarray(values, float)
    found = found if found.size else np.array([np.nan])
    return Interval(float(found.mean()), float(found.min()), float(found.max()), found.size, 0)


def with_ends(
    line: Any, low: ArrayLike, high: ArrayLike, label: str, *, across: bool = False
) -> None:
    """Notes the intervals of a line's points; `image` writes them into the SVG, shown on hover.

    Args:
      line: from `axes.plot`.
      low: lower ends.
      high: upper ends.
      label: name of the points.
      across: whether the intervals are along the horizontal axis, else along the vertical one.
    """
    line.values = label, np.asarray(low, float), np.asarray(high, float), across


@style()
def image(figure: Figure, kind: str) -> bytes:
    """The figure as a file, the same bytes every time.

    Args:
      figure: from one of the functions of this package.
      kind: `"png"`, or `"svg"` with the values of each mean on hover.
    """
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue() if kind == "png" else _with_titles(figure, buffer.getvalue())


def images(figure: Figure) -> dict[str, bytes]:
    """The figure as `"svg"` and `"png"`. It is laid out once, which takes half of the time."""
    svg = image(figure, "svg")
    figure.set_layout_engine("none")
    return {"svg": svg, "png": image(figure, "png")}


def _with_titles(figure: Figure, svg: bytes) -> bytes:
    """Adds invisible discs over the means, with a `<title>` each, which browsers show on hover."""
    discs = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{html.escape(text)}</title></circle>\n'
        for axes in figure.axes
        for line in axes.lines
        if hasattr(line, "values")
        for x, y, text in _titles(figure, axes, line)
    )
    group = f'<g class="values" fill="none" pointer-events="all">\n{discs}</g>\n</svg>'
    return svg.replace(b"</svg>", group.encode()) if discs else svg


def _titles(figure: Figure, axes: Axes, line: Any) -> Iterator[tuple[float, float, str]]:
    """Place in points from the upper left corner, and text, of each marked mean of a line."""
    label, low, high, across = line.values
    xy = np.asarray(line.get_data(), float).T
    places = axes.transData.transform(xy) * 72 / figure.dpi
    low, high = np.broadcast_to(low, len(xy)), np.broadcast_to(high, len(xy))
    name_x = axes.fmt_xdata or (lambda value: f"{axes.get_xlabel() or 'x'} {value:.4g}")
    for i in range(0, len(xy), max(1, len(xy) // MOST_POINTS)):
        if np.isfinite(places[i]).all():
            place = label if across else f"{label}, {name_x(xy[i, 0])}"
            interval = f" [{low[i]:.4g}, {high[i]:.4g}]" if np.isfinite(low[i] + high[i]) else ""
            text = f"{place}: {xy[i, 0 if across else 1]:.4g}{interval}".replace("-", "−")
            yield places[i][0], 72 * figure.get_figheight() - places[i][1], text


def shows_nothing(figure: Figure) -> str:
    """The reason why a figure is degenerate; empty if it is not.

    Lines with one place on the horizontal axis, or all at one height, show nothing. Stars, which
    mark the dense networks, count for the height only.

    >>> with style():
    ...     figure, axes = new()
    ...     _ = axes.plot([1, 2, 3], [5, 5, 5])
    >>> shows_nothing(figure)
    'all values are 5'
    """
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    maps = [one for axes in panels for one in (*axes.images, *axes.collections)]
    if any(isinstance(one, mpl.image.AxesImage | mpl.contour.ContourSet) for one in maps):
        return ""
    stars, points = [np.empty((2, 0))], [np.empty((2, 0))]
    for panel, line in ((axes, line) for axes in panels for line in axes.lines):
        if line.get_transform() is panel.transData:
            found = np.asarray(line.get_data(), float)
            kind = stars if line.get_marker() == "*" else points
            kind.append(found[:, np.isfinite(found).all(axis=0)])
    x, y = np.concatenate(points, axis=1)
    if not x.size:
        return "only the dense networks have values" if len(stars) > 1 else "there are no values"
    if len(np.unique(np.round(x, 12))) == 1:
        return "each line would have one point"
    y = np.concatenate([y, *(found[1] for found in stars)])
    low, high = y.min(), y.max()
    return f"all values are {high:.4g}" if high - low <= 1e-9 * max(abs(high), 1e-300) else ""


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spread, the last one included.

    >>> spread([1, 2, 3, 4, 5, 6], 3)
    [2, 4, 6]
    """
    count = min(count, len(items))
    return [items[round((i + 1) * len(items) / count) - 1] for i in range(count)]
