"""`lth verify`, `rm`, `gc` and `du`: damage and disk space."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lth_jax.cli import arguments as shared
from lth_jax.cli.programs import UserError

if TYPE_CHECKING:
    from lth_jax.store.verify import Problem

FILES = (".ticket", ".safetensors", ".stablehlo", ".onnx")
"""The endings of files that `lth verify` checks."""
HASHED = "the SHA-256 of every leaf agrees"


def add_commands(commands: shared.Commands) -> None:
    """Adds `verify`, `rm`, `gc` and `du`."""
    verify = shared.add_command(
        commands,
        "verify",
        _verify,
        "check a run, all runs, or an exported file for damage",
        "lth verify lenet-1a2b3c4d",
        "lth verify one.ticket",
    )
    which = verify.add_mutually_exclusive_group()
    text = f"a run, or a file {', '.join(FILES)}; all runs by default"
    shared.add_run(which, "run", nargs="?", help=text)
    which.add_argument("--all", action="store_true", help="all runs, nodes, sweeps and studies")
    verify.add_argument(
        "--repair",
        action="store_true",
        help="remove damaged files, or restore them from others, and print what was done; the next "
        "run of the same command computes the rest again",
    )
    removed = shared.add_command(
        commands,
        "rm",
        _rm,
        "remove a run, or a sweep with the runs that it made; `lth gc` then finds their nodes",
        "lth rm lenet-1a2b3c4d",
        "lth rm ladder-1a2b3c4d --yes",
    )
    shared.add_run(removed, "run", help=shared.EITHER)
    removed.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    gc = shared.add_command(
        commands, "gc", _gc, "show or delete nodes that no run lists", "lth gc", "lth gc --delete"
    )
    gc.add_argument(
        "--delete", action="store_true", help="delete them; without it, they are only listed"
    )
    gc.add_argument(
        "--unfinished",
        action="store_true",
        help="also nodes that interrupted runs and sweeps need to continue",
    )
    shared.add_command(
        commands,
        "du",
        _du,
        "show the disk space of runs",
        "lth du",
        "lth du --root /scratch/runs --json",
        as_json=True,
    )


def _verify(arguments: argparse.Namespace) -> int:
    from lth_jax.store import Store
    from lth_jax.store.listing import run_folders
    from lth_jax.store.verify import verify_all, verify_run
    from lth_jax.text import counted

    if arguments.run and Path(arguments.run).suffix in FILES:
        return _verify_file(Path(arguments.run))
    if arguments.run:
        folders = [Path(shared.find(arguments, arguments.run).path)]
        store = Store(folders[0].resolve().parent)
        found = list(verify_run(store, folders[0]))
    else:
        store = Store(shared.folder(arguments))
        folders = run_folders(store.root)
        found = list(verify_all(store))
    found += [problem for path in folders for problem in _verify_beside(path)]
    repaired = 0
    for problem in found:
        print(problem.sentence)
        if arguments.repair:
            done, text = _repair(problem)
            repaired += done
            print(f"  {'repaired' if done else 'not repaired'}: {text}")
    if not found:
        print(f"No damage in {counted(len(folders), 'run')}.")
    elif arguments.repair:
        print(
            f"Repaired {repaired} of {counted(len(found), 'problem')}; the next run of the same "
            "command computes again what is missing."
        )
    return 1 if found else 0


def _repair(problem: "Problem") -> tuple[bool, str]:
    """Repairs a problem; returns whether it is repaired, and how or why not."""
    from lth_jax.store import StoreError

    if problem.repair is None:
        return False, "only the command that wrote it can write it again."
    logging.disable(logging.WARNING)  # the store logs the problem, which is printed above
    try:
        return True, f"{problem.repair()}."
    except StoreError as error:
        return False, str(error)
    finally:
        logging.disable(logging.NOTSET)


def _verify_file(path: Path) -> int:
    """Prints the damage of an exported file, or what was checked."""
    from lth_jax import coding, exchange
    from lth_jax.coding.manifest import INITIALIZER
    from lth_jax.exchange.programs import check_onnx
    from lth_jax.exchange.sparse_file import check_tensors
    from lth_jax.store import StoreError

    checks: dict[str, Callable[[Path], object]] = {
        ".ticket": _decode_ticket,
        ".safetensors": check_tensors,
        ".stablehlo": exchange.load_stablehlo,
        ".onnx": check_onnx,
    }
    try:
        checks[path.suffix](path)
    except OSError as error:
        raise StoreError(f"'{path}' cannot be read: {error.strerror}.") from None
    except (coding.TicketError, exchange.ExchangeError) as error:
        print(error)
        return 1
    if path.suffix == ".ticket":
        is_made = coding.inspect(path).manifest.values == INITIALIZER
        what = "its hashes cover values that an initialiser makes" if is_made else HASHED
        print(f"No damage in '{path}'; {what}.")
    else:
        print(
            f"No damage in the structure of '{path}'; the format has no hashes, so the values were "
            "not checked."
        )
    return 0


def _decode_ticket(path: Path) -> None:
    """Raises `TicketError` unless the decoded ticket matches its hashes."""
    from lth_jax import coding
    from lth_jax.coding.ticket_file import naming

    with naming(path):
        coding.table(path.read_bytes())


def _verify_beside(path: Path) -> "Iterator[Problem]":
    """The problems of further files in a run's folder: frontier and tickets."""
    from lth_jax import coding
    from lth_jax.report import rates
    from lth_jax.store import CorruptError
    from lth_jax.store.verify import Problem, removing

    try:
        rates.read(None, path)
    except CorruptError as error:
        yield Problem(path / rates.FILE, str(error), removing(path / rates.FILE))
    for ticket in sorted(path.rglob("*.ticket")):
        try:
            _decode_ticket(ticket)
        except coding.TicketError as error:
            yield Problem(ticket, str(error), None)


