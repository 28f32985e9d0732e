"""The numbers of each study: seeds, smallest effects that matter, grids, and what is trained."""
