"""`lth`: lists, shows, draws, weighs, saves and checks what a store holds; it builds no model.

Exit codes: 0 done; 1 `lth verify` found problems; 2 bad input, one sentence on stderr; 130 and 143
stopped by SIGINT and SIGTERM; 141 the reader of a pipe went away.
What is heavy is imported by the command that needs it.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from lth_jax.store import RunInfo
    from lth_jax.store.verify import Problem

BROKEN_PIPE = 141  # what a shell reports for a program ended by SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
      argv: the words after `lth`; those of the process by default.
    """
    arguments = _parser().parse_args(argv)
    try:
        from lth_jax.extras import MissingExtraError
        from lth_jax.store import Interrupted, StoreError, interruptible
    except KeyboardInterrupt:
        print("lth: stopped by SIGINT.", file=sys.stderr)
        return 130

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without '±' gets a question mark
    try:
        with interruptible():
            code = arguments.command(arguments)
            sys.stdout.flush()
    except Interrupted as stop:
        print(f"lth: stopped by {stop.signal}.", file=sys.stderr)
        return stop.code
    except BrokenPipeError:
        # The interpreter flushes once more on its way out, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (StoreError, MissingExtraError, OSError) as error:
        print(f"lth: {error}", file=sys.stderr)
        return 2
    return code or 0


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
    ls.add_argument("--all", action="store_true", help="also the pilots of studies")
    ls.set_defaults(command=_ls)
    show = commands.add_parser("show", parents=[named, shared, readable], help="a run's numbers")
    show.set_defaults(command=_show)
    report = commands.add_parser("report", parents=[named, shared], help="draw a run's report")
    report.set_defaults(command=_report)
    size = commands.add_parser(
        "size", parents=[shared, readable], help="what tickets take, beside bounds and dense"
    )
    size.add_argument("target", metavar="RUN|FILE", help="a run, or a .ticket file")
    size.set_defaults(command=_size)
    spectrum = commands.add_parser(
        "spectrum", parents=[named, shared, readable], help="a run's curvature at named points"
    )
    spectrum.set_defaults(command=_spectrum)
    _add_export(commands.add_parser("export", parents=[named, shared], help="save a ticket"))
    verify = commands.add_parser("verify", parents=[shared], help="check a run, or all, for damage")
    which = verify.add_mutually_exclusive_group()
    which.add_argument("run", nargs="?", metavar="RUN", help="a run; all by default")
    which.add_argument("--all", action="store_true", help="all runs, nodes, sweeps and studies")
    verify.add_argument(
        "--repair",
        action="store_true",
        help="remove what is damaged, or make it again of other files; the next run of the same "
        "command makes the rest again",
    )
    verify.set_defaults(command=_verify)
    rm = commands.add_parser("rm", parents=[named, shared], help="remove a run; `gc` its nodes")
    rm.set_defaults(command=_rm)
    gc = commands.add_parser("gc", parents=[shared], help="what no run lists")
    gc.add_argument("--delete", action="store_true", help="delete it; else it is only counted")
    gc.add_argument(
        "--unfinished", action="store_true", help="also what runs and sweeps that stopped may need"
    )
    gc.set_defaults(command=_gc)
    du = commands.add_parser("du", parents=[shared, readable], help="what runs take on disk")
    du.set_defaults(command=_du)
    return parser


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("file", metavar="FILE", help="the .ticket file to write")
    export.add_argument("--level", type=int, required=True, help="round of train-prune-rewind")
    export.add_argument("--replicate", type=int, required=True, help="which seed")
    export.add_argument("--arm", default="ticket", help="ticket, dense, or a control")
    export.add_argument(
        "--values",
        default="trained",
        choices=("trained", "rewound"),
        help="as trained, or of the rewind point (default: %(default)s)",
    )
    export.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16", "int8", "int4"),
        help="how values are written (default: %(default)s)",
    )
    export.set_defaults(command=_export)


def _ls(arguments: argparse.Namespace) -> None:
    from lth_jax.store import list_runs

    runs = list_runs(_folder(arguments), pilots=arguments.all)
    if arguments.json:
        _print_json({"runs": [info._asdict() for info in runs]})
        return
    width = max((len(info.run) for info in runs), default=0)
    for info in runs:
        print(f"{info.run:{width}}  {info.status:11}  {info.created}")


