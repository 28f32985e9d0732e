"""Numbers as text: names, units, percents, and the table printed after a run."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from lth_jax.report.levels import Level, RunRecord
from lth_jax.report.tables import Row, summary_rows
from lth_jax.text import TextTable, brief, counted, listing
from lth_jax.types import DENSE, TICKET

HEADLINES = (
    "test_accuracy_final",
    "test_accuracy_early_stop",
    "test_loss_final",
    "test_loss_early_stop",
)
EARLY_STOP = "early_stop_step"
NUMBERS = ("metric", "mean", "low", "high", "replicates", "values")
"""The columns of a row of a measurement that do not identify a place."""
MOST_NAMED = 6
"""Diverged networks that a sentence names one by one; more are counted by arm."""


class Quantity(NamedTuple):
    """How a metric is shown.

    Attributes:
      label: its name.
      unit: its unit, empty for pure numbers.
      scale: factor from the stored value to the shown one (accuracies are stored as fractions).
      digits: decimals shown.
    """

    label: str
    unit: str
    scale: float
    digits: int

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def quantity(metric: str) -> Quantity:
    """How to show a metric, read off its name.

    >>> quantity("test_accuracy_final").title
    'Test accuracy at the end (%)'
    >>> quantity("early_stop_step").title
    'Early-stop step'
    """
    if metric == EARLY_STOP:
        return Quantity("Early-stop step", "", 1.0, 0)
    words = metric.replace("_early_stop", " at early stop").replace("_final", " at the end")
    label = words.replace("_", " ").capitalize()
    return Quantity(label, "%", 100.0, 1) if "accuracy" in metric else Quantity(label, "", 1.0, 3)


def headline_metric(run: RunRecord) -> str | None:
    """The report's first metric; None before the first level is finished."""
    known = [metric for level in run.levels for metric in level.results]
    return next((metric for metric in (*HEADLINES, *known) if metric in known), None)


def level_table(run: RunRecord) -> TextTable:
    """The table printed at the end of a run: per level, every arm's headline metric ± interval.

    Its note names the networks that have no result, and the controls that equal the tickets.
    """
    metric = headline_metric(run)
    header, *rows = level_cells(run)
    title = quantity(metric).title if metric else "No level is finished yet"
    return TextTable(header, rows, title, " ".join([*left_out(run), *alike(run)]), keys=2)


def level_cells(run: RunRecord) -> list[list[str]]:
    """The cells of `level_table` as text, the header first.

    The last column is the tickets' early-stop step; at level 0 the dense networks are the tickets.
    """
    metric = headline_metric(run)
    by_place = {(row["arm"], row["level"], row["metric"]): row for row in summary_rows(run)}
    header = ["level", "kept %", *run.arms, "early stop, step"]
    return [header] + [
        [
            str(level.level),
            percent(level.density),
            *(show(by_place.get((arm, level.level, metric))) for arm in run.arms),
            show(by_place.get((TICKET if level.level else DENSE, level.level, EARLY_STOP))),
        ]
        for level in run.levels
    ]


def left_out(run: RunRecord) -> list[str]:
    """Sentences on the networks that have no result: not trained, or diverged.

    A network is not trained if the scores of its mask are invalid.
    """
    sentences = []
    for level in run.levels:
        lost = [member.unscored for member in level.members if member.unscored is not None]
        if lost:
            reasons = " ".join(dict.fromkeys(one.sentence for one in lost))
            whole = len(lost) == len(level.members)
            number = "no network" if whole else f"{len(lost)} of {len(level.members)} networks not"
            sentences.append(f"Level {level.level}: {number} trained. {reasons}")
    return sentences + _diverged_sentence(_diverged(run))


