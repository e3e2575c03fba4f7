"""Samplers of every Gaussian path: solvers, time grids, guidance, inversion and imputation."""

from genzoo.samplers.base import Sampler
from genzoo.samplers.editing import impute, invert
from genzoo.samplers.grids import KarrasGrid, LogisticGrid, LogSNRGrid, TimeGrid, UniformGrid
from genzoo.samplers.guidance import guided
from genzoo.samplers.sampling import Sampling
from genzoo.samplers.solvers import (
    DDIM,
    AdamsMoulton,
    Ancestral,
    Dopri5,
    DPMSolverPP2M,
    Euler,
    Heun,
)

__all__ = [
    "DDIM",
    "AdamsMoulton",
    "Ancestral",
    "DPMSolverPP2M",
    "Dopri5",
    "Euler",
    "Heun",
    "KarrasGrid",
    "LogSNRGrid",
    "LogisticGrid",
    "Sampler",
    "Sampling",
    "TimeGrid",
    "UniformGrid",
    "guided",
    "impute",
    "invert",
]
