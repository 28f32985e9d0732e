"""The site builds without warnings; public names have docstrings; examples and tutorials run."""

import importlib.util
import inspect
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.commands import DEFAULT, DRY_RUN, config_of
from experiments.sweep import LIMIT, MODULE, PREFIX, parse_grid
from lth_jax.cli.launch import launched

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
EXAMPLES = {
    "curvature": r"density 0\.1: λmax 0\.\d+",
    "own_loop": r"density 0\.125, accuracy 0\.[89]",
    "population": r"(rate [01]\.\d+, accuracy [01]\.\d+\n){16}",
    "rigl": r"accuracy 0\.[89](.|\n)*prunable +4,736 +474",
    "structured": r"same outputs: True",
    "ticket_files": r"read back exactly: True",
}


@pytest.fixture(scope="module")
def public_names():
    spec = importlib.util.spec_from_file_location("public_names", DOCS / "public_names.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_public_names_have_docstrings(public_names):
    found = {}
    for home, module in public_names.modules().items():
        for name in public_names.names(module):
            found[f"{home}.{name}"] = public_names.docstring(module, name)
            for method, part in public_names.methods(getattr(module, name)).items():
                found[f"{home}.{name}.{method}"] = inspect.getdoc(part)
    without = [name for name, text in found.items() if not text]
    assert len(found) > 600 and len(without) <= 0.02 * len(found), without


def test_every_public_module_has_a_page(public_names):
    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    listed = re.findall(r"public-names:: (\S+)", pages)
    assert sorted(listed) == sorted(public_names.modules())


def test_the_glossary_is_that_of_the_pages():
    glossary = runpy.run_path(str(DOCS / "glossary.py"))
    assert glossary["PAGE"].read_text("utf-8") == glossary["text"](), "run python docs/glossary.py"


def test_docstrings_become_rst():
    pytest.importorskip("sphinx", reason="Sphinx, of the extra `docs`, is not installed.")
    sys.path.insert(0, str(DOCS))
    try:
        from reference_pages import to_rst
    finally:
        sys.path.remove(str(DOCS))
    table = ["| a | b |", "|---|---|", r"| x | `p \| q` |"]
    assert to_rst(table)[-4:] == ["   * - a", "     - b", "   * - x", "     - `p | q`"]
    assert to_rst(["It is", "", "    a = b"]) == ["It is", "", "::", "", "    a = b"]
    assert to_rst(["Args:", "  x: the", "", "    rest."])[-1] == "    rest."
    assert to_rst(["|γ| of `A`s"]) == [r"\|γ\| of `A`\ s"]


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param(False, marks=pytest.mark.slow),
        pytest.param(True, marks=pytest.mark.exhaustive),  # in a kernel for each tutorial
    ],
)
def test_the_site_builds_without_warnings(tmp_path, outputs):
    for package in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(package, reason=f"{package}, of the extra `docs`, is not installed.")
    settings = {"nb_execution_cache_path": tmp_path / "jc"}
    if not outputs:
        settings = {"nb_execution_mode": "off", "suppress_warnings": "myst-nb.lexer"}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    command += ["-d", str(tmp_path / "doctrees")]
    for name, value in settings.items():
        command += ["-D", f"{name}={value}"]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert (tmp_path / "html" / "tutorials" / "sweep.html").exists()


CELL = re.compile(r"^```{code-cell}\n(?::tags:.*\n\n)?(.*?)^```", re.DOTALL | re.MULTILINE)
TUTORIALS = sorted(page for page in DOCS.glob("tutorials/*.md") if CELL.search(page.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path, monkeypatch):
    shells = pytest.importorskip("IPython.core.interactiveshell", reason="IPython is missing.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.syspath_prepend(ROOT)
    shell = shells.InteractiveShell()
    for code in CELL.findall(page.read_text()):
        ran = shell.run_cell(code)
        ran.raise_error()
        shown, _ = shell.display_formatter.format(ran.result)
        assert ran.result is None or shown["text/plain"]


def test_every_example_is_tried():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = ROOT / "examples" / f"{name}.py"
    assert len(script.read_text().splitlines()) <= 40
    runpy.run_path(str(script), run_name="__main__")
    assert re.search(EXAMPLES[name], capsys.readouterr().out)


def commands_of(page):
    """The commands `python -m experiments.run` and `experiments.sweep` of a page, without shell."""
    text = page.read_text()
    for block in re.findall(r"```(?:sh|yaml)\n(.*?)```", text, re.DOTALL):
        joined = re.sub(r"\s*\\\n\s*|\n\s+--", lambda m: " --" if "--" in m[0] else " ", block)
        for line in joined.splitlines():
            found = re.search(r"python -m experiments\.(run|sweep)( .*)?", line)
            if found:
                yield found[1], (found[2] or "").partition(" #")[0].split()


PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("tutorials/*.md"), ROOT / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_pages_are_legal(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    for program, arguments in commands_of(page):
        argv, _ = launched(["program", *map(os.path.expandvars, arguments)], MODULE)
        swept = [a for a in argv if a.startswith(PREFIX)]
        rest = [a for a in argv if a not in swept and not a.startswith((DRY_RUN, LIMIT))]
        config = config_of(rest, DEFAULT, "", [])
        assert program == "sweep" or not swept
        assert not swept or parse_grid(swept, config).size


def test_the_job_set_runs_as_many_processes_as_it_has_pods():
    page = (ROOT / "docs/tutorials/cluster.md").read_text()
    spec = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    [workers] = spec["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    command = container["command"][-1]
    assert (
        f"processes={job['completions']} " in command and job["parallelism"] == job["completions"]
    )
    coordinator = f"{spec['metadata']['name']}-{workers['name']}-0-0.{spec['metadata']['name']}:"
    assert coordinator in command
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in job["template"]["spec"]["volumes"]}