def _rm(arguments: argparse.Namespace) -> None:
    from lth_jax.store import Store
    from lth_jax.store.garbage import remove_run, remove_sweep, sweep_runs
    from lth_jax.text import counted

    path = shared.find_folder(arguments, arguments.run)
    rest = "; `lth gc` shows the nodes that no run lists any more."
    if not shared.is_sweep(path):
        if arguments.yes or _is_confirmed(path.name):
            remove_run(path)
            print(f"{path.name} is removed{rest}")
        return
    store = Store(path.resolve().parents[1])
    what = f"{path.name} and {counted(len(sweep_runs(store, path).removed), 'run')} of its cells"
    if not (arguments.yes or _is_confirmed(what)):
        return
    found = remove_sweep(store, path)
    print(f"{what} are removed{rest}")
    for runs, why in (
        (found.shared, "another sweep lists them"),
        (found.foreign, "another command, or an earlier version, made or opened them"),
    ):
        if runs:
            print(f"kept, since {why}: {', '.join(runs)}")


def _is_confirmed(what: str) -> bool:
    """Asks on the terminal whether to remove something; prints a message if not."""
    if not sys.stdin.isatty():
        raise UserError(f"`--yes` is needed to remove {what} when stdin is not a terminal.")
    print(f"Remove {what}? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("Nothing is removed.")
    return False


def _gc(arguments: argparse.Namespace) -> None:
    from lth_jax.store import Store
    from lth_jax.store.garbage import delete, find_garbage

    store = Store(shared.folder(arguments))
    garbage = find_garbage(store, unfinished=arguments.unfinished)
    for key in (*garbage.nodes, *garbage.partial):
        print(key)
    for sentence in garbage.kept:
        print(f"lth: {sentence}.", file=sys.stderr)
    number, size = len(garbage.nodes) + len(garbage.partial), shared.megabytes(garbage.bytes)
    if arguments.delete:
        print(f"{delete(store, garbage)} nodes are deleted, {size} MB.")
    else:
        hint = "; `lth gc --delete` deletes them" if number else ""
        print(f"{number} nodes that no run lists, {size} MB{hint}.")


def _du(arguments: argparse.Namespace) -> None:
    from lth_jax.store import Store
    from lth_jax.store.garbage import usage
    from lth_jax.text import TextTable, print_tables

    found = usage(Store(shared.folder(arguments)))
    if arguments.json:
        shared.print_json(found)
        return
    columns = ("own", "shared", "files")
    rows = [
        [row["run"], *(shared.megabytes(row[name]) for name in columns)] for row in found["runs"]
    ]
    print_tables(TextTable(["run", *(f"{name} MB" for name in columns)], rows))
    for name, words in {
        "unlisted": "nodes that no run lists",
        "partial": "unfinished nodes",
        "sweeps": "sweeps",
        "other": "data, atlas and other files",
        "total": "all",
    }.items():
        print(f"{words}: {shared.megabytes(found[name])} MB")
