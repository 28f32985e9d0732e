"""Completion of commands, options and names of runs by bash, zsh and fish, through argcomplete."""

import argparse
import os

from lth_jax.cli import arguments as shared

SHELLS = ("bash", "zsh", "fish")


def add_commands(commands: shared.Commands) -> None:
    """Adds `completion`."""
    parser = shared.add_command(
        commands,
        "completion",
        _completion,
        "print the script by which a shell completes `lth`",
        'eval "$(lth completion bash)"      # in ~/.bashrc; zsh likewise',
        "lth completion fish | source       # in ~/.config/fish/config.fish",
        root=False,
    )
    parser.add_argument("shell", choices=SHELLS, help="your shell")


def answer(parser: argparse.ArgumentParser) -> None:
    """Prints completions and exits if a shell requests them."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def _completion(arguments: argparse.Namespace) -> None:
    from lth_jax.extras import lazy

    library = lazy("argcomplete", "`lth completion`", "completion")
    print(library.shellcode(["lth"], shell=arguments.shell))
