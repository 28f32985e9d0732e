"""The plan is the cheapest that fits, is kept once, and is refused where nothing fits."""

import os
import subprocess
import sys
import time

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from lth_jax import trees
from lth_jax.models import ConvNet
from lth_jax.population import (
    Plan,
    Task,
    candidate_plans,
    cheapest,
    choose_plan,
    clocks,
    initial,
    level_plans,
    narrowed,
    planning,
    read_plan,
)
from lth_jax.population.placement import check_plan
from tests.population.tiny import TRAIN, TRAINER, VALIDATION, members_of

CANDIDATES = [Plan(1), Plan(2), Plan(2, vmapped=1)]
ONCE = np.array([0.1, 0.1])  # seconds, wall and CPU


def choose(**options):
    options = {"candidates": CANDIDATES, "repeats": 1, **options}
    return choose_plan(TRAINER, members_of(2), TRAIN, VALIDATION, [2, 4], **options)


def test_plans_are_measured_and_the_cheapest_wins_and_is_learnt(tmp_path, monkeypatch):
    monkeypatch.setattr(planning.clocks, "crowded", lambda *args: False)
    plan, evidence = choose(plan_cache=tmp_path)
    best = min(evidence, key=lambda row: row["relative_cost"])
    assert plan == Plan(**{field: best[field] for field in Plan._fields})
    assert best["relative_cost"] == 1.0
    assert [row["chunk"] for row in evidence] == [1, 2, 2]
    assert {row["source"] for row in evidence} == {"measured"}
    assert evidence[0]["bytes"] < min(evidence[1]["bytes"], evidence[2]["bytes"])

    with monkeypatch.context() as patch:
        patch.setattr(planning, "_measure", lambda *args: pytest.fail("measured again"))
        again, recalled = choose(plan_cache=tmp_path)
    assert again == plan
    assert recalled == [{**row, "source": "cache"} for row in evidence]

    [path] = tmp_path.iterdir()
    path.write_text("{")  # damaged: measured again
    assert {row["source"] for row in choose(plan_cache=tmp_path)[1]} == {"measured"}


class Stock(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.Conv(2, (3, 3))(x).reshape(len(x), -1))


@pytest.mark.parametrize(
    ("model", "first"), [(Stock(), Plan(1, "host")), (ConvNet(((2,),), (), 2), Plan(4, vmapped=1))]
)
def test_convolutions_of_xla_are_first_tried_outside_of_loops(model, first, monkeypatch):
    tried = []

    def record(setting, segments, plans, spare, *args):
        tried.extend(plans)
        hosts = [plan for plan in plans if plan.driver == "host"]
        assert set(spare) == (set() if first.driver == "host" else set(hosts))
        return plans[0], []

    monkeypatch.setattr(planning, "_measure", record)
    data = np.zeros((40, 4, 4, 1), np.float32), np.arange(40) % 2
    task = Task(model, data, optimizer=optax.sgd(0.1), batch_size=4, steps=4)
    given = task.trainer, initial(task, 4), task.data.train, task.data.validation
    choose_plan(*given, [4])
    assert tried[0] == first
    assert set(tried) == set(candidate_plans([4]))


def test_the_host_driver_is_measured_where_it_may_win_or_nothing_else_fits(monkeypatch):
    """The network of `TRAINER` has no convolution of XLA."""
    plans = [Plan(2, "host"), Plan(2)]

    def measured(candidates):
        return [(row["driver"], row["bytes"]) for row in choose(candidates=candidates)[1]]

    [(driver, needed)] = measured(plans)
    assert driver == "scan" and needed > 0
    assert measured(plans[:1]) == [("host", None)]
    monkeypatch.setattr(planning, "_fits", lambda plan, *rest: plan.driver == "host")
    assert measured(plans) == [("host", needed)]  # as much as the scan


def test_plans_are_chosen_without_validation_examples():
    """Networks need not accept an empty batch: `reshape(len(x), -1)` does not."""
    data = np.zeros((40, 4, 4, 1), np.float32), np.arange(40) % 2
    task = Task(Stock(), data, optimizer=optax.sgd(0.1), batch_size=4, steps=4)
    nothing = trees.index(task.data.validation, slice(0))
    given = task.trainer, initial(task, 2), task.data.train, nothing
    plan, evidence = choose_plan(*given, [2], candidates=[Plan(2, "host"), Plan(2)], repeats=1)
    assert plan in {read_plan(row) for row in evidence} and len(evidence) == 2


