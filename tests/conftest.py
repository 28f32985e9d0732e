"""Shared by all tests: eight virtual CPU devices, and one cache of compiled programs.

Tests of many files compile the same small programs; the cache, which also serves the processes
that tests start, keeps the suite within its minutes. It lies beside the library's own cache, so all
checkouts of a user share it; without compiled programs the suite takes about twice as long. Tiny
programs take longer to optimise than to run, so they are not optimised, which saves 40 % of the
time. Compiled without XLA's fusion emitters (jaxlib 0.10.2) they need half the time again; a step
of training would take up to twice as long, so that the library keeps the emitters.
"""

import contextlib
import gc
import os
import time
from collections import Counter
from pathlib import Path

import jax
import pytest

from lth_jax.machine import cache_folder, collect_less_often
from tests import lowering

FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if jax.__version_info__ < (0, 11):  # XLA ends a process that names a flag it lacks
    FAST_COMPILE += " --xla_cpu_use_fusion_emitters=false"


def pytest_addoption(parser):
    text = "lower each program that a test runs for CUDA and TPU as well; no hardware is needed"
    parser.addoption("--accelerators", action="store_true", help=text)


def pytest_configure(config):
    if config.getoption("accelerators"):
        lowering.install([])
    os.environ["XLA_FLAGS"] = f"{FAST_COMPILE} {os.environ.get('XLA_FLAGS', '')}"
    folder = _compiled_programs(remove_unused=not hasattr(config, "workerinput"))
    for name, value in {
        "jax_num_cpu_devices": 8,
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        jax.config.update(name, value)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


UNUSED_SECONDS = 14 * 24 * 3600


def _compiled_programs(remove_unused):
    """The folder of compiled programs; a program that no test has read for two weeks goes."""
    folder = cache_folder() / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir() if remove_unused else ():
        with contextlib.suppress(FileNotFoundError):  # another checkout's tests removed it
            if time.time() - max(path.stat().st_atime, path.stat().st_mtime) > UNUSED_SECONDS:
                path.unlink()
    return folder


LONG = ("test_docs.py",)
"""Files with a test that takes minutes. They start first, or the last worker runs alone."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Starts the files of `LONG` first, and then those with the most tests."""
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in LONG, -sizes[item.path]))


def pytest_collection_finish(session):
    """Leaves thousands of tests and what they import out of collections."""
    collect_less_often()


MAPPINGS = Path("/proc/self/maps")
MAX_MAPPINGS = 16_000
"""Linux allows a process 65,530 mappings of memory by default."""


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Drops the compiled programs of earlier files before their mappings run out.

    XLA:CPU maps three regions for each object that it compiles, and jaxlib 0.10.2 ends in a
    segmentation fault, usually in `compile_or_get_cached`, when `mmap` fails.
    """
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MAX_MAPPINGS:
        jax.clear_caches()
        gc.collect()
