"""Joining a `jax.distributed` job whose failures end in one sentence."""

from lth_jax.distributed.cluster import Job, job
from lth_jax.distributed.joining import join

__all__ = ["Job", "job", "join"]