def test_cpu_time_decides_where_others_use_the_cores(tmp_path, monkeypatch):
    """A plan that sleeps is favoured by wall time on a busy machine; nothing is kept of that."""
    times = {CANDIDATES[0]: [3.0, 3.0], CANDIDATES[1]: [2.0, 4.0], CANDIDATES[2]: [4.0, 2.0]}

    def seconds(probe, *steps):
        return [np.array(times[probe._plan]) for _ in steps]

    monkeypatch.setattr(planning._Probe, "bytes", lambda probe: 1)
    monkeypatch.setattr(planning._Probe, "seconds", seconds)
    for busy, chosen in ((True, CANDIDATES[2]), (False, CANDIDATES[1])):
        monkeypatch.setattr(planning.clocks, "crowded", lambda *args, busy=busy: busy)
        plan, evidence = choose(plan_cache=tmp_path)
        assert plan == chosen and {row["crowded"] for row in evidence} == {busy}
        assert len(list(tmp_path.iterdir())) == (not busy)


@pytest.mark.slow
def test_a_crowded_choice_is_cached_on_request_and_only_read_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr(planning.clocks, "crowded", lambda *args: True)
    plan, [first, *_] = choose(plan_cache=tmp_path, cache_crowded=True)
    again, [cached, *_] = choose(plan_cache=tmp_path, cache_crowded=True)
    _, [measured, *_] = choose(plan_cache=tmp_path)
    assert again == plan
    assert [row["source"] for row in (first, cached, measured)] == ["measured", "cache", "measured"]


def test_a_busy_process_elsewhere_is_seen():
    command = [sys.executable, "-c", "while True: pass"]
    before, began = clocks.load(), time.perf_counter()
    busy = [subprocess.Popen(command) for _ in range(2 * os.cpu_count())]
    time.sleep(1.5)
    seen = clocks.crowded(before, clocks.load(), time.perf_counter() - began)
    for one in busy:
        one.kill()
        one.wait()
    assert seen == clocks.STAT.exists()


@pytest.mark.slow
def test_what_is_learnt_is_learnt_of_this_program_only(tmp_path):
    def name(trainer=TRAINER, sizes=(2,), plans=tuple(CANDIDATES), steps=10):
        setting = planning.Setting(trainer, members_of(1), TRAIN, VALIDATION)
        return planning._fingerprint(planning._program(setting), plans, sizes, steps)

    other = TRAINER._replace(schedule=lambda step: 0.5)
    names = [name(), name(other), name(sizes=(3,)), name(plans=tuple(CANDIDATES[:1]))]
    names.append(name(steps=20))
    assert len(set(names)) == 5 and name() == names[0]


def test_plans_that_do_not_fit_are_no_candidates(monkeypatch):
    needs = dict(zip(CANDIDATES, [100, 200, 200], strict=True))
    monkeypatch.setattr(planning._Probe, "bytes", lambda probe: needs[probe._plan])
    monkeypatch.setattr(planning._Probe, "seconds", lambda probe, *steps: [ONCE for _ in steps])
    monkeypatch.setattr(planning, "free_bytes", lambda: 150)
    plan, evidence = choose()
    assert plan == Plan(1) and len(evidence) == 1
    monkeypatch.setattr(planning, "free_bytes", lambda: 99)
    with pytest.raises(
        ValueError, match="`members` do not fit in memory: the smallest of 3"
    ) as caught:
        choose()
    assert "\n" not in str(caught.value)


def test_a_short_run_is_not_spent_on_planning(monkeypatch):
    now = iter(range(10**6))
    monkeypatch.setattr(planning._Probe, "bytes", lambda probe: 1)
    monkeypatch.setattr(planning._Probe, "seconds", lambda probe, *steps: [ONCE for _ in steps])
    monkeypatch.setattr(planning.clocks, "now", lambda: next(now) * ONCE * 10)
    assert len(choose(budget=1e6)[1]) == 3
    assert len(choose(budget=1e6, steps=10**6)[1]) == 3
    assert len(choose(budget=1e6, steps=1)[1]) == 1