def _show(arguments: argparse.Namespace) -> None:
    from lth_jax.report import level_table, read_run, unit_rows
    from lth_jax.report.display import headline_metric, unscored, verdict
    from lth_jax.report.tables import difference_rows, summary_rows
    from lth_jax.store import Store

    info = _find(arguments)
    store = Store(_root(info))
    run, units = read_run(store, info.path), unit_rows.read(store, info.path)
    if arguments.json:
        rows = summary_rows(run) + (unit_rows.rows(units) if units else [])
        _print_json({"run": info.run, "config_hash": info.config_hash, "rows": rows})
        return
    print(f"{info.run}: {info.status}, started {info.created}")
    _print_tables(level_table(run))
    metric = headline_metric(run)
    for sentence in unscored(run):
        print(sentence)
    print(verdict(difference_rows(run, metric) if metric else []))
    if units:
        _print_tables(unit_rows.table(units))


def _report(arguments: argparse.Namespace) -> None:
    from lth_jax.report import write_report
    from lth_jax.store import Store

    info = _find(arguments)
    print(write_report(Store(_root(info)), info))


def _size(arguments: argparse.Namespace) -> None:
    target = Path(arguments.target)
    if target.is_file() or target.suffix == ".ticket":
        _file_size(target, arguments.json)
    else:
        _run_size(arguments)


def _file_size(path: Path, as_json: bool) -> None:
    from lth_jax import coding
    from lth_jax.coding.display import file_summary, file_tables
    from lth_jax.coding.ticket_file import naming
    from lth_jax.store import StoreError

    try:
        provenance = coding.inspect(path).manifest.provenance  # checks the header's sizes first
        with naming(path):
            sizes = coding.table(path.read_bytes())
    except coding.TicketError as error:
        raise StoreError(str(error)) from error
    if as_json:
        leaves = [leaf._asdict() for leaf in sizes.leaves]
        found = {"leaves": leaves, "total": sizes.total._asdict()}
        _print_json({"file": str(path), "provenance": provenance, **found})
        return
    _print_tables(*file_tables(sizes))
    print(file_summary(sizes))
    print(f"from {json.dumps(provenance)}" if provenance else "of unknown origin")


def _run_size(arguments: argparse.Namespace) -> None:
    from lth_jax.coding.display import run_summary, run_tables
    from lth_jax.coding.run_size import size_rows
    from lth_jax.store import Store

    arguments.run = arguments.target
    info = _find(arguments)
    rows = size_rows(Store(_root(info)), info.path)
    if arguments.json:
        _print_json({"run": info.run, "config_hash": info.config_hash, "rows": rows})
        return
    print(f"{info.run}: {info.status}, started {info.created}")
    _print_tables(*run_tables(rows))
    print(run_summary(rows))


def _spectrum(arguments: argparse.Namespace) -> None:
    from lth_jax.report import spectra, write_report
    from lth_jax.store import Store, StoreError

    info = _find(arguments)
    store = Store(_root(info))
    found = spectra.read(store, info.path)
    if found is None:
        command = f"python -m experiments.spectrum {info.run}"
        raise StoreError(f"{info.run} has no spectra yet; `{command}` computes them.")
    if arguments.json:
        rows = spectra.rows(found)
        _print_json({"run": info.run, "config_hash": info.config_hash, "rows": rows})
        return
    _print_tables(spectra.table(found))
    print(f"page: {write_report(store, info)}")


def _export(arguments: argparse.Namespace) -> None:
    from lth_jax.coding.run_size import PRECISIONS
    from lth_jax.coding.stored import encode_stored, find_stored
    from lth_jax.store import Store, files

    info = _find(arguments)
    store = Store(_root(info))
    place = {name: getattr(arguments, name) for name in ("arm", "level", "replicate")}
    one = find_stored(store, info, **place)
    precision = PRECISIONS[arguments.precision]
    data = encode_stored(store, info, one, values=arguments.values, precision=precision)
    files.write(Path(arguments.file), data, make_folder=False)
    print(f"{arguments.file}: {len(data):,} bytes")
    if one.state:
        left_out = f"the model's state ({len(one.state)} arrays) is left out"
        print(f"lth: a ticket holds parameters; {left_out}.", file=sys.stderr)


