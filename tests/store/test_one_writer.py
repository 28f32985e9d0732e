"""Every file is written by `store.files.write`: whole, under a name of its own, by anybody."""

import ast
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from lth_jax.store import StoreError, files

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "lth_jax").rglob("*.py")) + sorted((ROOT / "experiments").rglob("*.py"))

ALLOWED = {
    ("lth_jax/store/files.py", "write"): "the one writer",
    ("lth_jax/store/files.py", "publish"): "its rename",
    ("lth_jax/store/files.py", "seal"): "into a folder that is renamed when whole",
    ("lth_jax/store/checkpoints.py", "end"): "into a folder that is renamed when whole",
    ("lth_jax/data/prepare.py", "_keep_arrays"): "into a folder that is sealed when whole",
    ("lth_jax/store/runs.py", "_mend"): "a log: cuts a torn line off",
    ("lth_jax/store/records.py", "append"): "a log: appends a line",
    ("lth_jax/report/plotting.py", "image"): "into memory",
    ("lth_jax/store/hashing.py", "code_fingerprint"): "`ast.dump` makes a string",
    ("lth_jax/report/tables.py", "parquet_bytes"): "into memory",
    ("experiments/benchmarks/job.py", "prepare"): "into memory",
}
WRITERS = {
    *("write_text", "write_bytes", "writelines", "savefig", "write_table", "write_feather"),
    *("to_csv", "to_parquet", "to_feather", "tofile", "dump", "savez", "savetxt"),
    *("savez_compressed", "savemat", "imsave", "touch", "renames", "copyfile", "copyfileobj"),
    *("copy2", "copytree", "move", "mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile"),
    *("symlink_to", "hardlink_to", "truncate", "ftruncate"),
}
OF_MODULES = {"np.save", "jnp.save", "os.rename", "os.replace", "shutil.copy", "pickle.dump"}


def writes(call: ast.Call) -> bool:
    """Whether a call writes to a file, as far as its name and its literal arguments show."""
    name = ast.unparse(call.func)
    last = name.rsplit(".", 1)[-1]
    if last in WRITERS or name in OF_MODULES:
        return True
    if last in ("rename", "replace") and name not in OF_MODULES:  # of a path: one argument
        return len(call.args) == 1 and not call.keywords
    if last != "open":
        return False
    if name == "os.open":
        return bool(re.search("O_(WRONLY|RDWR|CREAT)", ast.unparse(call))) and (
            "devnull" not in ast.unparse(call)
        )
    given = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
    modes = [arg.value for arg in given if isinstance(arg, ast.Constant)]
    return any(isinstance(m, str) and re.fullmatch("[rbt]*[wax+][wabtx+]*", m) for m in modes)


def found_in(source: str) -> list[tuple[str, int]]:
    """(function, line) of every call that writes."""
    hits: list[tuple[str, int]] = []

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.Call) and writes(node):
            hits.append((function, node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(source), "")
    return hits


def test_there_is_one_way_to_write_a_file():
    names = {path: path.relative_to(ROOT).as_posix() for path in SOURCES}
    hits = [(names[p], *hit) for p in SOURCES for hit in found_in(p.read_text("utf-8"))]
    odd = [f"{name}:{line} in `{f}`" for name, f, line in hits if (name, f) not in ALLOWED]
    assert not odd, f"write with `lth_jax.store.files.write`: {odd}"
    unused = set(ALLOWED) - {(name, function) for name, function, _ in hits}
    assert not unused, "these write no more; take them from `ALLOWED`"


@pytest.mark.parametrize(
    "line",
    [
        "open(p, 'w')",
        "open(p, mode='ab')",
        "p.open('x', encoding='utf-8')",
        "open(p, 'r+b')",
        "gzip.open(p, 'wb')",
        "p.write_text(t)",
        "(a / b).write_bytes(t)",
        "figure.savefig(p)",
        "np.save(p, a)",
        "json.dump(value, open(p))",
        "pq.write_table(t, p)",
        "os.replace(a, b)",
        "a.rename(b)",
        "a.replace(b)",
        "os.open(p, os.O_WRONLY | os.O_CREAT)",
        "shutil.move(a, b)",
    ],
)
def test_writers_are_recognised(line):
    assert found_in(f"def f():\n    {line}") == [("f", 2)]


@pytest.mark.parametrize(
    "line", ["open(p)", "open(p, 'rb')", "p.open('rb')", "'a'.replace('x', 'y')", "json.dumps(v)"]
)
def test_readers_are_none(line):
    assert not found_in(line)


CONTENTS = [bytes([65 + i]) * (100_000 + 37_000 * i) for i in range(8)]


def hammer(path: Path, which: int, times: int, problems: list[str]) -> None:
    for _ in range(times):
        try:
            files.write(path, CONTENTS[which])
            if path.read_bytes() not in CONTENTS:
                problems.append("torn")
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")


def in_threads(path: Path, whiches: list[int], times: int) -> list[str]:
    problems: list[str] = []
    threads = [threading.Thread(target=hammer, args=(path, w, times, problems)) for w in whiches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


def test_processes_and_threads_write_one_file_at_once(tmp_path):
    """Four processes of two threads each write 400 times."""
    path = tmp_path / "page.html"
    code = f"""
        import sys
        sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
        import test_one_writer as t
        problems = t.in_threads(t.Path({str(path)!r}), [int(a) for a in sys.argv[1:]], 50)
        print(len(problems), problems[:3])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    others = [
        subprocess.Popen([*command, str(i), str(i + 1)], stdout=subprocess.PIPE, text=True)
        for i in (0, 2, 4)
    ]
    assert in_threads(path, [6, 7], 50) == []
    assert [p.communicate(timeout=120)[0].strip() for p in others] == ["0 []"] * 3
    assert path.read_bytes() in CONTENTS
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_no_two_temporary_names_are_the_same(tmp_path):
    names = [files.temporary(tmp_path / "a.json") for _ in range(1000)]
    assert len(set(names)) == 1000
    assert {files.owner(name) for name in names} == {"a.json"}


def test_a_failed_write_leaves_the_old_content_alone(tmp_path, monkeypatch):
    path = tmp_path / "a"
    files.write(path, b"old")
    files.settle(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    for step in ("_sync", "publish"):
        with monkeypatch.context() as patch:
            patch.setattr(files, step, full)
            with pytest.raises(StoreError, match="a cannot be written: No space left on device"):
                files.write(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "a") as grown:
        grown.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_folders_are_replaced_likewise(tmp_path):
    with files.replacing(tmp_path / "folder") as grown:
        grown.mkdir()
        (grown / "a").write_text("a")
    assert (tmp_path / "folder" / "a").read_text() == "a"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_was_left_days_ago_is_removed_and_what_others_write_now_is_not(tmp_path):
    path = tmp_path / "a.json"
    old, new, other = (files.temporary(tmp_path / n) for n in ("a.json", "a.json", "b.json"))
    mine = tmp_path / ".a.json.notes.tmp"
    for left in (old, new, other, mine):
        left.write_text("half")
    for left in (old, other, mine):
        os.utime(left, (time.time() - 2 * 86_400,) * 2)
    files.write(path, b"{}")
    assert set(tmp_path.iterdir()) == {path, new, other, mine}


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, ".", "a b\n'"])
def test_every_name_that_a_file_can_have(tmp_path, name):
    if name == ".":
        with pytest.raises(StoreError, match="cannot be written"):
            files.write(tmp_path, b"")
        return
    files.write(tmp_path / name, b"x")
    assert [p.name for p in tmp_path.iterdir()] == [name]
