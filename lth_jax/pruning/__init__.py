"""Pruning: masks from parameters, for any pytree."""
