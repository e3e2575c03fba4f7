"""Priors over condition vectors."""
