"""Results that survive kills: content-addressed nodes, the runs that list them, checkpoints.

The store holds arrays, JSON and processes; their meaning is in the packages above.
"""

from lth_jax.store.checkpoints import Checkpoint, restore, save
from lth_jax.store.environment import environment
from lth_jax.store.errors import CorruptError, LostProcessError, StoreError
from lth_jax.store.hashing import (
    canonical,
    code_fingerprint,
    content_key,
    fingerprint,
    source_fingerprint,
)
from lth_jax.store.interrupts import Interrupted, Stop, interruptible, on_signals
from lth_jax.store.listing import RunInfo, find_run, list_runs
from lth_jax.store.nodes import Node, Partial, Progress, Store
from lth_jax.store.processes import (
    ALONE,
    Team,
    everyone,
    is_distributed,
    lost,
    lost_process_errors,
    to_host,
)
from lth_jax.store.run_files import (
    ENV,
    IDENTITY,
    check_folder_name,
    read_config,
    read_env,
    read_identity,
    read_manifest,
    read_status,
    run_folder,
)
from lth_jax.store.runs import Run, is_complete, open_run, read_metrics
from lth_jax.store.saving import SAVE_SECONDS, SaveTimer
from lth_jax.store.sweeps import Sweep, open_sweep

__all__ = [
    "ALONE",
    "ENV",
    "IDENTITY",
    "SAVE_SECONDS",
    "Checkpoint",
    "CorruptError",
    "Interrupted",
    "LostProcessError",
    "Node",
    "Partial",
    "Progress",
    "Run",
    "RunInfo",
    "SaveTimer",
    "Stop",
    "Store",
    "StoreError",
    "Sweep",
    "Team",
    "canonical",
    "check_folder_name",
    "code_fingerprint",
    "content_key",
    "environment",
    "everyone",
    "find_run",
    "fingerprint",
    "interruptible",
    "is_complete",
    "is_distributed",
    "list_runs",
    "lost",
    "lost_process_errors",
    "on_signals",
    "open_run",
    "open_sweep",
    "read_config",
    "read_env",
    "read_identity",
    "read_manifest",
    "read_metrics",
    "read_status",
    "restore",
    "run_folder",
    "save",
    "source_fingerprint",
    "to_host",
]
