"""Estimators of log-likelihood that several families share."""
