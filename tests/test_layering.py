"""Imports point down only: each package may import from lower layers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lth_jax"
LAYERS = {
    "types": 0,
    "extras": 0,
    "keys": 0,
    "grid": 0,
    "legal": 0,
    "registry": 0,
    "text": -1,
    "timing": 0,
    "trees": 0,
    "distributed": 2,
    "store": 1,
    "layouts": 2,
    "machine": 2,
    "schema": 2,
    "measures": 3,
    "models": 3,
    "data": 3,
    "pruning": 4,
    "landscape": 4,
    "coding": 4,
    "report": 4,
    "structure": 5,
    "population": 5,
    "reconstruct": 6,
    "exchange": 6,
    "lottery": 6,
    "analysis": 7,
    "sweeps": 7,
    "cli": 8,
}
FORBIDDEN = ("absl", "ml_collections", "experiments", "tests")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, module: str | None = None) -> set[str]:
    """The absolute names of all modules that a file imports, wherever in it the import stands."""
    package = (module or module_name(path)).split(".")
    if path.stem != "__init__":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, node.module] if node.module else base)
            found |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_name(path) for path in FILES}


def package_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "lth_jax" and len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path):
    here = package_of(module_name(path))
    if here is None:
        return  # the package's own __init__ re-exports; its imports are tested below
    for name in imports(path) & MODULES:
        there = package_of(name)
        if there is None or there == here:
            continue
        assert LAYERS[there] < LAYERS[here], (
            f"{module_name(path)} (layer {LAYERS[here]}) imports {name}"
        )


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_the_library_does_not_depend_on_configs(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & set(FORBIDDEN)


def test_there_is_no_circle():
    graph = {
        module_name(p): {n for n in imports(p) & MODULES if n != module_name(p)} for p in FILES
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import circle: {' -> '.join([*trail, name])}"
        if name in done:
            return
        for other in graph[name]:
            if not name.startswith(other + "."):  # a submodule always loads its package first
                visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_import_lth_jax_brings_the_transforms_only():
    heavy = [
        "tensorflow_datasets",
        "orbax",
        "matplotlib",
        "scipy",
        "sklearn",
        "pyarrow",
    ]
    code = f"import sys, lth_jax; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "[]"


def test_every_form_of_import_is_read(tmp_path):
    source = tmp_path / "trees.py"
    source.write_text("def f():\n    from lth_jax.lottery import ladder\n\nfrom . import types\n")
    found = imports(source, module="lth_jax.trees")
    assert {"lth_jax.lottery", "lth_jax.lottery.ladder", "lth_jax.types"} <= found


def test_experiments_hold_at_most_a_fifth_of_the_code():
    patterns = ("lth_jax/**/*.py", "experiments/**/*.py", "docs/*.py", "examples/*.py")
    lib, own, *rest = (
        sum(len(path.read_text().splitlines()) for path in ROOT.glob(pattern))
        for pattern in patterns
    )
    assert own <= 0.2 * (lib + own + sum(rest))