def alike(run: RunRecord) -> list[str]:
    """Sentences on controls with exactly the results of the tickets.

    Controls that change the mask have them if a method starts with all weights.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for level in run.levels:
        results = {arm: _results(level, arm) for arm in level.arms}
        ticket = results.pop(TICKET, None)
        same = tuple(arm for arm, one in results.items() if arm != DENSE and one == ticket)
        if same:
            found.setdefault(same, []).append(str(level.level))
    return [
        f"At level {listing(levels)}, {listing(arms)} {'has' if len(arms) == 1 else 'have'} "
        "exactly the results of the ticket; a difference of 0 there is not evidence."
        for arms, levels in found.items()
    ]


def _results(level: Level, arm: str) -> dict[int, bytes]:
    """The bytes of all results and training curves of an arm, by replicate."""
    numbers = [*level.results.values(), *level.curves.values()]
    return {
        member.replicate: b"".join(values[..., i].tobytes() for values in numbers)
        for i, member in enumerate(level.members)
        if member.arm == arm
    }


def _diverged_sentence(places: dict[tuple[str, int], list[int]]) -> list[str]:
    number = sum(map(len, places.values()))
    if not number:
        return []
    if number <= MOST_NAMED:
        named = listing([_place(*place, lost) for place, lost in places.items()])
        verb = "diverged and is" if number == 1 else "diverged and are"
        return [f"{named[0].upper()}{named[1:]} {verb} left out."]
    by_arm = Counter[str]()
    for (arm, _), lost in places.items():
        by_arm[arm] += len(lost)
    named = listing([f"{count:,} of {arm}" for arm, count in by_arm.items()])
    return [f"{counted(number, 'network')} diverged and are left out: {named}."]


def _diverged(run: RunRecord) -> dict[tuple[str, int], list[int]]:
    """Arm and level -> the replicates that diverged there."""
    found: dict[tuple[str, int], list[int]] = {}
    for level in run.levels:
        for one in level.members:
            if one.diverged_at is not None and one.unscored is None:
                found.setdefault((one.arm, level.level), []).append(one.replicate)
    return found


def _place(arm: str, level: int, replicates: list[int]) -> str:
    which = "replicate" if len(replicates) == 1 else "replicates"
    return f"{which} {listing(map(str, sorted(replicates)))} of {arm} at level {level}"


def percent(density: float) -> str:
    """A density in percent: three significant digits, no trailing zeros.

    >>> percent(1.0), percent(0.5127), percent(0.008)
    ('100', '51.3', '0.8')
    """
    return f"{100 * density:.3g}"


def show(row: Row | None) -> str:
    """A summary as text: mean ± half the interval, and how many replicates if some are missing.

    >>> show({"metric": "test_accuracy_final", "mean": 0.67, "low": 0.65, "high": 0.69,
    ...       "replicates": 4, "values": [0.67] * 4 + [None]})
    '67.0±2.0 (4/5)'
    """
    if row is None or row["mean"] is None:
        return "–"
    _, _, scale, digits = quantity(row["metric"])
    text = f"{scale * row['mean']:.{digits}f}"
    if row["low"] is not None:
        text += f"±{scale * (row['high'] - row['low']) / 2:.{digits}f}"
    if row["replicates"] < len(row["values"]):
        text += f" ({row['replicates']}/{len(row['values'])})"
    return text


def place_table(rows: Sequence[Row]) -> TextTable:
    """The rows of a measurement: a line for each arm, level and so on, a column for each metric.

    Cells are means ± half the interval. Metrics of parts of a network, whose names have a '/', are
    left out.

    >>> row = {"arm": "ticket", "level": 1, "mean": 0.5, "low": 0.25, "high": 0.75, "replicates": 3}
    >>> print(place_table([row | {"metric": "ece"}, row | {"metric": "dead_units/Dense_0"}]))
    arm     level       ece
    ticket      1  0.5±0.25
    """
    names = [name for name in (rows[0] if rows else ()) if name not in NUMBERS]
    places: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        if "/" not in (metric := row.get("metric", "accuracy")):
            place = tuple(_short(row[name]) for name in names)
            places.setdefault(place, {})[metric] = mean_cell(row)
    metrics = list(dict.fromkeys(metric for found in places.values() for metric in found))
    lines = [[*place, *(found.get(m, "–") for m in metrics)] for place, found in places.items()]
    return TextTable([*names, *metrics], lines, keys=len(names))


def mean_cell(row: Row | None) -> str:
    """The mean of a row ± half the interval, as text.

    >>> mean_cell({"mean": 0.5, "low": 0.25, "high": 0.75}), mean_cell(None)
    ('0.5±0.25', '–')
    """
    if row is None or row["mean"] is None:
        return "–"
    half = "" if row["low"] is None else f"±{(row['high'] - row['low']) / 2:.2g}"
    return f"{row['mean']:.3g}{half}"


def _short(value: Any) -> str:
    return "–" if value is None else brief(value) if isinstance(value, float) else str(value)


def show_difference(row: Row) -> str:
    """A paired difference as text: the mean with its sign, and the interval.

    >>> show_difference({"metric": "test_accuracy_final", "mean": 0.02, "low": -0.01, "high": 0.05})
    '+2.0 [−1.0, +5.0]'
    """
    _, _, scale, digits = quantity(row["metric"])
    mean, low, high = (
        "–" if row[end] is None else f"{scale * row[end]:+.{digits}f}".replace("-", "−")
        for end in ("mean", "low", "high")
    )
    return mean if row["low"] is None else f"{mean} [{low}, {high}]"


def difference_cells(rows: list[Row]) -> list[list[str]]:
    """The tickets minus each control as text: one line per level, one column per control."""
    controls = list(dict.fromkeys(row["control"] for row in rows))
    by_place = {(row["level"], row["control"]): show_difference(row) for row in rows}
    densities = {row["level"]: percent(row["density"]) for row in rows}
    header = ["level", "kept %", *(f"ticket − {control}" for control in controls)]
    return [header] + [
        [str(level), density, *(by_place.get((level, control), "–") for control in controls)]
        for level, density in densities.items()
    ]


def verdict(rows: list[Row], dense: float | None = None) -> str:
    """The outcome: the tickets against the dense networks and the controls at one level.

    The level is the sparsest at which the tickets' mean is no worse than that of the dense
    networks; the text states that this choice depends on the results. If there is none, it is the
    sparsest of all.

    Args:
      rows: from `tables.difference_rows`.
      dense: the dense networks' mean; of an accuracy, the text then gives a point as a share of the
        dense error, the unit of the studies.
    """
    if not rows:
        return "No level with tickets and controls is finished yet."
    level, why, caveat = _chosen_level(rows)
    chosen = [row for row in rows if row["level"] == level]
    shown = quantity(chosen[0]["metric"])
    against = ", ".join(f"{row['control']} {show_difference(row)}" for row in chosen)
    pairs = "–".join(str(n) for n in sorted({row["replicates"] for row in chosen}))
    return (
        f"{why} keeps {percent(chosen[0]['density'])} % of the weights. {shown.label} there, "
        f"ticket minus control{' in points' if shown.unit == '%' else ''}: {against} "
        f"(mean and 95 % interval over {pairs} paired replicates). "
        f"{_share(shown, dense)}{caveat}".strip()
    )


def _share(shown: Quantity, dense: float | None) -> str:
    if shown.unit != "%" or dense is None or dense >= 1:
        return ""
    return f"One point is {1 / (1 - dense):.2g} % of the dense error. "


def _chosen_level(rows: list[Row]) -> tuple[int, str, str]:
    """The level, how it was chosen, and what that does to its differences."""
    better = 1 if "accuracy" in rows[0]["metric"] else -1
    dense = [row for row in rows if row["control"] == DENSE and row["mean"] is not None]
    no_worse = [row["level"] for row in dense if better * row["mean"] >= 0]
    if no_worse:
        why = "The sparsest level whose tickets are on average no worse than the dense networks"
        caveat = (
            "This level was chosen after looking at the results, so its differences are "
            "optimistic; new seeds at this density would test it."
        )
        return max(no_worse), why, caveat if len({row["level"] for row in rows}) > 1 else ""
    why = "No level's tickets are on average as good as the dense networks; the sparsest level"
    return max(row["level"] for row in rows), why if dense else "The sparsest level", ""
