"""Pure functions of feature matrices: distances between sets of images, with intervals."""

from genzoo.core.lazy import lazy_names

_HOMES = {
    "authenticity": "genzoo.metrics.memorisation",
    "bootstrap": "genzoo.metrics.intervals",
    "coverage": "genzoo.metrics.metric_registry",
    "data_copying": "genzoo.metrics.memorisation",
    "density": "genzoo.metrics.metric_registry",
    "feature_likelihood_divergence": "genzoo.metrics.likelihood_divergence",
    "fidelity": "genzoo.metrics.metric_registry",
    "FeatureSets": "genzoo.metrics.quality",
    "Estimate": "genzoo.metrics.estimate",
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
    "variety": "genzoo.metrics.metric_registry",
    "vendi_score": "genzoo.metrics.diversity",
}
"""Public name to the module that defines it, which is loaded when it is first used."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
