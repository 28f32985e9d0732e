"""Shared parts of benchmarks: options, and the final JSON."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from lth_jax.analysis.ratios import Row, line
from lth_jax.store import environment, files

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


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
