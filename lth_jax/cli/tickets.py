"""`lth size`: sizes of tickets."""

import argparse
import json
from pathlib import Path

from lth_jax.cli import arguments as shared


def add_commands(commands: shared.Commands) -> None:
    """Adds `size`."""
    size = shared.add_command(
        commands,
        "size",
        _size,
        "show the size of tickets in bytes, beside theoretical bounds and dense networks",
        "lth size lenet-1a2b3c4d",
        "lth size one.ticket --json",
        as_json=True,
    )
    text = "a run, or a .ticket file"
    shared.add_run(size, "target", help=text)


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
    from lth_jax.text import print_tables

    try:
        provenance = coding.inspect(path).manifest.provenance  # checks the header's sizes first
        with naming(path):
            sizes = coding.table(path.read_bytes())
    except coding.TicketError as error:
        raise StoreError(str(error)) from error
    if as_json:
        leaves = [leaf._asdict() for leaf in sizes.leaves]
        found = {"leaves": leaves, "total": sizes.total._asdict()}
        shared.print_json({"file": str(path), "provenance": provenance, **found})
        return
    print_tables(*file_tables(sizes))
    print(file_summary(sizes))
    print(f"from {json.dumps(provenance)}" if provenance else "of unknown origin")


def _run_size(arguments: argparse.Namespace) -> None:
    from lth_jax.coding.display import run_summary, run_tables
    from lth_jax.coding.run_size import size_rows
    from lth_jax.store import Store
    from lth_jax.text import print_tables

    info = shared.find(arguments, arguments.target)
    rows = size_rows(Store(shared.root_of(info)), info.path)
    if arguments.json:
        shared.print_json({"run": info.run, "config_hash": info.config_hash, "rows": rows})
        return
    shared.print_state(info)
    print_tables(*run_tables(rows))
    print(run_summary(rows))
