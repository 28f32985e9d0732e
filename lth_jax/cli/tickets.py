"""`lth size` and `lth export`: sizes of tickets, and tickets as files."""

import argparse
import json
import sys
from pathlib import Path

from lth_jax.cli import arguments as shared


def add_commands(commands: shared.Commands) -> None:
    """Adds `size` and `export`."""
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
    export = shared.add_command(
        commands,
        "export",
        _export,
        "write a ticket of a run to a file",
        "lth export lenet-1a2b3c4d one.ticket --level 5 --replicate 0",
        "lth export lenet-1a2b3c4d small.ticket --level 5 --replicate 0 --precision int8",
        one_run=True,
    )
    export.add_argument("file", metavar="FILE", help="the .ticket file to write")
    export.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    export.add_argument("--level", type=int, required=True, help="round of train-prune-rewind")
    export.add_argument("--replicate", type=int, required=True, help="index of the seed")
    export.add_argument("--arm", default="ticket", help="ticket, dense, or a control")
    export.add_argument(
        "--values",
        default="rewound",
        choices=("rewound", "trained"),
        help="of the rewind point, or as trained (default: %(default)s)",
    )
    export.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16", "int8", "int4"),
        help="how values are written (default: %(default)s)",
    )


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


def _export(arguments: argparse.Namespace) -> None:
    from lth_jax.coding.run_size import PRECISIONS
    from lth_jax.coding.stored import encode_stored, find_stored
    from lth_jax.store import Store, StoreError, files

    if Path(arguments.file).exists() and not arguments.overwrite:
        raise StoreError(f"{arguments.file} exists; `--overwrite` replaces it.")
    info = shared.find(arguments, arguments.run)
    store = Store(shared.root_of(info))
    place = {name: getattr(arguments, name) for name in ("arm", "level", "replicate")}
    one = find_stored(store, info, **place)
    precision = PRECISIONS[arguments.precision]
    data = encode_stored(store, info, one, values=arguments.values, precision=precision)
    files.write(Path(arguments.file), data, make_folder=False)
    print(f"{arguments.file}: {len(data):,} bytes, {arguments.values} values")
    if one.state:
        left_out = f"the model's state ({len(one.state)} arrays) is left out"
        print(f"lth: a ticket holds parameters; {left_out}.", file=sys.stderr)
