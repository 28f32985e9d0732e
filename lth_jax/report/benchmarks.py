"""The results of benchmarks over commits, as a figure and as tables."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lth_jax.report.arms import looks
from lth_jax.report.plotting import GREY, panes, style, ticker, with_ends
from lth_jax.text import listing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Runs = Mapping[str, Sequence[dict[str, Any]]]
"""The committed runs of each benchmark, the oldest first."""
MOST_DRAWN = 12


def markdown(runs: Runs) -> str:
    """The page: a table of the latest run of each benchmark, with the ratio of the run before."""
    lines = [
        "# Results",
        "",
        "The committed results of the [benchmarks](benchmarks.md), written by",
        "`python -m experiments.benchmarks.history`. A ratio is ours over the alternative: the",
        "median of alternated pairs, with the smallest and the largest. `better` states whether",
        "lower or higher values are better. A goal bounds the ratio, our value (`ours`), or",
        "another value of the row. `before`: the ratio of the run before, if it had the same",
        "alternatives.",
        "",
        "![Ratios over commits](results.svg)",
    ]
    for name, all_runs in runs.items():
        last, earlier = all_runs[-1], _rows(all_runs[-2]) if len(all_runs) > 1 else {}
        lines += ["", f"## {name}", "", _origin(last), ""]
        lines += [
            "| | case | better | ours | alternatives | ratio | before | goal |",
            "|---|---|---|---|---|---|---|---|",
        ]
        table = []
        for number, (case, row) in enumerate(_rows(last).items(), 1):
            ways = row["alternatives"].items()
            others = ", ".join(f"{way} {_number(value)}" for way, value in ways) or "–"
            past = earlier.get(case, row | {"ratio": None})
            before = _number(past["ratio"]) if _alike(past, row) else "–"
            better = row.get("better", "–")
            cells = [str(number), case, better, _number(row["ours"]), others, _ratio(row), before]
            table.append([*cells, _goal(row)])
        equal = (list(rows) for _, rows in itertools.groupby(table, lambda row: row[2:]))
        lines += [f"| {' | '.join(cells)} |" for rows in equal for cells in _folded(rows)]
    return "\n".join(lines) + "\n"


@style()
def draw(runs: Runs) -> Figure:
    """The ratios of benchmarks over their committed runs, numbered like the tables' rows.

    Benchmarks without a ratio, or with more than `MOST_DRAWN` in a run, and ratios to other
    alternatives than those of the last run are left out.
    """
    with_ratios = {
        name: [run for run in all_runs if any(row["ratio"] for row in run["results"])]
        for name, all_runs in runs.items()
    }
    shown = {
        name: found
        for name, found in with_ratios.items()
        if found and sum(row["ratio"] is not None for row in found[-1]["results"]) <= MOST_DRAWN
    }
    figure, grid = panes(len(shown), "", "Ours / alternative", share_x=False)
    for axes, (name, found) in zip(grid, shown.items(), strict=True):
        cases, ends = list(_rows(found[-1])), []
        for number, (case, look) in enumerate(looks(cases).items(), 1):
            last = _rows(found[-1])[case]
            rows = [_rows(run).get(case, last | {"ratio": None}) for run in found]
            places = [i for i, row in enumerate(rows) if row["ratio"] and _alike(row, last)]
            values = [rows[i]["ratio"] for i in places]
            [line] = axes.plot(places, values, marker=look.marker, color=look.color)
            low, high = (
                zip(*(rows[i]["spread"] for i in places), strict=True) if places else ((), ())
            )
            with_ends(line, low, high, case)
            ends += [(values[-1], places[-1], number)] if places else []
        for k, (value, place, number) in enumerate(sorted(ends)):  # neighbours stand side by side
            axes.annotate(
                str(number), (place, value), (6 + 14 * (k % 4), 0),
                textcoords="offset points", va="center",
            )  # fmt: skip
        axes.axhline(1, color=GREY, linewidth=0.8)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xticks(range(len(found)), [run["commit"][:7] for run in found])
        axes.set_xlim(-0.5, len(found) - 0.5)
        axes.set_title(name)
    return figure


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows have the same alternatives, so that their ratios may be compared."""
    return bool(one["alternatives"].keys() == other["alternatives"].keys())


def _rows(run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["case"]: row for row in run["results"]}


def _folded(rows: Sequence[list[str]]) -> list[list[str]]:
    """Rows of equal figures as one, if their cases differ in one word only.

    >>> _folded([["1", "MLP, 2x2: MiB", "93"], ["2", "MLP, 4x4: MiB", "93"]])
    [['1–2', 'MLP, 2x2 and 4x4: MiB', '93']]
    """
    cases = [re.split(r"(\W*\s)", row[1]) for row in rows]
    if len(rows) == 1 or len({len(words) for words in cases}) > 1:
        return [*rows]
    columns = [list(dict.fromkeys(words)) for words in zip(*cases, strict=True)]
    if sum(len(words) > 1 for words in columns) > 1:
        return [*rows]
    case = "".join(listing(words) for words in columns)
    return [[f"{rows[0][0]}–{rows[-1][0]}", case, *rows[0][2:]]]


def _origin(run: Mapping[str, Any]) -> str:
    versions, options = run["environment"]["versions"], run["options"]
    command = [f"python -m experiments.benchmarks.{run['benchmark']}", "--quick" * options["quick"]]
    command += [f"--only={options['only']}"] if options.get("only") else []
    part = " (some of its cases)" if options.get("only") else ""
    changed = ", with changes that were not committed" if "-dirty" in run["commit"] else ""
    return (
        f"`{' '.join(filter(None, command))}`{part}, {run['date'][:10]}, "
        f"commit `{run['commit'][:7]}`{changed}, {run['machine']}, jax {versions['jax']}"
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def _ratio(row: Mapping[str, Any]) -> str:
    if row["ratio"] is None:
        return "–"
    low, high = row["spread"]
    return f"{row['ratio']:.3g} [{low:.3g}, {high:.3g}]"


def _goal(row: Mapping[str, Any]) -> str:
    """The goal, what it bounds, and whether it is met."""
    if row["goal"] is None:
        return "–"
    sign = {"lower": "≤ ", "higher": "≥ "}.get(row.get("better", ""), "")
    bounded = {"ours": "ours ", "ratio": "ratio "}
    named = [text for name, text in bounded.items() if row[name] == row.get("judged")]
    return f"{''.join(named[:1])}{sign}{row['goal']:g}, {'' if row['met'] else 'not '}met"
