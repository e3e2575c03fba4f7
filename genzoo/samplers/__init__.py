"""Samplers of every Gaussian path: solvers, time grids, guidance, inversion and imputation."""

from genzoo.samplers.base import Sampler
from genzoo.samplers.editing import impute, invert
from genzoo.samplers.grids import KarrasTimes, LogSNRTimes, TimeGrid, UniformTimes
from genzoo.samplers.guidance import guided
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
    "KarrasTimes",
    "LogSNRTimes",
    "Sampler",
    "TimeGrid",
    "UniformTimes",
    "guided",
    "impute",
    "invert",
]