def test_the_time_of_a_segment_is_predicted_from_a_few_steps():
    step, validation, most = 0.002, 0.3, 10_000

    class Known(planning._Probe):
        def seconds(self, *steps):
            return [10 * (validation + step * n) * ONCE for n in steps]

    trainer = TRAINER._replace(eval_every=most)
    setting = planning.Setting(trainer, members_of(1), TRAIN, VALIDATION)
    probe = Known(setting, Plan(1), None, None)
    steps = probe.enough()
    assert planning.PROBE / step < steps < 5 * planning.PROBE / step  # and not the validation's
    assert probe.segment(steps) == pytest.approx(validation + step * most)  # wall and CPU
    once = setting._replace(trainer=TRAINER._replace(eval_every=1))
    one = Known(once, Plan(1), None, None)
    assert one.enough() == 1 and one.segment(1) == pytest.approx(validation + step)


def test_a_plan_that_lost_is_not_measured_again(monkeypatch):
    takes = dict(zip(CANDIDATES, [0.1, 0.1, 1.0], strict=True))
    ran = []

    def seconds(probe, *steps):
        ran.append(probe._plan)
        return [takes[probe._plan] * 10 * ONCE for _ in steps]

    monkeypatch.setattr(planning._Probe, "bytes", lambda probe: 1)
    monkeypatch.setattr(planning._Probe, "seconds", seconds)
    plan, evidence = choose(repeats=3)
    *_, slow = CANDIDATES
    assert ran.count(slow) == 2  # when it was compiled, and once beside the others
    assert ran.count(plan) >= 4
    assert evidence[-1]["relative_cost"] == pytest.approx(10.0)


def test_a_recorded_plan_is_read_back_and_the_cheapest_of_many_found():
    plans = [Plan(4, "scan", 2, 1), Plan(16)]
    rows = [{**plan._asdict(), "ms_per_member_step": 1.0, "bytes": None} for plan in plans]
    assert [read_plan(row) for row in rows] == plans
    assert [cheapest(rows, [size]) for size in (4, 5, 16)] == [plans[0], plans[1], plans[0]]
    rows[1]["ms_per_member_step"] = 1.5
    assert [cheapest(rows, [size]) for size in (4, 5, 16)] == [plans[0], plans[1], plans[0]]
    rows[1]["ms_per_member_step"] = 1.7
    assert cheapest(rows, [5]) == plans[0]


def test_devices_of_a_cpu_share_its_memory():
    assert planning._fits(Plan(2, devices=2), 10, 20)
    assert not planning._fits(Plan(2, devices=2), 11, 20)
    assert planning._fits(Plan(2), None, 0) and planning._fits(Plan(2), 1, None)
    free = planning.free_bytes()
    assert free is None or free > 2**20


def test_candidates_are_sound_and_differ():
    for widths, devices in (([1], 1), ([4, 20], 1), ([3, 20], 8), ([5], 2), ([2], 2)):
        plans = candidate_plans(widths, devices)
        assert len(set(plans)) == len(plans)
        for plan in plans:
            planning.compile_segment(TRAINER, plan)
            assert plan.devices in (1, devices)
    assert {plan.driver for plan in candidate_plans([4], drivers=["host"])} == {"host"}
    assert candidate_plans([6])[0] == Plan(6)  # the plainest first


@pytest.mark.parametrize("plan", [Plan(20), Plan(20, devices=2), Plan(24, "scan", 2, 3)])
def test_a_level_is_padded_only_where_that_costs_less_than_a_tenth(plan):
    step = plan.devices * (plan.vmapped or 1)
    for members in range(1, 100):
        narrow = narrowed(plan, members)
        check_plan(narrow)
        least = next(n for n in range(step, members + step, step) if n >= members)
        assert narrow.chunk == least or (narrow == plan and plan.chunk <= 1.1 * least)


def test_plans_follow_the_levels():
    assert level_plans(Plan(20, devices=2), [5, 20, 45, 20]) == [
        (0, Plan(6, devices=2)),
        (1, Plan(20, devices=2)),
    ]
    assert level_plans(Plan(1, "host"), [1, 7]) == [(0, Plan(1, "host"))]


def test_memory_is_that_of_the_compiler():
    compiled = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((256,), "float32")).compile()
    assert planning.program_bytes(compiled) >= 2048
