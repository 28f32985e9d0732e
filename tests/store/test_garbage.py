"""What no run lists is found, and deleted only where nothing can need it."""

import contextlib
import io
import json

import pytest

from lth_jax import cli
from lth_jax import store as stores
from lth_jax.store import Node, Store, StoreError, content_key, garbage, locks, open_run
from lth_jax.store.analyses import add_analysis
from lth_jax.store.run_files import write_record

A, B, C, LOST = (content_key(name) for name in ("a", "b", "c", "lost"))


def node(shelf, key):
    shelf.ensure(key, lambda partial: Node({}, {"key": key}))


def run(root, name, keys, *, finish=True):
    for key in keys:
        node(Store(root), key)
    with open_run(root, name=name, config={"name": name}, env={}) as record:
        for key in keys:
            record.add(key, level=0)
        if finish:
            record.finish()
    return record.path


@pytest.fixture
def shelf(tmp_path):
    """Two runs that share a node, one with an analysis, a node of nobody, an unfinished one."""
    run(tmp_path, "one", [A, B])
    path = run(tmp_path, "two", [B])
    node(Store(tmp_path), C)
    add_analysis(path, C, {"kind": "spectrum"})
    node(Store(tmp_path), LOST)
    stores.Partial(tmp_path / "partial" / content_key("begun")).save(1, {})
    return Store(tmp_path)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lth(capsys, *words):
    code = cli.main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_garbage_is_what_no_run_lists(shelf, capsys):
    assert garbage.find_garbage(shelf)[:3] == ([LOST], [content_key("begun")], [])
    code, out, err = lth(capsys, "gc", "--root", shelf.root)
    assert (code, err) == (0, "") and out.startswith(f"{LOST}\n") and "2 nodes that no run" in out
    assert shelf.has(LOST)
    code, out, err = lth(capsys, "gc", "--delete", "--root", shelf.root)
    assert (code, err) == (0, "") and "2 nodes are deleted" in out
    assert sorted(shelf.keys()) == sorted([A, B, C])
    assert not list(shelf.root.glob("partial/*"))
    assert all(shelf.problem(key) is None for key in (A, B, C))


def test_the_nodes_of_a_run_that_is_removed_are_garbage_unless_others_list_them(shelf, capsys):
    code, out, err = lth(capsys, "rm", "one", "--yes", "--root", shelf.root)
    assert (code, err) == (0, "") and out.startswith("one-")
    assert [info.name for info in stores.list_runs(shelf.root)] == ["two"]
    assert not list(shelf.root.glob(".*"))
    assert garbage.find_garbage(shelf).nodes == sorted([A, LOST])


def test_a_run_is_removed_on_a_terminal_only_when_confirmed(shelf, capsys, monkeypatch):
    code, out, err = lth(capsys, "rm", "one", "--root", shelf.root)
    assert (code, out, err.count("\n")) == (2, "", 1) and "`--yes` is needed to remove one-" in err
    for answer, left in (("", ["one", "two"]), ("n\n", ["one", "two"]), ("y\n", ["two"])):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        code, out, err = lth(capsys, "rm", "one", "--root", shelf.root)
        assert (code, err) == (0, "") and out.startswith("Remove one-")
        assert ("Nothing is removed" in out) == (answer != "y\n")
        assert sorted(info.name for info in stores.list_runs(shelf.root)) == left


def test_nothing_is_deleted_or_removed_while_it_is_in_use(shelf, capsys):
    found = garbage.find_garbage(shelf)
    with open_run(shelf.root, name="three", config={}, env={}) as held:
        now = garbage.find_garbage(shelf, unfinished=True)
        assert now[:2] == ([], []) and held.path.name in now.kept[0]
        assert garbage.delete(shelf, found) == 0 and shelf.has(LOST)
        with pytest.raises(StoreError, match=f"Run {held.path.name} is in use"):
            garbage.remove_run(held.path)
        held.finish()
    sweep = stores.open_sweep(shelf.root, name="s", config={})
    for using in (
        sweep.claim("group"),
        locks.in_use(shelf.root, "atlas"),
        locks.hold(shelf.root / "locks" / f"{LOST}.lock", what="a node"),
    ):
        with using:
            assert garbage.find_garbage(shelf).nodes == [] and garbage.delete(shelf, found) == 0
    assert garbage.find_garbage(shelf) == found


