"""Evaluating trained models: likelihood with its error, kind and protocol."""
