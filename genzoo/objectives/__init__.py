"""Objectives shared by the families: formulas, per example and in nats."""

from genzoo.core.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__, {})