def test_what_stopped_keeps_what_it_may_need(shelf):
    begun = content_key("begun")
    run(shelf.root, "stopped", [], finish=False)
    found = garbage.find_garbage(shelf)
    assert (found.nodes, found.partial) == ([LOST], []) and "stopped-" in found.kept[0]
    cells = {"cells": [{"setting": {}, "run": "nowhere-12345678"}]}
    stores.open_sweep(shelf.root, name="grid", config=cells)
    found = garbage.find_garbage(shelf)
    assert (found.nodes, found.partial) == ([], []) and "sweep grid-" in found.kept[0]
    assert garbage.find_garbage(shelf, unfinished=True)[:3] == ([LOST], [begun], [])


def test_a_run_begun_again_keeps_what_it_listed(shelf):
    with open_run(shelf.root, name="one", config={"name": "one"}, env={}) as record:
        record.restart()
    assert garbage.find_garbage(shelf).nodes == [LOST]
    with open_run(shelf.root, name="one", config={"name": "one"}, env={}) as record:
        record.finish()
    assert garbage.find_garbage(shelf).nodes == sorted([A, LOST])


def test_a_damaged_list_stops_the_collection(shelf, capsys):
    path = run(shelf.root, "one", [A, B])
    (path / "manifest.json").write_text("{}")
    code, out, err = lth(capsys, "gc", "--delete", "--root", shelf.root)
    assert (code, out) == (2, "") and f"{path / 'manifest.json'} is damaged" in err
    assert shelf.has(LOST)


def test_du_adds_up(shelf, capsys):
    found = garbage.usage(shelf)
    one, two = found["runs"]
    size = {key: garbage.size_of(shelf.path(key)) for key in (A, B, C, LOST)}
    assert (one["own"], one["shared"]) == (size[A], size[B])
    assert (two["own"], two["shared"]) == (size[C], size[B])
    assert found["unlisted"] == size[LOST] and found["total"] == garbage.size_of(shelf.root)
    files = sum(row["files"] for row in found["runs"])
    parts = sum(found[name] for name in ("partial", "sweeps", "other"))
    assert sum(size.values()) + files + parts == found["total"]
    code, out, _ = lth(capsys, "du", "--json", "--root", shelf.root)
    assert code == 0 and json.loads(out) == found
    code, out, _ = lth(capsys, "du", "--root", shelf.root)
    assert code == 0 and out.count("\n") == 3 + 5


def test_ls_shows_pilots_on_demand(shelf, capsys):
    with open_run(shelf.root, name="pilot", config={}, env={}, pilot=True):
        pass
    assert "pilot" not in lth(capsys, "ls", "--root", shelf.root)[1]
    assert "pilot" in lth(capsys, "ls", "--all", "--root", shelf.root)[1]


def test_verify_finds_what_belongs_to_no_run(shelf, capsys):
    assert lth(capsys, "verify", "--root", shelf.root) == (0, "No damage in 2 runs.\n", "")
    sweep = stores.open_sweep(shelf.root, name="s", config={})
    sweep.once("plan-1", lambda: {"chunk": 4})
    sweep.append("replans", {"level": 1})
    step = shelf.root / "partial" / content_key("begun") / "00000001"
    study = shelf.root / "atlas" / "smoke" / "C7"
    study.mkdir(parents=True)
    damaged = [
        shelf.path(LOST) / "meta.json",
        step / "meta.json",
        sweep.path / "plan-1.json",
        sweep.path / "replans.jsonl",
        study / "found.json",
    ]
    for path in damaged:
        path.write_text("{}\n")
    for repair in ((), ("--repair",)):
        code, out, err = lth(capsys, "verify", "--all", "--root", shelf.root, *repair)
        lines = len(damaged) * (1 + len(repair)) + len(repair)  # the last line counts repairs
        assert (code, err, out.count("\n")) == (1, "", lines)
    assert out.count("  repaired: removed.\n") == 5 and "\nRepaired 5 of 5 problems; " in out
    assert lth(capsys, "verify", "--root", shelf.root)[0] == 0
    assert sweep.once("plan-1", lambda: {"chunk": 8}) == {"chunk": 8}


