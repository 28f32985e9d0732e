import platform

import jax

from lth_jax.store import environment
from lth_jax.store.numerics import IGNORED, numerics


def test_environment_names_versions_and_devices():
    found = environment()
    assert set(found) == {"python", "versions", "device", "numerics"}  # no machine
    assert found["python"] == platform.python_version()
    assert found["versions"]["jax"] == jax.__version__
    assert None not in found["versions"].values()
    assert found["device"] == {
        "platform": jax.devices()[0].platform,
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
    }


def test_options_that_decide_numbers_are_noted():
    before = numerics()
    for context in (
        jax.default_matmul_precision("highest"),
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.default_prng_impl("rbg"),
        jax.threefry_partitionable(False),
    ):
        with context:
            assert numerics() != before
    with jax.debug_nans(True), jax.log_compiles(True), jax.numpy_rank_promotion("warn"):
        assert numerics() == before


def test_flags_and_variables_that_decide_numbers_are_noted(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    before = numerics()
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/x --xla_force_host_platform_device_count=2")
    assert numerics() == before
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert numerics()["xla"] == ["--xla_cpu_enable_fast_math=true"]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert numerics()["variables"] == ["NVIDIA_TF32_OVERRIDE=0"]


def test_every_ignored_option_exists():
    assert set(jax.config.values) >= IGNORED
