"""Runs a grid of experiments: every combination of the values given for some config fields.

    python -m experiments.sweep --config=experiments/configs/mnist1d_ladder.py:smoke \
        --sweep.experiment.optimizer.learning_rate=0.001,0.01 --sweep.experiment.seed=0,1

Each cell is a run of its own, named by its config: a sweep that was cut off continues, cells that
are finished are shown, and cells share the dense parents and levels that they have in common.
`--dry_run` lists the cells and stops.
"""

import copy
import itertools
import sys
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from experiments import flags
from experiments.run import DEFAULT
from experiments.runner import run

MOST_CELLS = 10_000
PREFIX = "--sweep."

Grid = dict[str, list[Any]]


def parse_grid(arguments: list[str], config: ConfigDict) -> Grid:
    """Reads `--sweep.FIELD=VALUE,VALUE` arguments, each value as the type of its field.

    Raises:
      UserError: for an unknown field, no or repeated values, a value of the wrong type, no field
        at all, or more than 10,000 cells.
    """
    known = dict(flags.fields(config))
    grid: Grid = {}
    for argument in arguments:
        name, _, text = argument.removeprefix(PREFIX).partition("=")
        if name not in known:
            raise flags.UserError(flags.nearest("a field of `--sweep`", name, known))
        grid[name] = [_as_type(name, value, known[name]) for value in text.split(",") if value]
        if not grid[name]:
            raise flags.UserError(f"`{PREFIX}{name}` has no values; give some, such as 1,2.")
        if len(set(grid[name])) < len(grid[name]):
            raise flags.UserError(f"`{PREFIX}{name}` is {text}; each value may be given once.")
    if not grid:
        raise flags.UserError(f"nothing to sweep; give {PREFIX}FIELD=VALUE,VALUE.")
    cells = 1
    for values in grid.values():
        cells *= len(values)
    if cells > MOST_CELLS:
        raise flags.UserError(f"the sweep has {cells:,} cells; at most {MOST_CELLS:,} are allowed.")
    return grid


def _as_type(name: str, text: str, like: Any) -> Any:
    if isinstance(like, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif isinstance(like, int | float | str):
        try:
            return type(like)(text)
        except ValueError:
            pass
    kind = type(like).__name__
    raise flags.UserError(f"`{PREFIX}{name}` has the value '{text}'; the field holds one {kind}.")


def cells(config: ConfigDict, grid: Grid) -> Iterator[tuple[dict[str, Any], ConfigDict]]:
    """Every combination of the grid's values: what is set, and the config with it."""
    for values in itertools.product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        cell = copy.deepcopy(config)
        cell.update_from_flattened_dict(setting)
        yield setting, cell


def main() -> None:
    swept = [argument for argument in sys.argv if argument.startswith(PREFIX)]
    rest = [argument for argument in sys.argv if argument not in (*swept, "--dry_run")]
    config = flags.parse(rest, DEFAULT)
    planned = list(cells(config, parse_grid(swept, config)))
    for i, (setting, cell) in enumerate(planned, start=1):
        shown = ", ".join(f"{name}={value}" for name, value in setting.items())
        print(f"cell {i}/{len(planned)}: {shown}", flush=True)
        if "--dry_run" not in sys.argv:
            again = [f"--config.{name}={value}" for name, value in setting.items()]
            run(cell, ["python", "-m", "experiments.run", *rest[1:], *again])


if __name__ == "__main__":
    flags.run_main(main)