def _verify(arguments: argparse.Namespace) -> int:
    from lth_jax.store import Store, StoreError
    from lth_jax.store.listing import is_run
    from lth_jax.store.verify import verify_all, verify_run

    if arguments.run:
        folders = [Path(_find(arguments).path)]
        store = Store(folders[0].resolve().parent)
        found = list(verify_run(store, folders[0]))
    else:
        store = Store(_folder(arguments))
        folders = sorted(path for path in store.root.glob("*") if is_run(path))
        found = list(verify_all(store))
    found += [problem for path in folders for problem in _verify_beside(path)]
    for problem in found:
        print(problem.sentence)
    for problem in found if arguments.repair else ():
        try:
            if problem.repair:
                problem.repair()
        except StoreError as error:
            print(f"lth: not repaired: {error}", file=sys.stderr)
    if not found:
        print(f"{len(folders)} runs are whole.")
    return 1 if found else 0


def _verify_beside(path: Path) -> "Iterator[Problem]":
    """The problems of what is in a run's folder, but no part of the run: frontier and tickets."""
    from lth_jax import coding
    from lth_jax.coding.ticket_file import naming
    from lth_jax.report import rates
    from lth_jax.store import CorruptError, files
    from lth_jax.store.verify import Problem

    try:
        rates.read(None, path)
    except CorruptError as error:
        yield Problem(path / rates.FILE, str(error), lambda: files.discard(path / rates.FILE))
    for ticket in sorted(path.rglob("*.ticket")):
        try:
            with naming(ticket):
                coding.table(ticket.read_bytes())
        except coding.TicketError as error:
            yield Problem(ticket, str(error), None)


def _rm(arguments: argparse.Namespace) -> None:
    from lth_jax.store.garbage import remove_run

    info = _find(arguments)
    remove_run(Path(info.path))
    print(f"{info.run} is removed; `lth gc` shows the nodes that no run lists any more.")


def _gc(arguments: argparse.Namespace) -> None:
    from lth_jax.store import Store
    from lth_jax.store.garbage import delete, find_garbage

    store = Store(_folder(arguments))
    garbage = find_garbage(store, unfinished=arguments.unfinished)
    for key in (*garbage.nodes, *garbage.partial):
        print(key)
    for sentence in garbage.kept:
        print(f"lth: {sentence}.", file=sys.stderr)
    number = len(garbage.nodes) + len(garbage.partial)
    if arguments.delete:
        print(f"{delete(store, garbage)} nodes are deleted, {_megabytes(garbage.bytes)} MB.")
    else:
        hint = "; `lth gc --delete` deletes them" if number else ""
        print(f"{number} nodes that no run lists, {_megabytes(garbage.bytes)} MB{hint}.")


def _du(arguments: argparse.Namespace) -> None:
    from lth_jax.store import Store
    from lth_jax.store.garbage import usage

    found = usage(Store(_folder(arguments)))
    if arguments.json:
        _print_json(found)
        return
    width = max((len(row["run"]) for row in found["runs"]), default=0)
    print(f"{'MB':{width}}  {'own':>10}  {'shared':>10}  {'files':>10}")
    for row in found["runs"]:
        sizes = [_megabytes(row[name]) for name in ("own", "shared", "files")]
        print(f"{row['run']:{width}}  {sizes[0]:>10}  {sizes[1]:>10}  {sizes[2]:>10}")
    for name, words in {
        "unlisted": "nodes that no run lists",
        "partial": "unfinished nodes",
        "sweeps": "sweeps",
        "other": "data, atlas and the like",
        "total": "all",
    }.items():
        print(f"{words}: {_megabytes(found[name])} MB")


def _megabytes(size: int | None) -> str:
    return "damaged" if size is None else f"{size / 1e6:,.2f}"


def _folder(arguments: argparse.Namespace) -> Path:
    from lth_jax.store import StoreError

    if not Path(arguments.root).is_dir():
        raise StoreError(f"`--root` must be the folder of all runs; '{arguments.root}' is none.")
    return Path(arguments.root)


def _find(arguments: argparse.Namespace) -> "RunInfo":
    from lth_jax.store import find_run

    return find_run(arguments.root, arguments.run)


def _root(info: "RunInfo") -> Path:
    """The store of a run, which lies beside it even where `--root` points elsewhere."""
    return Path(info.path).resolve().parent


def _print_tables(*tables: "Table") -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(*tables, sep="\n")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))
