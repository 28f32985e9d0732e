import json
import math

import numpy as np
import pytest

from lth_jax.store import (
    CorruptError,
    Interrupted,
    Node,
    Store,
    StoreError,
    content_key,
    files,
    find_run,
    is_complete,
    list_runs,
    open_run,
    read_config,
    read_env,
    read_identity,
    read_manifest,
    read_metrics,
    read_status,
    run_files,
    runs,
)
from lth_jax.store.listing import find_name
from lth_jax.store.run_files import write_record
from lth_jax.store.verify import verify_run

CONFIG = {"rate": 0.1, "levels": (1, 2)}
KEYS = [content_key(i) for i in range(3)]


def begin(root, *, name="demo", config=CONFIG, env=None, wait=False):
    return open_run(root, name=name, config=config, env=env or {}, wait=wait)


def statuses(root):
    return [info.status for info in list_runs(root)]


def test_a_run_is_a_folder_of_readable_files(tmp_path):
    with begin(tmp_path, env={"jax": "0.10"}) as run:
        run.record_plan({"chunk": 8})
        run.add(KEYS[0], level=0, arms=["dense"])
        run.log({"step": 1})
        run.finish()
    assert run.path == tmp_path / f"demo-{content_key(CONFIG)[:8]}"
    content = {p.name: json.loads(p.read_text()) for p in run.path.glob("*.json")}
    assert content.pop("config.json") == {"rate": 0.1, "levels": [1, 2]}
    for found in content.values():
        assert found.pop("folder") == run.path.name and len(found.pop("sha256")) == 64
    assert content["env.json"] == {
        "environments": [{"jax": "0.10"}],
        "plan": {"chunk": 8},
        "replans": [],
    }
    assert content["manifest.json"] == {
        "config_hash": content_key(CONFIG),
        "plan": {"chunk": 8},
        "replans": [],
        "nodes": [{"key": KEYS[0], "level": 0, "arms": ["dense"]}],
    }
    assert content["status.json"]["status"] == "finished"


def test_a_finished_run_stays_finished(tmp_path):
    with begin(tmp_path) as run:
        run.finish()
    with begin(tmp_path) as run:
        assert run.status == "finished"
    with pytest.raises(ZeroDivisionError), begin(tmp_path):
        raise ZeroDivisionError
    assert statuses(tmp_path) == ["finished"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Interrupted(15), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
        (ValueError("`rate` must be positive."), "failed"),
    ],
)
def test_how_a_run_was_left_is_recorded(tmp_path, error, status):
    with pytest.raises(type(error)), begin(tmp_path) as run:
        assert run.status == "running"
        raise error
    assert statuses(tmp_path) == [status]
    facts = json.loads((run.path / "status.json").read_text())
    assert facts["error"] == (f"ValueError: {error}" if status == "failed" else None)
    with begin(tmp_path) as run:
        run.finish()
    facts = json.loads((run.path / "status.json").read_text())
    assert (facts["status"], facts["error"]) == ("finished", None)


def test_a_run_left_unfinished_is_interrupted(tmp_path):
    with begin(tmp_path):
        pass
    assert statuses(tmp_path) == ["interrupted"]


def test_changes_of_plan_are_kept_beside_it(tmp_path):
    with open_run(tmp_path, name="a", config={}, env={}) as run:
        assert run.replans == []
        run.add_replan({"level": 1, "chunk": 4})
        run.add_replan({"level": 2, "chunk": 2})
    with open_run(tmp_path, name="a", config={}, env={}) as run:
        assert [change["chunk"] for change in run.replans] == [4, 2]


def test_nodes_with_a_label_can_be_dropped(tmp_path):
    with begin(tmp_path) as run:
        for i, color in enumerate(("red", "blue", "blue")):
            run.add(f"{i}" * 64, color=color, rows=[i])
        assert [entry["key"][0] for entry in run.drop(color="blue", rows=[1])] == ["1"]
        assert [entry["key"][0] for entry in run.drop(color="blue")] == ["2"]
        assert [entry["key"][0] for entry in run.nodes] == ["0"]
        assert run.drop(color="blue") == []


