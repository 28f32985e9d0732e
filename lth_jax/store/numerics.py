"""The settings of JAX and XLA that affect numbers.

Every option of `jax.config` counts, except those listed in `IGNORED`, which determine where or when
something runs, what is reported, or whether a program is refused, but never what it computes. An
option that a later JAX adds counts until it is listed. The same holds for the flags of `XLA_FLAGS`.
"""

import enum
import os
from typing import Any

import jax

IGNORED = frozenset(
    f"jax_{name}"
    for name in (
        # Reports, logs, tracebacks and dumps.
        "captured_constants_report_frames",
        "captured_constants_warn_bytes",
        "compiler_detailed_logging_min_ops",
        "debug_log_modules",
        "distributed_debug",
        "dump_ir_modes",
        "dump_ir_to",
        "explain_cache_misses",
        "hlo_source_file_canonicalization_regex",
        "include_debug_info_in_dumps",
        "include_full_tracebacks_in_locations",
        "log_checkpoint_residuals",
        "log_compiles",
        "logging_level",
        "pallas_verbose_errors",
        "pprint_use_color",
        "send_traceback_to_runtime",
        "source_url_schema",
        "traceback_filtering",
        "traceback_in_locations_limit",
        "tracer_error_num_traceback_frames",
        # Checks, which raise or pass.
        "array_garbage_collection_guard",
        "check_proxy_envs",
        "check_static_indices",
        "check_tracer_leaks",
        "debug_infs",
        "debug_key_reuse",
        "debug_leaked_clients_on_clear_backends",
        "debug_nans",
        "disable_bwd_checks",
        "disable_vmap_shmap_error",
        "disallow_mesh_context_manager",
        "enable_checks",
        "error_checking_behavior_divide",
        "error_checking_behavior_nan",
        "error_checking_behavior_oob",
        "legacy_prng_key",
        "mutable_array_checks",
        "no_execution",
        "no_tracing",
        "numpy_rank_promotion",
        "pallas_enable_debug_checks",
        "thread_guard",
        "transfer_guard",
        "transfer_guard_device_to_device",
        "transfer_guard_device_to_host",
        "transfer_guard_host_to_device",
        # Caches of compiled programs.
        "compilation_cache_check_contents",
        "compilation_cache_dir",
        "compilation_cache_expect_pgle",
        "compilation_cache_include_metadata_in_key",
        "compilation_cache_max_size",
        "enable_compilation_cache",
        "persistent_cache_enable_xla_caches",
        "persistent_cache_min_compile_time_secs",
        "persistent_cache_min_entry_size_bytes",
        "raise_persistent_cache_errors",
        "remove_custom_partitioning_ptr_from_cache_key",
        # Devices, and the connection of processes. A key has the kind of device separately, and a
        # plan the number of devices.
        "backend_target",
        "cpu_enable_async_dispatch",
        "cpu_get_global_topology_timeout_minutes",
        "cpu_get_local_topology_timeout_minutes",
        "cross_host_transfer_socket_address",
        "cross_host_transfer_timeout_seconds",
        "cross_host_transfer_transfer_size",
        "cross_host_transport_addresses",
        "cuda_visible_devices",
        "enable_preemption_service",
        "enable_recoverability",
        "force_dcn_cross_host_transfers",
        "mock_gpu_topology",
        "num_cpu_devices",
        "oneapi_visible_devices",
        "pjrt_client_create_options",
        "platform_name",
        "platforms",
        "rocm_visible_devices",
        "share_binary_between_hosts",
        "share_binary_between_hosts_timeout_ms",
        "sort_devices_by_process_index",
        "xla_backend",
        # Formats of what is exported.
        "export_calling_convention_version",
        "export_ignore_forward_compatibility",
        "serialization_version",
    )
) | {"mock_num_gpu_processes"}
"""Options of `jax.config` that do not affect numbers."""

IGNORED_XLA = ("--xla_dump_", "--xla_force_host_platform_device_count")
"""Prefixes of flags in `XLA_FLAGS` that do not affect numbers."""

VARIABLES = ("LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG")
"""Further environment variables that affect numbers."""


def numerics() -> dict[str, list[str]]:
    """The current settings that affect numbers, including those of context managers.

    Returns:
      `{"jax", "xla", "variables"}`: options of `jax.config`, flags of `XLA_FLAGS`, and environment
      variables, each a sorted list of `"name=value"`.

    >>> import jax
    >>> with jax.default_matmul_precision("highest"):
    ...     "jax_default_matmul_precision=highest" in numerics()["jax"]
    True
    """
    options = {name: value for name, value in jax.config.values.items() if name not in IGNORED}
    flags = os.environ.get("XLA_FLAGS", "").split()
    last = {flag.partition("=")[0]: flag for flag in flags if not flag.startswith(IGNORED_XLA)}
    return {
        "jax": sorted(f"{name}={_text(value)}" for name, value in options.items()),
        "xla": sorted(last.values()),
        "variables": [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ],
    }


def _text(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    return f"{value.platform}:{value.device_kind}" if isinstance(value, jax.Device) else str(value)
