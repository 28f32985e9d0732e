"""Every file of a run damaged in every way: the same numbers again, or one sentence; never more."""

import itertools
import json
import random
import shutil
from pathlib import Path

import pytest

from experiments import runner
from lth_jax import cli
from lth_jax import store as stores
from lth_jax.cli.programs import UserError
from lth_jax.store.verify import verify_rest
from tests.experiments import tiny
from tests.thinning import sampled

RUN_FILES = ("config", "identity", "status", "env", "manifest", "analyses")


def config_in(workdir, **experiment):
    config = tiny.get_config()
    config.machine.update(workdir=str(workdir), progress=False, chunk=1)
    config.experiment.update(replicates=1, controls=("shuffle",))
    config.experiment.prune.levels = 1
    config.experiment.train.update(steps=4, eval_every=2)
    config.experiment.update_from_flattened_dict(experiment)
    return config


@pytest.fixture(scope="module", autouse=True)
def no_page():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "write_report", lambda *_: "")  # which takes the longest
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, and another one with other seeds."""
    root = tmp_path_factory.mktemp("finished") / "runs"
    runner.run(config_in(root, seed=1), ["python"])
    return runner.run(config_in(root), ["python"])


@pytest.fixture(scope="module")
def half(tmp_path_factory, finished):
    """The same, interrupted during level 1, and another one."""
    root = tmp_path_factory.mktemp("half") / "runs"
    for seed in (1, 0):
        calls = []

        def stop(self, team=None, calls=calls):
            calls.append(1)
            if len(calls) == 3:  # after dense, its node, and the first segment of level 1
                raise stores.Interrupted(15)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stores.Stop, "check", stop)
            with pytest.raises(stores.Interrupted):
                runner.run(data_of(finished, config_in(root, seed=seed)), ["python"])
    return root / finished.name


def data_of(run, config):
    config.machine.data_dir = str(run.parent / "data")
    return config


def other_run(run):
    [other] = [path.parent for path in run.parent.glob("*/config.json") if path.parent != run]
    return other


def nodes(run):
    """The nodes of a run, from the bottom to the top."""
    return [entry["key"] for entry in stores.read_manifest(run)["nodes"]]


def partials(run):
    """The unfinished nodes below a root; of two runs that were cut off at the same place, two."""
    return sorted((run.parent / "partial").glob("*"))


def files_of(run):
    """Every file of a run, of its dense node and of an unfinished one, below the root.

    The two stand for all nodes; `test_every_file_of_every_node_is_checked` damages each of them.
    """
    store = stores.Store(run.parent)
    folders = [store.path(nodes(run)[0]), *partials(run)[:1]]
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    found += [path for path in sorted(run.rglob("*")) if path.is_file()]
    return [path.relative_to(run.parent) for path in found]


def copied(root, run, name):
    """The file of the other run that stands where this one does in its own."""
    store, other = stores.Store(root), other_run(run)
    pairs = {run: other}
    pairs |= dict(zip(map(store.path, nodes(run)), map(store.path, nodes(other)), strict=False))
    pairs |= dict(zip(partials(run), reversed(partials(run)), strict=True))
    for mine, theirs in pairs.items():
        if (root / name).is_relative_to(mine):
            return theirs / (root / name).relative_to(mine)
    raise AssertionError(name)


def flip(path, root, run, name):
    data = bytearray(path.read_bytes() or b"\0")
    data[random.Random(str(name)).randrange(len(data))] ^= 4
    path.write_bytes(data)


def swap(path, root, run, name):
    theirs = copied(root, run, name)
    if theirs.exists():
        mine = path.read_bytes()
        path.write_bytes(theirs.read_bytes())
        theirs.write_bytes(mine)


HARMS = {
    "flipped": flip,
    "truncated": lambda path, *_: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "deleted": lambda path, *_: path.unlink(),
    "emptied": lambda path, *_: path.write_bytes(b""),
    "swapped": swap,
}


def lth(capsys, *words):
    capsys.readouterr()
    code = cli.main([str(word) for word in words])
    return code, *capsys.readouterr()


def rows(run, capsys):
    code, out, err = lth(capsys, "show", run, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)["rows"]


def check_harms(run, harms, tmp_path, capsys, right, data):
    """Damages a copy of a run by `(file, harm)`, reads it, and runs it again."""
    root = tmp_path / "runs"
    shutil.copytree(run.parent, root, ignore=shutil.ignore_patterns("data"))
    harmed = root / run.name
    before = rows(harmed, capsys)
    for name, harm in harms:
        HARMS[harm](root / name, root, harmed, name)

    # What is shown meanwhile: the numbers that are right, or one sentence.
    code, out, err = lth(capsys, "show", harmed, "--json")
    if code:
        assert (code, out) == (2, "") and err.startswith("lth: ") and err.count("\n") == 1
    else:
        assert json.loads(out)["rows"] == before, harms
    code, out, err = lth(capsys, "ls", "--root", root)
    assert (code, err) == (0, "") and out.count("\n") == 1 + 2
    code, out, err = lth(capsys, "verify", "--root", root)
    assert code in (0, 1) and err == "" and "Traceback" not in out

    try:
        assert runner.run(data_of(data, config_in(root)), ["python"]) == harmed
    except UserError as error:
        assert "\n" not in str(error) and str(root) in str(error), harms
        return "refused"
    assert rows(harmed, capsys) == right, harms
    assert stores.is_complete(stores.Store(root), harmed)
    shutil.rmtree(root)
    return "same"


def kinds(run):
    """One file of each kind: those of the run, and of a node and a partial step."""
    found = {}
    for name in files_of(run):
        place = name.parts[0] if name.parts[0] in ("nodes", "partial") else "run"
        found.setdefault((place, name.name if len(name.name) < 20 else "array"), name)
    return found


@pytest.mark.parametrize("state", [pytest.param("finished", marks=pytest.mark.slow), "half"])
@pytest.mark.slow
def test_a_damaged_run_gives_the_same_numbers_again(state, request, finished, tmp_path, capsys):
    run, right = request.getfixturevalue(state), rows(finished, capsys)
    found = kinds(run)
    if state == "finished":
        harms = [
            (found["run", "manifest.json"], "deleted"),
            (found["run", "config.json"], "emptied"),
            (found["run", "analyses.json"], "truncated"),
            (found["nodes", "meta.json"], "flipped"),
        ]
    else:
        harms = [
            (found["run", "env.json"], "flipped"),
            (found["run", "status.json"], "swapped"),
            (found["partial", "meta.json"], "swapped"),
        ]
    assert check_harms(run, harms, tmp_path, capsys, right, finished) == "same"


@pytest.mark.parametrize(
    ("harm", "state"), sampled([(h, s) for h in HARMS for s in ("finished", "half")], 10)
)
def test_every_file_in_every_way(state, harm, request, finished, tmp_path, capsys):
    run, right = request.getfixturevalue(state), rows(finished, capsys)
    names = files_of(run)
    own = [name for name in names if name.parts[0] == run.name]
    assert {f"{name}.json" for name in RUN_FILES[:5]} <= {name.name for name in own}
    # Beside each of them one of a node or a partial step, others for each harm.
    others = [name for name in names if name not in own]
    first = len(own) * list(HARMS).index(harm) % len(others)
    beside = itertools.islice(itertools.cycle(others), first, None)
    for pair in zip(own, beside, strict=False):
        harms = [(name, harm) for name in reversed(pair)]  # the run holds the path of the node
        assert check_harms(run, harms, tmp_path, capsys, right, finished) == "same"


@pytest.mark.slow
@pytest.mark.parametrize("state", ["finished", "half"])
def test_every_file_of_every_node_is_checked(state, request, tmp_path, finished):
    run = request.getfixturevalue(state)
    root = tmp_path / "runs"
    shutil.copytree(run.parent, root, ignore=shutil.ignore_patterns("data"))
    store = stores.Store(root)
    steps = sorted(root.glob("partial/*/[0-9]*"))
    folders = [*map(store.path, store.keys()), *steps]
    assert bool(steps) == (state == "half") and len(folders) > 3
    assert list(verify_rest(store)) == []
    for folder, other in zip(folders, [*folders[1:], folders[0]], strict=True):
        for path in filter(Path.is_file, sorted(folder.rglob("*"))):
            theirs = other / path.relative_to(folder)
            for name, harm in HARMS.items():
                whole = path.read_bytes()
                if name == "swapped":
                    path.write_bytes(theirs.read_bytes() if theirs.exists() else b"another")
                else:
                    harm(path, root, run, path.relative_to(root))
                if not path.exists() or path.read_bytes() != whole:
                    problems = [problem.path for problem in verify_rest(store)]
                    assert problems == [folder], (path, name)
                path.write_bytes(whole)


@pytest.mark.parametrize("state", [pytest.param("finished", marks=pytest.mark.slow), "half"])
@pytest.mark.slow
def test_whole_folders_of_two_runs_swapped(state, request, finished, tmp_path, capsys):
    run, right = request.getfixturevalue(state), rows(finished, capsys)
    root = tmp_path / "runs"
    shutil.copytree(run.parent, root, ignore=shutil.ignore_patterns("data"))
    store, harmed = stores.Store(root), root / run.name
    pairs = list(zip(nodes(harmed), nodes(other_run(harmed)), strict=False))
    folders = [(store.path(a), store.path(b)) for a, b in pairs[-1:]]
    if state == "half":
        folders += [tuple(partials(harmed))]
    for mine, theirs in folders:
        aside = Path(f"{mine}.aside")
        mine.rename(aside)
        theirs.rename(mine)
        aside.rename(theirs)
    code, out, _ = lth(capsys, "verify", "--root", root)
    assert code == 1 and out.count("it is a copy of") >= 2
    runner.run(data_of(finished, config_in(root)), ["python"])
    assert rows(harmed, capsys) == right


def test_verify_repairs_and_the_next_run_does_the_rest(finished, tmp_path, capsys):
    right, root = rows(finished, capsys), tmp_path / "runs"
    shutil.copytree(finished.parent, root, ignore=shutil.ignore_patterns("data"))
    run, store = root / finished.name, stores.Store(root)
    assert lth(capsys, "verify", run) == (0, "No damage in 1 run.\n", "")
    assert lth(capsys, "verify", "--all", "--root", root) == (0, "No damage in 2 runs.\n", "")
    node = store.path(nodes(run)[-1])
    (node / "meta.json").write_text("{}")
    (run / "status.json").write_text("[]")
    (run / "env.json").write_text("{}")
    for repair in ((), ("--repair",)):
        code, out, err = lth(capsys, "verify", run.name, "--root", root, *repair)
        assert (code, err, out.count("\n")) == (1, "", 7 if repair else 3)
        for path in (node, run / "status.json", run / "env.json"):
            assert f"{path} is damaged: " in out
    for text in ("removed.", "restored; the run counts as interrupted.", "written again with the"):
        assert f"  repaired: {text}" in out
    assert "\nRepaired 3 of 3 problems; the next run of the same command" in out
    assert not node.exists()
    assert [info.status for info in stores.list_runs(root) if info.run == run.name] == [
        "interrupted"
    ]
    assert stores.read_env(run)["plan"] == stores.read_env(finished)["plan"]
    code, out, _ = lth(capsys, "verify", run.name, "--root", root)
    assert code == 1 and f"{node} is missing" in out and out.count("\n") == 1
    runner.run(data_of(finished, config_in(root)), ["python"])
    assert rows(run, capsys) == right
    assert lth(capsys, "verify", "--root", root)[0] == 0
