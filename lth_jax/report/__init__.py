"""A run's report: tables, figures and one page, drawn from the store alone."""

from lth_jax.report.display import level_table
from lth_jax.report.levels import RunRecord, read_run
from lth_jax.report.page import write_report

__all__ = ["RunRecord", "level_table", "read_run", "write_report"]
