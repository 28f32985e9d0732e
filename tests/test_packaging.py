"""What is published: wheel and source archive, their version, and how to cite."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import lth_jax

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python(*words, cwd=ROOT):
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_classifiers_are_the_pythons_that_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text()
    claimed = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c}
    others = set(re.findall(r"python(3\.\d+)", ci))
    assert claimed == {PROJECT["requires-python"].removeprefix(">="), *others}


def test_the_citation_names_title_authors_and_license():
    text = (ROOT / "CITATION.cff").read_text()
    for words in ("cff-version: 1.2.0", "The lth_jax authors", f"license: {PROJECT['license']}"):
        assert words in text


def test_a_package_that_is_not_installed_has_a_version(monkeypatch):
    def missing(name):
        raise lth_jax.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert lth_jax.__version__ == "0+unknown"


@pytest.mark.slow
def test_wheel_and_source_archive_are_built_and_checked(tmp_path):
    for module in ("build", "twine", "hatch_vcs"):
        pytest.importorskip(module)
    python("-m", "build", "--no-isolation", "--outdir", str(tmp_path))
    [wheel], [archive] = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    python("-m", "twine", "check", "--strict", str(wheel), str(archive))
    inside = zipfile.ZipFile(wheel).namelist()
    assert {
        "lth_jax/py.typed",
        "lth_jax/report/captions.toml",
        "lth_jax/report/templates/style.css",
    } <= set(inside)
    assert not any(name.startswith(("tests", "experiments")) for name in inside)
    tops = {name.split("/")[1] for name in tarfile.open(archive).getnames() if "/" in name}
    assert {"lth_jax", "experiments", "tests", "docs", "CITATION.cff", "LICENSE"} <= tops


@pytest.mark.slow
def test_a_source_tree_without_git_has_a_version(tmp_path):
    for module in ("hatchling", "hatch_vcs"):
        pytest.importorskip(module)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    assert python("-m", "hatchling", "version", cwd=tmp_path).strip() == "0.1.0"
