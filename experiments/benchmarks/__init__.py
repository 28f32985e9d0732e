"""Benchmarks: one per promise of speed, each beside its alternatives in the same run."""
