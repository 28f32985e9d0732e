import functools
import os
import sys
import time

from lth_jax.machine import core_shares, in_processes


def note(folder, name):
    (folder / name).write_text(" ".join(map(str, sorted(os.sched_getaffinity(0)))))


def test_functions_run_on_their_shares_and_failures_are_left_out(tmp_path, capfd):
    jobs = {name: functools.partial(note, tmp_path, name) for name in "abc"}
    jobs |= {"exit": functools.partial(sys.exit, 2), "error": functools.partial(int, "no number")}
    shares = core_shares(2)
    seconds = in_processes(jobs, shares)
    assert sorted(seconds) == ["a", "b", "c"] and min(seconds.values()) > 0
    used = {tuple(map(int, (tmp_path / name).read_text().split())) for name in "abc"}
    assert used <= set(map(tuple, shares))
    assert "no number" in capfd.readouterr().err


def test_one_share_runs_one_function_at_a_time():
    began = time.perf_counter()
    seconds = in_processes({name: functools.partial(time.sleep, 0.3) for name in "ab"}, [[]])
    assert sum(seconds.values()) <= time.perf_counter() - began
