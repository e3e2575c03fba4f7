"""Feature extractors in whose features images are compared."""
