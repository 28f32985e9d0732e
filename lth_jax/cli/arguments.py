"""Shared by all commands: arguments, lookup of runs, printing."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lth_jax.store import RunInfo

EITHER = "a run or a sweep: its folder, name, or a unique beginning or end of the name"
MOST = 6
"""Names that an example lists."""
Commands = Any
"""What `add_subparsers` returns; argparse does not export its type."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exits with code 2 and one sentence on stderr."""
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` shows examples.\n")


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str,
    *examples: str,
    one_run: bool = False,
    as_json: bool = False,
    root: bool = True,
) -> Parser:
    """Adds a command.

    Args:
      commands: from `add_subparsers`.
      name: name of the command.
      run: the function of the command; returns the exit code, None for 0.
      text: description, one line.
      *examples: command lines for `--help`.
      one_run: whether it takes a run.
      as_json: whether it takes `--json`.
      root: whether it takes `--root`.
    """
    parser: Parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="\n  ".join(["examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if one_run:
        add_run(parser, "run")
    if root:
        text = "folder of all runs (default: %(default)s)"
        parser.add_argument("--root", default="runs", help=text)
    if as_json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)
    return parser


def add_run(parser: argparse._ActionsContainer, name: str, **options: Any) -> None:
    """Adds an argument that names runs, or sweeps; shells complete it."""
    text = "a run's folder, name, or a unique beginning or end of the name"
    added = parser.add_argument(name, metavar="RUN", **{"help": text, **options})
    added.completer = _run_names  # type: ignore[attr-defined]


def _run_names(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The names of the runs and sweeps below `--root`, for argcomplete."""
    root = Path(parsed_args.root)
    found = (*root.glob("*/status.json"), *root.glob("sweeps/*/config.json"))
    return [path.parent.name for path in found]


def folder(arguments: argparse.Namespace) -> Path:
    """`--root`; raises `StoreError` if it is not a folder."""
    from lth_jax.store import StoreError

    if not Path(arguments.root).is_dir():
        raise StoreError(
            f"`--root` must be the folder of all runs; '{arguments.root}' is not a folder."
        )
    return Path(arguments.root)


def find(arguments: argparse.Namespace, text: str) -> "RunInfo":
    """The run that `text` names.

    Raises:
      StoreError: there is none; the message lists the runs, or those of a sweep with this name.
    """
    from lth_jax.store import StoreError, find_run
    from lth_jax.store.sweeps import find_sweep, read_sweep_config

    try:
        return find_run(arguments.root, text)
    except StoreError as unknown:
        try:
            sweep = find_sweep(arguments.root, text)
        except StoreError:
            raise unknown from None
        runs = ", ".join(cell["run"] for cell in read_sweep_config(sweep)["cells"][:MOST])
        raise StoreError(f"'{text}' is a sweep; name one of its runs, such as {runs}.") from None


def find_folder(arguments: argparse.Namespace, text: str) -> Path:
    """The folder of the run or sweep that `text` names; see `is_sweep`."""
    from lth_jax.store.listing import find_name, run_folders
    from lth_jax.store.sweeps import sweep_folders

    if text and (Path(text) / "config.json").exists():
        return Path(text)
    root = folder(arguments)
    folders = {path.name: path for path in run_folders(root)}
    folders |= {path.name: path for path in sweep_folders(root)}
    return folders[find_name(text, sorted(folders), "run or sweep", root)]


def is_sweep(path: Path) -> bool:
    """Whether the folder of a run or sweep is that of a sweep."""
    return path.resolve().parent.name == "sweeps"


def root_of(info: "RunInfo") -> Path:
    """The root of a run's store: its parent folder, whatever `--root` is."""
    return Path(info.path).resolve().parent


def print_json(value: Any) -> None:
    """Prints JSON without NaN."""
    print(json.dumps(value, indent=1, allow_nan=False))


def print_state(info: "RunInfo") -> None:
    """Prints a run's name, status and start."""
    print(f"{info.run}: {info.status}, started {info.created}")


def megabytes(size: int | None) -> str:
    """Bytes as megabytes, or "damaged" for None."""
    return "damaged" if size is None else f"{size / 1e6:,.2f}"