def test_a_status_that_is_sealed_but_no_status_is_one_line(shelf, capsys):
    path = run(shelf.root, "one", [A, B])
    write_record(path, "status.json", {"name": 3})
    code, out, err = lth(capsys, "ls", "--root", shelf.root)
    assert (code, err) == (0, "") and out.count("\n") == 3 and "damaged" in out


def test_a_removed_sweep_takes_only_runs_that_sweeps_alone_made(shelf, capsys):
    runs, of_sweep = {}, {"sweep": "mine-1"}
    for name, envs in {
        "both": [of_sweep],
        "own": [of_sweep],
        "before": [{"command": ["python"]}, of_sweep],
        "after": [of_sweep, {"command": ["python"]}],
    }.items():
        for env in envs:
            with open_run(shelf.root, name=name, config={"n": name}, env=env) as run:
                runs[name] = run.path.name
    mine = stores.open_sweep(
        shelf.root, name="mine", config={"cells": [{"run": run} for run in runs.values()]}
    )
    other = stores.open_sweep(shelf.root, name="other", config={"cells": [{"run": runs["both"]}]})
    assert (
        f"remove {mine.path.name} and 1 run of its"
        in lth(capsys, "rm", "mine", "--root", shelf.root)[2]
    )
    code, out, err = lth(capsys, "rm", "mine", "--yes", "--root", shelf.root)
    assert (code, err) == (0, "") and "and 1 run of its cells are removed" in out
    assert f"kept, since another sweep lists them: {runs['both']}\n" in out
    assert f"made or opened them: {runs['before']}, {runs['after']}\n" in out
    left = {name for name, run in runs.items() if (shelf.root / run).exists()}
    assert left == {"both", "before", "after"} and other.path.exists() and not mine.path.exists()


@pytest.mark.parametrize("look", ["_busy", "run_folders", "listed", "size_of"])
def test_a_run_that_ends_during_the_search_loses_nothing(tmp_path, monkeypatch, look):
    """The run lists its node and ends just before the search looks at a part of the store."""
    run(tmp_path, "one", [A])
    node(Store(tmp_path), LOST)  # without it, no size would be taken
    node(Store(tmp_path), B)
    running, plain = contextlib.ExitStack(), getattr(garbage, look)
    late = running.enter_context(open_run(tmp_path, name="late", config={}, env={}))

    def first(*given):
        if late.status == "running":
            late.add(B, level=0)
            late.finish()
            running.close()
        return plain(*given)

    with monkeypatch.context() as patch, running:
        patch.setattr(garbage, look, first)
        found = garbage.find_garbage(Store(tmp_path))
    assert B not in found.nodes


def test_nodes_that_a_run_lists_after_the_search_stay(shelf):
    found = garbage.find_garbage(shelf)
    assert found.nodes == [LOST]
    run(shelf.root, "later", [LOST])
    garbage.delete(shelf, found)
    assert shelf.has(LOST)


def test_nodes_stay_for_a_run_whose_list_was_emptied(tmp_path):
    path = run(tmp_path, "one", [A, B])
    (path / "manifest.json").write_text("damaged")
    stores.runs.repair_run(Store(tmp_path), path)
    found = garbage.find_garbage(Store(tmp_path))
    assert found.nodes == [] and f"run whose list of nodes was lost, {path.name}" in found.kept[0]
    assert garbage.find_garbage(Store(tmp_path), unfinished=True).nodes == sorted([A, B])
    run(tmp_path, "one", [A])
    assert garbage.find_garbage(Store(tmp_path)).nodes == [B]