def test_the_first_plan_stays(tmp_path):
    with begin(tmp_path) as run:
        assert run.plan is None
        assert run.record_plan({"chunk": np.int64(8), "widths": (1, 2)}) == run.plan
    with begin(tmp_path) as run:
        assert run.plan == {"chunk": 8, "widths": [1, 2]}
        run.record_plan({"chunk": 8, "widths": [1, 2]})
        with pytest.raises(StoreError, match=r"env\.json holds another plan"):
            run.record_plan({"chunk": 4, "widths": [1, 2]})
        assert run.plan["chunk"] == 8


def test_adding_a_node_again_changes_nothing_but_its_labels(tmp_path):
    with begin(tmp_path) as run:
        for key in (KEYS[0], KEYS[1], KEYS[0]):
            run.add(key, level=0)
        run.add(KEYS[1], level=1)
    with begin(tmp_path) as run:
        assert run.nodes == [{"key": KEYS[0], "level": 0}, {"key": KEYS[1], "level": 1}]


def test_environments_are_kept_one_per_change(tmp_path):
    for version in ("1", "1", "2", "1"):
        with begin(tmp_path, env={"jax": version}) as run:
            pass
    assert [e["jax"] for e in run.environments] == ["1", "2", "1"]


def test_metrics_are_json_lines_and_nan_is_null(tmp_path):
    with begin(tmp_path) as run:
        run.log({"loss": np.float32(0.5), "step": np.int32(1)})
        run.log({"loss": math.nan, "values": [math.inf, 1]})
        assert run.metrics() == [
            {"loss": 0.5, "step": 1},
            {"loss": None, "values": [None, 1]},
        ]


def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path):
    with begin(tmp_path) as run:
        run.log({"step": 1})
        run.log({"step": 2, "name": "ü"})
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert len(read_metrics(path)) == whole[:cut].count(b"\n")
    with begin(tmp_path) as run:
        run.log({"step": 3})
        assert [record["step"] for record in run.metrics()] == [1, 3]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(CorruptError, match=r"metrics\.jsonl is damaged"):
        read_metrics(tmp_path / "metrics.jsonl")
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_another_configuration_with_the_same_short_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files, "run_folder", lambda name, *_: f"{name}-12345678")
    monkeypatch.setattr(runs, "run_folder", lambda name, *_: f"{name}-12345678")
    with begin(tmp_path):
        pass
    refused = pytest.raises(StoreError, match="demo-12345678 holds another configuration")
    with refused, begin(tmp_path, config={"rate": 0.2}):
        pass


FILES = ("config.json", "identity.json", "manifest.json", "status.json", "env.json")
READERS = dict(
    zip(FILES, (read_config, read_identity, read_manifest, read_status, read_env), strict=True)
)


def whole(root, name="demo", config=CONFIG):
    """A finished run with an identity, a plan and a node."""
    shelf = Store(root)
    shelf.ensure(KEYS[0], lambda partial: Node({}, {}))
    what = {"name": name, "config": config, "env": {"jax": "1"}, "identity": {"data": "x"}}
    with open_run(root, **what) as run:
        if not run.is_complete(shelf):
            run.restart()
            run.record_plan({"chunk": 8})
            run.add(KEYS[0], level=0)
            run.finish()
    return run.path


def edited(path):
    found = json.loads(path.read_text())
    last = next(reversed(found))
    return json.dumps({**found, last: f"{found[last]}0"})


def other_runs(path):
    return (whole(path.parents[1] / "other", config={"rate": 7}) / path.name).read_text()


