"""Pruning: parameters to masks, for anybody's pytree."""
