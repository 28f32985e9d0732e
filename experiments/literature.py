"""Runs recipes of the literature and compares them with the numbers of the papers.

    python -m experiments.literature list
    python -m experiments.literature NAME[:short|:full] [--root=runs] [--manual_dir=FOLDER]
    python -m experiments.literature document docs [--root=runs]

`list` prints all recipes (`experiments/configs/literature`). A recipe trains its runs as
`experiments.run` does; finished runs are read from the store. It writes
`ROOT/literature/NAME-SIZE/index.html`: our curves beside the paper's numbers, and a table with a
verdict for each finding. `short`, the default, takes minutes on two cores and tests the shape of
the findings; `full` is the paper's setting and compares its numbers. `--dry_run` prints members,
memory and time without training. `document` writes the finished recipes as a page of a
documentation site into a folder.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from experiments import checks, sweep
from experiments import machine as machines
from experiments.configs.literature import recipes
from experiments.finished import add_folders, machine_of, open_finished
from experiments.flags import saved_config
from lth_jax import analysis
from lth_jax import store as stores
from lth_jax.cli.options import Options
from lth_jax.cli.programs import UserError, exit_code
from lth_jax.legal import nearest
from lth_jax.report import RunRecord, read_run, stability
from lth_jax.report.literature import document, write_literature
from lth_jax.report.recipes import (
    SHORT,
    SIZES,
    Trained,
    cells,
    seconds_of,
    summary,
    with_barriers,
)
from lth_jax.store import files
from lth_jax.store.sweeps import read_sweep_config
from lth_jax.text import TextTable, print_tables, terminal_width

RUNS = "runs.json"


def recipe_of(text: str) -> tuple[ModuleType, str]:
    """The recipe and the size of `NAME[:SIZE]`.

    Raises:
      UserError: one of them is unknown.

    >>> module, size = recipe_of("lenet")
    >>> module.RECIPE.title, size
    ('LeNet-300-100 on MNIST', 'short')
    """
    name, _, size = text.partition(":")
    known = recipes()
    if name not in known:
        raise UserError(nearest("a recipe", name, known))
    if size and size not in SIZES:
        raise UserError(nearest("the size of a recipe", size, SIZES))
    return known[name], size or SHORT


def planned(module: ModuleType, size: str, machine: ConfigDict) -> dict[str, ConfigDict]:
    """The checked configs of a recipe by run, on a machine."""
    configs: dict[str, ConfigDict] = module.configs(size)
    for config in configs.values():
        checks.check(config.experiment)
        config.machine = machine
    return configs


def train(module: ModuleType, size: str, machine: ConfigDict, *, dry_run: bool = False) -> str:
    """Trains the unfinished runs of a recipe, writes its page, and returns its table."""
    configs, name = planned(module, size, machine), f"{module.RECIPE.name}-{size}"
    machines.prepare(machine)
    jobs = [({"cell": run}, config) for run, config in configs.items()]
    if dry_run:
        sweep.dry_run(next(iter(configs.values())), jobs)
        return ""
    done = sweep.train_cells(machine, f"literature-{name}", jobs, command_of(module, size).split())
    runs = {c["setting"]["cell"]: c["run"] for c in read_sweep_config(done.path)["cells"]}
    if levels := module.__dict__.get("LEVELS"):
        done_runs = [open_finished(machine, run).result for run in runs.values()]
        analysis.stability(done_runs, levels=levels[size])
    files.write_json(_folder(machine, name) / RUNS, runs)
    found = trained(module, size, machine)
    page = write_literature(_folder(machine, name), found)
    header, *rows = cells(found)
    print_tables(TextTable(header, rows))
    return f"{summary(found)}\npage: {page}"


def trained(module: ModuleType, size: str, machine: ConfigDict) -> Trained:
    """A finished recipe, read from the store.

    Raises:
      UserError: its configs are not those that ran.
    """
    store, now = stores.Store(machine.workdir), module.configs(size)
    folders = json.loads((_folder(machine, f"{module.RECIPE.name}-{size}") / RUNS).read_text())
    ran = {run: saved_config(store.root / folder).to_dict() for run, folder in folders.items()}
    if ran != {run: config.experiment.to_dict() for run, config in now.items()}:
        command = command_of(module, size)
        raise UserError(
            f"recipe '{module.RECIPE.name}:{size}' is not what ran; `{command}` runs it."
        )
    runs = {run: _read(store, store.root / folder) for run, folder in folders.items()}
    return Trained(module.RECIPE, size, runs, seconds_of(runs.values()), command_of(module, size))


def _read(store: stores.Store, path: Path) -> RunRecord:
    """A run, with the barriers of instability analysis if they were measured."""
    record = read_run(store, path)
    return with_barriers(record, record.config["rewind"]["step"], stability.read(store, path) or ())


def command_of(module: ModuleType, size: str) -> str:
    """The command that runs a recipe."""
    return f"python -m experiments.literature {module.RECIPE.name}:{size}"


def _folder(machine: ConfigDict, name: str) -> Path:
    return Path(machine.workdir) / "literature" / name


def _document(folder: str, machine: ConfigDict) -> str:
    done = [
        trained(module, size, machine)
        for name, module in recipes().items()
        for size in SIZES
        if (_folder(machine, f"{name}-{size}") / RUNS).is_file()
    ]
    if not done:
        raise UserError(f"`--root` is '{machine.workdir}', which holds no finished recipe.")
    return str(document(Path(folder), done))


def listing() -> TextTable:
    """All recipes: title, and number of runs and data of each size."""
    rows = []
    for name, module in recipes().items():
        row = [name, module.RECIPE.title]
        for size in SIZES:
            configs = list(module.configs(size).values())
            data = dict.fromkeys(config.experiment.data.name for config in configs)
            row += [str(len(configs)), ", ".join(data)]
        rows.append(row)
    sizes = [f"{size} {what}" for size in SIZES for what in ("runs", "data")]
    return TextTable(["recipe", "title", *sizes], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for errors of the user."""
    parser = Options("experiments.literature", str(__doc__))
    parser.add_argument("recipe", metavar="NAME[:SIZE], list, or document FOLDER", nargs="+",
                        help=f"one of {', '.join(recipes())}")  # fmt: skip
    parser.add_argument("--dry_run", action="store_true", help="print the plan, train nothing")
    add_folders(parser)

    def work() -> str:
        given = parser.parse_args(argv)
        machine = machine_of(given)
        machine.data_placement = ""
        first, *rest = given.recipe
        if first == "document":
            if len(rest) != 1:
                raise UserError("`document` needs one folder, such as docs.")
            return _document(rest[0], machine)
        if rest:
            raise UserError(f"'{rest[0]}' is not an argument; give one recipe.")
        if first == "list":
            return listing().fitted(terminal_width())
        return train(*recipe_of(first), machine, dry_run=given.dry_run)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
