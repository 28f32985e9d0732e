"""Data as arrays in memory, prepared once through TFDS, and the order in which they are seen."""
