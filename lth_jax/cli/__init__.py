"""`lth`: lists, shows, compares, exports and checks the runs of a store.

Only the export of a program, which holds a network's function, builds a model.

Exit codes: 0 done; 1 `lth verify` found problems; 2 bad input, one sentence on stderr; 130 and 143
stopped by SIGINT and SIGTERM; 141 a pipe was closed by its reader.
Each command imports the packages that it needs.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from typing import Any

from lth_jax.cli import completion, exchange, listing, log, runs, tickets, upkeep, watch
from lth_jax.cli.arguments import Parser
from lth_jax.cli.programs import BROKEN_PIPE, UserError, to_null


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
      argv: the words after `lth`; those of the process by default.
    """
    parser = make_parser()
    completion.answer(parser)
    arguments = parser.parse_args(argv)
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
        to_null(sys.stdout)  # the interpreter flushes once more when it exits
        return BROKEN_PIPE
    except (StoreError, UserError, MissingExtraError, OSError) as error:
        print(f"lth: {error}", file=sys.stderr)
        return 2
    return code or 0


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="lth", description="Lists, shows, compares and exports runs of lottery tickets."
    )
    text = "print the versions of lth_jax, JAX, Flax and Optax"
    parser.add_argument("--version", action=_Version, nargs=0, help=text)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (listing, runs, tickets, exchange, watch, log, upkeep, completion):
        group.add_commands(commands)
    return parser


class _Version(argparse.Action):
    """Prints versions and exits; imports none of the packages."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from importlib.metadata import version

        from lth_jax import __version__

        others = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "optax"))
        print(f"lth_jax {__version__} ({others})")
        parser.exit()
