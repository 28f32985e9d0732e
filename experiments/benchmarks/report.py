"""Shared parts of benchmarks: rows with ratios, options, and the final JSON."""

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from lth_jax.analysis.timing import alternated
from lth_jax.store import environment, files

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
OURS = "ours"
Row = dict[str, Any]


def row(
    case: str,
    ours: Any,
    alternatives: Mapping[str, float] | None = None,
    *,
    pairs: Sequence[float] = (),
    goal: float | None = None,
    judged: float | None = None,
    most: bool = True,
    **more: Any,
) -> Row:
    """One line of a benchmark.

    Args:
      case: what was measured.
      ours: our figure.
      alternatives: the figures of others.
      pairs: ours over the alternative, in alternated pairs.
      goal: goal for the judged value.
      judged: the value that the goal applies to; the median of the pairs by default.
      most: whether the goal is an upper bound, else a lower one.
      **more: further fields.

    >>> found = row("a step", 1.0, {"other": 2.0}, pairs=[0.4, 0.5, 0.6], goal=1.0)
    >>> found["ratio"], found["spread"], found["met"]
    (0.5, [0.4, 0.6], True)
    """
    ratio = statistics.median(pairs) if pairs else None
    figure = ratio if judged is None else judged
    met = None
    if goal is not None and figure is not None:
        met = bool(figure <= goal if most else figure >= goal)
    spread = [min(pairs), max(pairs)] if pairs else None
    found = {"case": case, "ours": ours, "alternatives": dict(alternatives or {}), "ratio": ratio}
    return {**found, "spread": spread, "goal": goal, "met": met, **more}


def beside(
    case: str, figures: Mapping[str, Sequence[float]], other: str, ours: str = OURS, **options: Any
) -> Row:
    """The row of two alternated ways, by the medians of their values.

    Args:
      case: what was measured.
      figures: by way, one per round.
      other: the alternative.
      ours: our way.
      **options: of `row`.
    """
    pairs = [a / b for a, b in zip(figures[ours], figures[other], strict=True)]
    mine, theirs = (statistics.median(figures[way]) for way in (ours, other))
    return row(case, mine, {other: theirs}, pairs=pairs, **options)


def beside_each(
    case: str,
    ours: Callable[[], Any],
    ways: Mapping[str, Callable[[], Any]],
    pairs: int | Callable[[str], int],
    goals: Mapping[str, float] | None = None,
) -> list[Row]:
    """Seconds of our way and of each alternative, in alternated pairs.

    Args:
      case: what is measured.
      ours: our way.
      ways: the alternatives by name.
      pairs: the number of pairs, or a function of the alternative that returns it.
      goals: upper bounds of ratios by alternative.
    """
    rows = []
    for name, way in ways.items():
        rounds = pairs if isinstance(pairs, int) else pairs(name)
        seconds = alternated({OURS: ours, name: way}, rounds)
        rows.append(beside(f"{case} beside {name}", seconds, name, goal=(goals or {}).get(name)))
    return rows


def main(
    name: str,
    doc: str | None,
    measure: Callable[[argparse.Namespace], Iterable[Row]],
    add_options: Callable[[argparse.ArgumentParser], Any] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Runs a benchmark: prints a line for each row, and one JSON object last.

    Args:
      name: name of its module.
      doc: the module's documentation, whose first line `--help` shows.
      measure: `options -> rows`.
      add_options: adds options to the parser, in addition to `--quick` and `--commit-results`.
      argv: the command line, `sys.argv` by default.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.benchmarks.{name}", description=str(doc).splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="smaller, under a minute")
    parser.add_argument(
        "--commit-results",
        action="store_true",
        help=f"also append a line to benchmarks/results/{name}.jsonl",
    )
    if add_options is not None:
        add_options(parser)
    options = parser.parse_args(argv)
    results = []
    for found in measure(options):
        print(line(found), flush=True)
        results.append(found)
    report = {"benchmark": name, "machine": machine(), "results": results}
    if options.commit_results:
        path = RESULTS / f"{name}.jsonl"
        before = path.read_text() if path.is_file() else ""
        whole = before + json.dumps(report | circumstances(options)) + "\n"
        files.write(path, whole.encode())
        print(f"appended: {path}")
    print(json.dumps(report))


def line(found: Row) -> str:
    """A row as text.

    >>> line(row("a step, s", 0.5, pairs=[0.4], goal=1.0))
    'a step, s: 0.5, ratio 0.400 (goal 1: met)'
    """
    ours = f"{found['ours']:.4g}" if isinstance(found["ours"], float) else found["ours"]
    ratio = "" if found["ratio"] is None else f", ratio {found['ratio']:.3f}"
    goal = "" if found["goal"] is None else f" (goal {found['goal']:.3g}: "
    met = {None: "", True: "met)", False: "NOT met)"}[found["met"] if goal else None]
    reason = f" ({found['reason']})" if found.get("reason") else ""
    return f"{found['case']}: {ours}{ratio}{goal}{met}{reason}"


def machine() -> str:
    """The processor and the device that JAX runs on."""
    processor = platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}"


def circumstances(options: argparse.Namespace) -> dict[str, Any]:
    """Date, commit, environment and options of a benchmark, for committed results."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "environment": environment(),
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()},
    }


def commit() -> str | None:
    """The commit of the code, with `-dirty` if files differ; None outside a clone."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
