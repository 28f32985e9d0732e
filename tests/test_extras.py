"""An installation without extras: every module imports, `lth` works, a use names its extra."""

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from tests.report import synthetic

ROOT = Path(__file__).resolve().parents[1]
MODULE_OF = {  # where the name that is imported is not the name that is installed
    "absl-py": "absl",
    "dm-haiku": "haiku",
    "pytest-xdist": "xdist",
    "scikit-learn": "sklearn",
}
FLAX_NEEDS = {"absl"}  # in an extra of ours, and a dependency of Flax, Optax and Chex


def module(requirement):
    name = re.split(r"[<>=\[; ]", requirement)[0]
    return MODULE_OF.get(name, name.replace("-", "_"))


def modules_of_extras():
    """The top-level modules that an extra brings and the core does not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {module(requirement) for requirement in project["dependencies"]} | FLAX_NEEDS
    extras = {
        module(requirement)
        for requirements in project["optional-dependencies"].values()
        for requirement in requirements
        if not requirement.startswith("lth-jax")
    }
    return sorted(extras - core)


HOOK = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {modules_of_extras()}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Absent())
"""


def without_extras(code, *arguments, cwd=ROOT):
    """Runs Python where no extra is installed."""
    return subprocess.run(
        [sys.executable, "-c", HOOK + textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def test_the_extras_are_read_from_the_project():
    assert {"matplotlib", "tensorflow_datasets", "pyarrow", "sklearn", "equinox", "haiku"} <= set(
        modules_of_extras()
    )
    assert not {"jax", "flax", "filelock", "rich", "orbax_checkpoint"} & set(modules_of_extras())


def test_every_module_imports_and_every_use_names_its_extra(tmp_path):
    done = without_extras(
        """
        import importlib, pkgutil, sys
        from pathlib import Path

        import lth_jax

        found = [one.name for one in pkgutil.walk_packages(lth_jax.__path__, "lth_jax.")]
        for name in found:
            importlib.import_module(name)
        print(len(found))

        from lth_jax.data import load
        from lth_jax.extras import MissingExtraError
        from lth_jax.report import plotting, rendering, tables
        from lth_jax.store import restore, save

        folder = Path(sys.argv[1])
        uses = {
            "data": lambda: load("digits", data_dir=folder / "data", seed=0, validation=1),
            "figure": lambda: plotting.new(),
            "style": lambda: plotting.style().__enter__(),
            "page": lambda: rendering.render("run.html"),
            "table": lambda: tables.csv_bytes([{"a": 1}]),
        }
        for name, use in uses.items():
            try:
                use()
            except MissingExtraError as error:
                print(f"{name}: {error}")
        save(folder / "checkpoint", {"w": [1.0, 2.0]})  # Orbax comes with Flax
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    count, *sentences = done.stdout.splitlines()
    assert int(count) > 100
    install = 'install it with `pip install "lth-jax[experiments]"`.'
    assert sentences == [
        f"data: `lth_jax.data.load` needs `tensorflow_datasets`; {install}",
        f"figure: A figure needs `matplotlib`; {install}",
        f"style: A figure needs `matplotlib`; {install}",
        f"page: A page needs `jinja2`; {install}",
        f"table: A table file needs `pyarrow`; {install}",
    ]


@pytest.mark.parametrize("arguments", [["--help"], ["ls", "--root", "."], ["ls", "--json"]])
def test_the_command_works(tmp_path, arguments):
    (tmp_path / "runs").mkdir()
    code = "from lth_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    done = without_extras(code, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: lth" in done.stdout if "--help" in arguments else "Traceback" not in done.stdout


def test_a_run_is_shown_and_its_report_names_the_extra(tmp_path):
    run = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=2)).run
    code = """
    from lth_jax.cli import main
    codes = [main([command, sys.argv[1], "--root", sys.argv[2]]) for command in ("show", "report")]
    print("codes", codes)
    """
    done = without_extras(code, run, tmp_path)
    assert "Traceback" not in done.stderr and done.stdout.endswith("codes [0, 2]\n"), done.stderr
    assert f"{run}: finished" in done.stdout
    assert done.stderr.startswith("lth: A figure needs `matplotlib`; install it with `pip install")
    assert not (tmp_path / run / "report").exists()
