"""`lth`: lists, shows and draws what the store holds; it never builds a model and never trains.

Exit codes: 0 done; 2 bad input, one sentence on stderr; 141 the reader of a pipe went away.
What is heavy is imported by the command that needs it.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lth_jax.store import RunInfo

BROKEN_PIPE = 141  # what a shell reports for a program ended by SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
      argv: the words after `lth`; those of the process by default.
    """
    arguments = _parser().parse_args(argv)
    from lth_jax.store import StoreError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without '±' gets a question mark
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more on its way out, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (StoreError, OSError) as error:
        print(f"lth: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lth", description="Look at runs of lottery tickets.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--root", default="runs", help="folder of all runs (default: %(default)s)")
    readable = argparse.ArgumentParser(add_help=False)
    readable.add_argument("--json", action="store_true", help="print JSON for machines")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("run", metavar="RUN", help="a run's folder, name, or unique beginning of it")

    ls = commands.add_parser("ls", parents=[shared, readable], help="list all runs")
    ls.set_defaults(command=_ls)
    show = commands.add_parser("show", parents=[named, shared, readable], help="a run's numbers")
    show.set_defaults(command=_show)
    report = commands.add_parser("report", parents=[named, shared], help="draw a run's report")
    report.set_defaults(command=_report)
    return parser


def _ls(arguments: argparse.Namespace) -> None:
    from lth_jax.store import StoreError, list_runs

    if not Path(arguments.root).is_dir():
        raise StoreError(f"`--root` must be the folder of all runs; '{arguments.root}' is none.")
    runs = list_runs(arguments.root)
    if arguments.json:
        _print_json({"runs": [info._asdict() for info in runs]})
        return
    width = max((len(info.run) for info in runs), default=0)
    for info in runs:
        print(f"{info.run:{width}}  {info.status:11}  {info.created}")


def _show(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from lth_jax.report import level_table, read_run
    from lth_jax.report.display import headline_metric, verdict
    from lth_jax.report.tables import difference_rows, summary_rows
    from lth_jax.store import Store

    info = _find(arguments)
    run = read_run(Store(_root(info)), info.path)
    if arguments.json:
        rows = summary_rows(run)
        _print_json({"run": info.run, "config_hash": info.config_hash, "rows": rows})
        return
    print(f"{info.run}: {info.status}, started {info.created}")
    Console(width=None if sys.stdout.isatty() else 200).print(level_table(run))
    metric = headline_metric(run)
    print(verdict(difference_rows(run, metric) if metric else []))


def _report(arguments: argparse.Namespace) -> None:
    from lth_jax.report import write_report
    from lth_jax.store import Store

    info = _find(arguments)
    print(write_report(Store(_root(info)), info))


def _find(arguments: argparse.Namespace) -> "RunInfo":
    from lth_jax.store import find_run

    return find_run(arguments.root, arguments.run)


def _root(info: "RunInfo") -> Path:
    """The store of a run, which lies beside it even where `--root` points elsewhere."""
    return Path(info.path).resolve().parent


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))
