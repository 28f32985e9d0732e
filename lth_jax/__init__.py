"""The laboratory for the Lottery Ticket Hypothesis in JAX and Flax."""