DAMAGE = {
    "emptied": lambda path: "",
    "torn": lambda path: path.read_text()[: path.stat().st_size // 2],
    "{}": lambda path: "{}",
    "[]": lambda path: "[]",
    "deep": lambda path: "[" * 100_000,
    "nan": lambda path: path.read_text().replace("{", '{"x": NaN,', 1),
    "edited": edited,
    "another run's": other_runs,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_named_and_made_again(tmp_path, caplog, name, how):
    path = whole(tmp_path / "runs")
    before = {one: READERS[one](path) for one in FILES}
    (path / name).write_text(DAMAGE[how](path / name))
    with pytest.raises(CorruptError, match=rf"{path}/[a-z]+\.json is .*") as caught:
        READERS[name](path)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not is_complete(Store(path.parent), path)
    assert whole(path.parent) == path and is_complete(Store(path.parent), path)
    assert name in caplog.text
    after = {one: READERS[one](path) for one in FILES}
    assert after == before | {"status.json": after["status.json"]}


@pytest.mark.parametrize("name", FILES)
def test_a_lost_file_is_made_again(tmp_path, name):
    path = whole(tmp_path)
    before = {one: READERS[one](path) for one in FILES}
    (path / name).unlink()
    files.temporary(path / name).write_text("{")
    assert not is_complete(Store(tmp_path), path)
    assert whole(tmp_path) == path and is_complete(Store(tmp_path), path)
    after = {one: READERS[one](path) for one in FILES}
    assert after == before | {"status.json": after["status.json"]}


def test_a_run_is_finished_only_with_all_its_nodes(tmp_path, caplog):
    path, shelf = whole(tmp_path), Store(tmp_path)
    node = tmp_path / "nodes" / KEYS[0][:2] / KEYS[0]
    (node / "meta.json").write_text("{}")
    assert not is_complete(shelf, path) and f"{node} is damaged" in caplog.text
    files.remove(node)
    assert not is_complete(shelf, path) and f"{node} is missing" in caplog.text


def test_an_older_copy_of_a_manifest_is_not_the_finished_one(tmp_path, caplog):
    path, shelf = whole(tmp_path), Store(tmp_path)
    write_record(path, "manifest.json", {**read_manifest(path), "nodes": []})
    assert not is_complete(shelf, path)
    assert "lists other nodes than demo-" in caplog.text


def test_values_of_another_type_are_refused_even_if_sealed(tmp_path):
    path = whole(tmp_path)
    for name, field, value in (
        ("manifest.json", "nodes", [{"level": 0}]),
        ("manifest.json", "plan", 3),
        ("env.json", "replans", {}),
        ("status.json", "status", "well"),
        ("status.json", "created", None),
    ):
        kept = READERS[name](path)
        write_record(path, name, {**kept, field: value})
        with pytest.raises(CorruptError, match=f"{name} is damaged: "):
            READERS[name](path)
        write_record(path, name, kept)


def test_a_run_killed_while_it_began_can_begin_again(tmp_path):
    with begin(tmp_path) as run:
        pass
    for name in ("config.json", "manifest.json", "status.json", "env.json"):
        (run.path / name).unlink()
        files.temporary(run.path / name).write_text("{")
        with begin(tmp_path) as run:
            assert run.nodes == [] and run.status == "running"


def test_pilots_are_listed_on_demand_and_a_run_of_its_own_is_none(tmp_path):
    def listed(**options):
        return [info.name for info in list_runs(tmp_path, **options)]

    def opened(name, pilot):
        with open_run(tmp_path, name=name, config={}, env={}, pilot=pilot):
            pass

    opened("a", True)
    opened("b", False)
    assert (listed(), listed(pilots=False)) == (["a", "b"], ["b"])
    opened("b", True)
    assert listed(pilots=False) == ["b"]
    opened("a", False)
    assert listed(pilots=False) == ["a", "b"]


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "ü", "a\n"])
def test_names_are_folder_names(tmp_path, name):
    with pytest.raises(ValueError, match="`name` must be letters"), begin(tmp_path, name=name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_root_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written: "), begin(tmp_path / "file"):
        pass


def test_runs_are_listed_oldest_first_and_damage_hides_none(tmp_path):
    assert list_runs(tmp_path / "nothing") == []
    for name in ("b", "a"):
        with begin(tmp_path, name=name) as run:
            run.finish()
            created = f"2026-01-0{1 + (name == 'a')}T00:00:00+00:00"
            write_record(run.path, "status.json", read_status(run.path) | {"created": created})
    (tmp_path / "nodes" / "00").mkdir(parents=True)
    assert [info.name for info in list_runs(tmp_path)] == ["b", "a"]
    assert list_runs(tmp_path)[0].config_hash == content_key(CONFIG)
    status = run.path / "status.json"
    for damage in (
        lambda: status.write_text("{"),
        lambda: status.write_text("[]"),
        lambda: status.write_text('{"name": 3}'),
        lambda: status.write_bytes(b"\xff"),
        lambda: status.unlink(),
        lambda: status.mkdir(),
        lambda: (run.path / "config.json").unlink(),
    ):
        damage()
        assert {(info.name, info.status) for info in list_runs(tmp_path)} == {
            ("a", "damaged"),
            ("b", "finished"),
        }


def test_a_running_run_is_running_while_it_is_held(tmp_path):
    with begin(tmp_path) as run:
        assert statuses(tmp_path) == ["running"]
        text = (run.path / "status.json").read_text()
    (run.path / "status.json").write_text(text)  # what a kill would leave
    assert statuses(tmp_path) == ["interrupted"]


def test_a_run_is_found_by_path_name_or_unique_beginning(tmp_path):
    paths = {}
    for name in ("lenet", "lenet-long", "mnist1d"):
        with begin(tmp_path, name=name) as run:
            paths[name] = run.path
    assert find_run(tmp_path, str(paths["lenet"])).name == "lenet"
    assert find_run(tmp_path, paths["lenet"].name).name == "lenet"
    assert find_run(tmp_path, "mn").name == "mnist1d"
    with pytest.raises(StoreError, match=r"'lenet' names several runs in .*: lenet-"):
        find_run(tmp_path, "lenet")
    with pytest.raises(
        StoreError,
        match=f"unknown run 'mnits1d'; did you mean '{paths['mnist1d'].name}'. The runs .* lenet-",
    ):
        find_run(tmp_path, "mnits1d")
    with pytest.raises(StoreError, match=r"unknown run 'x': .* holds no runs"):
        find_run(tmp_path / "nothing", "x")


@pytest.mark.parametrize("text", ["5e6f7a8b", "5e6", "a8b", "mnist1d-5e6f7a8b", "m"])
def test_a_name_is_found_by_its_hash_and_its_end(text):
    names = ["lenet-1a2b3c4d", "lenet-1a2f0000", "mnist1d-5e6f7a8b"]
    assert find_name(text, names, "run", "runs") == "mnist1d-5e6f7a8b"
    with pytest.raises(StoreError, match="'1a2' names several runs in runs: lenet-1a2b3c4d, len"):
        find_name("1a2", names, "run", "runs")
    with pytest.raises(StoreError, match="the name of a run is empty"):
        find_name("", names[:1], "run", "runs")


@pytest.mark.parametrize("error", [ValueError("first"), Interrupted(15)])
def test_a_status_that_cannot_be_written_hides_no_error(tmp_path, monkeypatch, error):
    def full(*args):
        raise StoreError("the disk is full")

    with pytest.raises(type(error), match=str(error)):
        with open_run(tmp_path, name="demo", config={}, env={}):
            monkeypatch.setattr(runs, "write_record", full)
            raise error
    [info] = list_runs(tmp_path)
    assert info.status == "interrupted"


def problems(path):
    return list(verify_run(Store(path.parent), path))


def test_every_changed_byte_of_a_log_is_found_and_repaired(tmp_path):
    for step in (1, 2):  # the second time, as after an interruption
        with begin(tmp_path) as run:
            run.log({"step": step, "loss": 0.5})
            if step == 2:
                run.finish()
    log = run.path / "metrics.jsonl"
    before, right = log.read_bytes(), run.metrics()
    assert not problems(run.path)
    for i in range(len(before)):
        log.write_bytes(before[:i] + bytes([before[i] ^ 1]) + before[i + 1 :])
        [problem] = problems(run.path)
        assert problem.path == log and str(log) in problem.sentence
    assert "1 line kept; no result uses them" in problem.repair()
    assert run.metrics() == right[:1] and not problems(run.path)
    log.write_bytes(b"")
    assert not problems(run.path)


def test_a_log_of_another_run_is_damage_and_one_of_an_earlier_version_is_not(tmp_path):
    with begin(tmp_path) as run, open_run(tmp_path, name="other", config={}, env={}) as other:
        (run.path / "metrics.jsonl").write_text('{"step": 1}\n')
        for one in (run, other):
            one.log({"step": 2})
            one.finish()
    assert [record["step"] for record in run.metrics()] == [1, 2] and not problems(run.path)
    (run.path / "metrics.jsonl").write_bytes((other.path / "metrics.jsonl").read_bytes())
    [problem] = problems(run.path)
    assert "lines of another file" in problem.sentence
