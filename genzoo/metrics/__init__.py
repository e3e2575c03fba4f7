"""Pure functions of feature matrices: distances between sets of images, with intervals."""

from importlib import import_module
from typing import Any

_HOMES = {
    "authenticity": "genzoo.metrics.memorisation",
    "bootstrap": "genzoo.metrics.estimate",
    "coverage": "genzoo.metrics.metric_registry",
    "data_copying": "genzoo.metrics.memorisation",
    "density": "genzoo.metrics.metric_registry",
    "feature_likelihood_divergence": "genzoo.metrics.likelihood_divergence",
    "FeatureSets": "genzoo.metrics.quality",
    "Figure": "genzoo.metrics.estimate",
    "frechet_distance": "genzoo.metrics.frechet",
    "frechet_extrapolated": "genzoo.metrics.frechet",
    "gaussian_mmd": "genzoo.metrics.kernels",
    "kid": "genzoo.metrics.kernels",
    "METRICS": "genzoo.metrics.metric_registry",
    "mmd": "genzoo.metrics.kernels",
    "neighbour_metrics": "genzoo.metrics.neighbours",
    "precision": "genzoo.metrics.metric_registry",
    "recall": "genzoo.metrics.metric_registry",
    "register": "genzoo.metrics.metric_registry",
    "sliced_wasserstein": "genzoo.metrics.diversity",
    "vendi_score": "genzoo.metrics.diversity",
}
"""Public name to the module that defines it, which is loaded when it is first used."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'genzoo.metrics' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
