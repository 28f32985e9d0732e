"""Joins a `jax.distributed` job, with one-sentence messages for its failures."""

from lth_jax.distributed.cluster import Job, job
from lth_jax.distributed.joining import join

__all__ = ["Job", "job", "join"]
