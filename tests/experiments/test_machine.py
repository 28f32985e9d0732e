"""The machine part of a config: available devices, and caches for the next run."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import machine
from lth_jax.cli.programs import UserError
from lth_jax.lottery import running
from lth_jax.population import Plan
from tests.experiments import tiny

ROOT = Path(__file__).resolve().parents[2]


def machine_of(**changes):
    settings = tiny.get_config().machine
    settings.update(changes)
    return settings


def test_devices_that_are_not_there_are_one_sentence():
    with pytest.raises(UserError, match=r"`machine.devices` is 99; this machine has 8 \(cpu\)"):
        machine.prepare(machine_of(devices=99))
    with pytest.raises(UserError, match=r"must be a multiple of `machine\.devices`, which is 4"):
        machine.prepare(machine_of(devices=4, chunk=6))


def test_a_population_uses_the_devices_it_has_members_for():
    def devices(members, **changes):
        options = machine.plan_options(machine_of(chunk=0, **changes))
        return options.candidates([members])[0].devices

    assert (devices(3), devices(100), devices(100, devices=2)) == (3, 8, 2)


def test_a_configured_plan_is_the_only_candidate():
    assert machine.plan_options(machine_of()).candidates([5]) == [Plan(2)]
    assert machine.plan_options(machine_of(devices=2)).candidates([5]) == [Plan(2, devices=2)]
    measured = machine.plan_options(machine_of(chunk=0, driver="scan")).candidates([5])
    assert len(measured) > 1 and {plan.driver for plan in measured} == {"scan"}


def test_plans_are_kept_beside_compiled_programs(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept, unkept = (machine_of(compilation_cache=cached) for cached in (True, False))
    assert machine.plan_options(kept).cache == tmp_path / "lth_jax" / "plans"
    assert machine.plan_options(unkept).cache is None


def test_bfloat16_on_a_cpu_is_said_to_be_slow(capsys):
    machine.note_precision("float32")
    assert capsys.readouterr().out == ""
    machine.note_precision("bfloat16")
    assert "bfloat16 is slower than float32 on a CPU" in capsys.readouterr().out


def test_processes_that_cannot_be_are_one_sentence():
    for changes, message in [
        ({"processes": 2}, "need `machine.coordinator`"),
        ({"coordinator": "somewhere", "processes": 2}, "it must be HOST:PORT"),
        (
            {"coordinator": "here:1", "processes": 2, "process": 2},
            "`machine.process` is 2; it must",
        ),
        ({"coordinator": "here:1"}, "`machine.process` is 0; .* below `machine.processes`, 0"),
        ({"coordinator": "auto"}, "`machine.coordinator` is 'auto': "),
        ({"init_timeout_s": 0}, "`machine.init_timeout_s` is 0"),
    ]:
        with pytest.raises(UserError, match=message):
            machine.join(machine_of(**changes))
    machine.join(machine_of())


def test_a_plan_for_other_devices_is_reported_and_runs():
    assert running.device_notes([(0, Plan(8, devices=8))]) == []
    [note] = running.device_notes([(0, Plan(8)), (2, Plan(16, devices=16))])
    assert note.startswith(
        "From level 2 on the plan has 16 devices; here its members train on 8, 1"
    )


def test_importing_a_program_starts_no_device():
    """`jax.distributed` must be joined before JAX starts, so nothing may be computed on import."""
    programs = ", ".join(f"experiments.{name}" for name in ("run", "sweep", "atlas", "spectrum"))
    text = f"import {programs}; from jax._src import xla_bridge as b; assert not b._backends"
    subprocess.run([sys.executable, "-c", text], check=True, cwd=ROOT)
