"""Configs become functions here and nowhere else."""
