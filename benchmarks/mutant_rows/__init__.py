"""The broken formulas of `python -m benchmarks.mutants`, as rows of data by room."""

from benchmarks.mutant_rows import likelihood, metrics, models, objectives, training

MUTANTS = (*objectives.ROWS, *likelihood.ROWS, *models.ROWS, *metrics.ROWS, *training.ROWS)
"""All rows."""
