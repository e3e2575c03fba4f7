"""For type checkers: where the names that `__init__.py` loads lazily are defined."""

from genzoo.metrics.diversity import sliced_wasserstein as sliced_wasserstein
from genzoo.metrics.diversity import vendi_score as vendi_score
from genzoo.metrics.estimate import Estimate as Estimate
from genzoo.metrics.frechet import frechet_distance as frechet_distance
from genzoo.metrics.frechet import frechet_extrapolated as frechet_extrapolated
from genzoo.metrics.intervals import bootstrap as bootstrap
from genzoo.metrics.kernels import gaussian_mmd as gaussian_mmd
from genzoo.metrics.kernels import kid as kid
from genzoo.metrics.kernels import mmd as mmd
from genzoo.metrics.likelihood_divergence import (
    feature_likelihood_divergence as feature_likelihood_divergence,
)
from genzoo.metrics.memorisation import authenticity as authenticity
from genzoo.metrics.memorisation import data_copying as data_copying
from genzoo.metrics.metric_registry import METRICS as METRICS
from genzoo.metrics.metric_registry import coverage as coverage
from genzoo.metrics.metric_registry import density as density
from genzoo.metrics.metric_registry import fidelity as fidelity
from genzoo.metrics.metric_registry import precision as precision
from genzoo.metrics.metric_registry import recall as recall
from genzoo.metrics.metric_registry import register as register
from genzoo.metrics.metric_registry import variety as variety
from genzoo.metrics.neighbours import neighbour_metrics as neighbour_metrics
from genzoo.metrics.quality import FeatureSets as FeatureSets
