"""After a real out-of-memory error the level continues with chunks of half the size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lth_jax.population import Plan

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_a_process_that_runs_out_of_memory_halves_its_chunks(tmp_path):
    command = [sys.executable, "-m", "tests.lottery.starved", str(tmp_path)]
    # glibc reserves 64 MiB of addresses for the arena of each new thread, which the limit counts.
    env = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    out = done.stdout
    reported = json.loads(out.splitlines()[-1])
    assert reported == {"replans": repr([(0, Plan(1))]), "as_recorded": True}
