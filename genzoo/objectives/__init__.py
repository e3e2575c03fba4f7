"""Objectives shared by the families: formulas, per example and in nats."""
