"""Measures of results, masks and networks: intervals, tests, overlaps and others."""
