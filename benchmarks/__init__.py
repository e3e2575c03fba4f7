"""Benchmarks: each module is a command that prints the figures it is cited for in RESULTS.md."""
