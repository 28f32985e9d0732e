"""What the processes of a job tell each other, seen from one of them."""

import contextlib
import dataclasses
import json

import jax
import pytest

from lth_jax import store
from lth_jax.store import StoreError, Team, locks, run_files


@dataclasses.dataclass(frozen=True)
class Scripted(Team):
    """A team whose other processes give scripted answers; None for this one."""

    said: tuple = ()

    def gather(self, text):
        return [text if said is None else said for said in self.said]


@dataclasses.dataclass(frozen=True)
class InTurn(Scripted):
    """A team whose process 0 says one thing after the other."""

    def gather(self, text):
        return [next(self.said), text]


def team(index, *said):
    return Scripted(index, len(said), said)


def test_a_process_alone_tells_nobody():
    assert store.ALONE.gather("x") == ["x"] and store.ALONE.first
    assert store.everyone() == store.ALONE
    store.ALONE.check_same(config=1)
    assert store.ALONE.each(lambda: 2) == store.ALONE.on_leader(lambda: 2) == 2


def test_only_process_0_is_asked():
    def never():
        raise AssertionError

    assert team(1, json.dumps({"value": [3]}), None).on_leader(never) == [3]
    with pytest.raises(StoreError, match="the disk is full"):
        team(1, json.dumps({"error": "the disk is full"}), None).on_leader(never)


def test_an_error_of_process_0_is_its_own_there():
    def full():
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        team(0, None, "").on_leader(full)


def test_a_process_that_cannot_begin_stops_all():
    with pytest.raises(StoreError, match="process 1 of 2 cannot begin: no data"):
        team(0, None, "no data").each(lambda: 3)
    with pytest.raises(ValueError, match="no data here"):
        team(1, "", None).each(lambda: int("no data here"))


def test_facts_that_differ_are_named_with_the_processes():
    facts = {"config": {"seed": 0}, "code": "abc"}
    same = json.dumps({name: store.content_key(fact) for name, fact in facts.items()})
    team(0, None, same, same).check_same(**facts)
    other = json.dumps(json.loads(same) | {"config": store.content_key({"seed": 1})})
    with pytest.raises(StoreError, match=r"process 1, 2 of 3 differs from process 0 in its config"):
        team(0, None, other, other).check_same(**facts)


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_the_loss_of_a_process_is_a_sentence(kind):
    error = kind("UNKNOWN: Gloo AllGather failed: Connection closed\nmore")
    match = r"process 1 of 2 stops.*closed\); start all processes"
    with (
        pytest.raises(store.LostProcessError, match=match),
        store.lost_process_errors(store.Team(1, 2)),
    ):
        raise error
    with pytest.raises(kind, match="Gloo"), store.lost_process_errors(store.ALONE):
        raise error
    with (
        pytest.raises(ValueError, match="of one's own"),
        store.lost_process_errors(store.Team(1, 2)),
    ):
        raise ValueError("an error of one's own")


@pytest.mark.parametrize(("held", "status"), [(False, "interrupted"), (True, "running")])
def test_a_survivor_marks_a_run_that_process_0_left(tmp_path, held, status):
    # As process 1 of a job sees it; nothing else holds the lock once process 0 is gone.
    with store.open_run(tmp_path, name="job", config={}, env={}) as run:
        pass
    facts = store.read_status(run.path)
    run_files.write_record(run.path, run_files.STATUS, facts | {"status": "running"})
    survivor = InTurn(1, 2, iter([json.dumps({"value": None}), ""]))
    lock = locks.hold(run.path / "lock", what="the run") if held else contextlib.nullcontext()
    with lock, pytest.raises(store.LostProcessError):
        with store.open_run(tmp_path, name="job", config={}, env={}, team=survivor):
            raise ValueError("UNKNOWN: Gloo AllGather failed")
    assert store.read_status(run.path)["status"] == status


def test_a_signal_to_any_process_stops_all():
    stop = store.Stop()
    stop.check(team(0, None, "0"))
    with pytest.raises(store.Interrupted) as caught:
        stop.check(team(0, None, "15"))
    assert caught.value.signal == "SIGTERM"
