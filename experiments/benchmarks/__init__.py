"""Benchmarks of speed and size, each measured together with alternatives."""
