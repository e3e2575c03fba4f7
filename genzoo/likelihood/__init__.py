"""Estimators of log-likelihood that several families share, each in a file of its own.

`annealing`: evidence of latent-variable models. `ode`: the probability-flow ODE of diffusion and flow models, with
`divergence` and `dequantisation` as its parts. `diffusion_bound`: the variational bound of diffusion models.
`protocol`: how a denoising model is asked for either. `decoder`: generators plus observation noise.
"""

from genzoo.likelihood.annealing import (
    HMC,
    AnnealingPath,
    BidirectionalBounds,
    Evidence,
    LogDensity,
    Sampler,
    Trajectory,
    annealed_importance_sampling,
    bidirectional_monte_carlo,
    hmc_transition,
    leapfrog,
    sigmoid_temperatures,
)
from genzoo.likelihood.decoder import Annealing, Decoder, choose_scale, decoder_likelihood
from genzoo.likelihood.dequantisation import (
    Dequantisation,
    TruncatedNormalDequantisation,
    UniformDequantisation,
    bin_centres,
    quantise,
)
from genzoo.likelihood.diffusion_bound import (
    BoundProtocol,
    DiffusionBound,
    decoder_table,
    diffusion_bound,
    level_log_probs,
)
from genzoo.likelihood.divergence import Divergence, ExactDivergence, ExactIfSmall, Hutchinson
from genzoo.likelihood.ode import (
    DormandPrince,
    OdeDensity,
    OdeLikelihood,
    OdeProtocol,
    RungeKutta4,
    Solver,
    ode_bound,
    ode_log_density,
)
from genzoo.likelihood.protocol import Protocol, measured, summed_over_classes
from genzoo.likelihood.scale import Scale

__all__ = [
    "HMC",
    "Annealing",
    "AnnealingPath",
    "BidirectionalBounds",
    "BoundProtocol",
    "Decoder",
    "Dequantisation",
    "DiffusionBound",
    "Divergence",
    "DormandPrince",
    "Evidence",
    "ExactDivergence",
    "ExactIfSmall",
    "Hutchinson",
    "LogDensity",
    "OdeDensity",
    "OdeLikelihood",
    "OdeProtocol",
    "Protocol",
    "RungeKutta4",
    "Sampler",
    "Scale",
    "Solver",
    "Trajectory",
    "TruncatedNormalDequantisation",
    "UniformDequantisation",
    "annealed_importance_sampling",
    "bidirectional_monte_carlo",
    "bin_centres",
    "choose_scale",
    "decoder_likelihood",
    "decoder_table",
    "diffusion_bound",
    "hmc_transition",
    "leapfrog",
    "level_log_probs",
    "measured",
    "ode_bound",
    "ode_log_density",
    "quantise",
    "sigmoid_temperatures",
    "summed_over_classes",
]
