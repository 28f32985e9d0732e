"""The benchmark of a device: its numeric tests, its limits, and all parts at reduced size."""

import json

import numpy as np
import pytest

from experiments.benchmarks import device, device_tests, report
from lth_jax.analysis import ratios

SLOWER = {"a segment of training beside float64", "a gradient of convolutions beside the CPU"}
"""They run with all parts, in the slow tier."""


def test_errors_are_relative_to_the_largest_expected_value():
    assert device_tests.error([1.0, -2.0], [1.0, -4.0]) == 0.5
    assert device_tests.error([True, False], [False, True]) == 1.0
    assert device_tests.error(np.zeros(2), np.zeros(2)) == 0.0


@pytest.mark.parametrize("name", sorted(device_tests.TESTS.keys() - SLOWER))
def test_the_device_equals_numpy(name):
    test, goal = device_tests.TESTS[name]
    assert device_tests.error(*test()) <= goal


def test_what_fails_or_does_not_fit_is_a_row_with_a_reason(monkeypatch):
    monkeypatch.setattr(device.engine, "free_bytes", lambda: 1024)
    device.check_fits(1024)
    [found] = device.attempt("made", lambda: device.check_fits(2048))
    assert found["ours"] is None and found["reason"] == ("MemoryError: needs 2 KiB, 1 KiB are free")
    assert ratios.line(found) == f"made: None ({found['reason']})"


def test_what_is_not_reached_in_time_is_a_row_with_a_reason():
    [found] = device.limited(["tests"], True, 0.0)
    assert found["case"] == "tests" and "not reached in 0 s" in found["reason"]


def test_a_process_that_ends_early_is_a_row_with_a_reason(monkeypatch):
    monkeypatch.setattr(device, "_send", print)
    [found] = device.limited(["tests"], True, 60.0)
    assert found["reason"] == "EOFError: exit code 0"


def test_limits_add_up_to_less_than_eight_minutes():
    assert sum(limit for _, limit in device.PARTS.values()) <= 470


def test_unknown_parts_are_named():
    with pytest.raises(ValueError, match=r"`--parts` has \['made'\]"):
        report.main("device", "Made up.", device.measure, device.add_options, ["--parts=made"])


@pytest.mark.slow
def test_all_parts_run_at_reduced_size(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    argv = ["--quick", "--commit-results"]
    report.main("device", device.__doc__, device.measure, device.add_options, argv)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [row["case"] for row in found if row["ours"] is None] == []
    assert [row["case"] for row in found if row["met"] is False] == []
    cases = " ".join(row["case"] for row in found)
    for part in (
        *device_tests.TESTS,
        "LeNet-300-100",
        "three conv",
        "small ResNet, batch",
        "Transformer",
    ):
        assert part in cases
    for part in ("bfloat16", "planner", "50,000 steps", "two rounds", "λmax", "64 Lanczos"):
        assert part in cases
    [written] = map(json.loads, (tmp_path / "device.jsonl").read_text().splitlines())
    assert written["results"] == found
