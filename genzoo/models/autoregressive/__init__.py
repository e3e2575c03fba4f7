"""Autoregressive models over pixels."""
