"""The folder of a sweep: what its workers write down for each other."""

import math
import threading

import pytest

from lth_jax import store


def test_workers_share_a_folder_and_what_the_first_recorded(tmp_path):
    first, second = (store.open_sweep(tmp_path, name="demo", config={"a": [1]}) for _ in range(2))
    assert first.path == second.path == tmp_path / "sweeps" / first.path.name
    assert first.once("plan", lambda: {"chunk": 4}) == {"chunk": 4}
    assert second.once("plan", lambda: pytest.fail("made twice")) == {"chunk": 4}
    other = store.open_sweep(tmp_path, name="demo", config={"a": [2]})
    assert other.path != first.path
    assert store.list_runs(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"a": 2}'])
def test_a_damaged_config_is_named_and_written_again(tmp_path, caplog, text):
    path = store.open_sweep(tmp_path, name="demo", config={"a": 1}).path / "config.json"
    before = path.read_text()
    path.write_text(text)
    store.open_sweep(tmp_path, name="demo", config={"a": 1})
    assert path.read_text() == before and f"{path} is damaged" in caplog.text


def test_a_damaged_plan_is_refused_by_name(tmp_path):
    sweep = store.open_sweep(tmp_path, name="demo", config={"a": 1})
    sweep.once("plan", lambda: {"chunk": 4})
    path = sweep.path / "plan.json"
    path.write_text(path.read_text().replace("4", "8", 1))
    with pytest.raises(store.CorruptError, match=r"plan\.json is damaged: it does not match"):
        sweep.once("plan", lambda: pytest.fail("made twice"))


def test_a_changed_record_is_refused_by_name(tmp_path):
    sweep, other = (store.open_sweep(tmp_path, name="demo", config={"a": i}) for i in (1, 2))
    for one in (sweep, other):
        one.append("replans", {"level": 1, "chunk": 4})
    path = sweep.path / "replans.jsonl"
    path.write_text(path.read_text().replace('"chunk": 4', '"chunk": 2'))
    with pytest.raises(store.CorruptError, match=r"replans\.jsonl is damaged"):
        sweep.records("replans")
    sweep.append("metrics", {"level": 1})
    for lines in (other.path / "replans.jsonl", sweep.path / "metrics.jsonl"):
        path.write_bytes(lines.read_bytes())
        with pytest.raises(store.CorruptError, match="lines of another file"):
            sweep.records("replans")


def test_a_record_in_the_place_of_another_is_refused(tmp_path):
    sweep = store.open_sweep(tmp_path, name="demo", config={"a": 1})
    for name, chunk in (("plan-1", 4), ("plan-2", 8)):
        sweep.once(name, lambda chunk=chunk: {"chunk": chunk})
    for other in ("plan-1.json", "config.json"):
        (sweep.path / "plan-2.json").write_bytes((sweep.path / other).read_bytes())
        with pytest.raises(store.CorruptError, match=r"plan-2\.json is damaged: it belongs to"):
            sweep.once("plan-2", dict)


def test_records_of_many_writers_stay_whole(tmp_path):
    sweep = store.open_sweep(tmp_path, name="demo", config={})
    long = list(range(2000))

    def write(worker):
        for step in range(20):
            sweep.append("metrics", {"worker": worker, "step": step, "loss": math.nan, "x": long})

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sweep.records("metrics")
    assert sorted((r["worker"], r["step"]) for r in found) == [
        (worker, step) for worker in range(4) for step in range(20)
    ]
    assert all(record["loss"] is None and record["x"] == long for record in found)
    assert sweep.records("nothing") == []


def test_a_part_is_claimed_by_one(tmp_path):
    sweep = store.open_sweep(tmp_path, name="demo", config={})
    with sweep.claim("group") as mine, sweep.claim("group") as theirs, sweep.claim("other") as free:
        assert (mine, theirs, free) == (True, False, True)
    with sweep.claim("group") as again:
        assert again
