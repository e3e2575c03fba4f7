"""Samplers of every Gaussian path: solvers, time grids, guidance, inversion and imputation."""

from genzoo.core.lazy import lazy_names

_HOMES = {
    "DDIM": "genzoo.models.diffusion.samplers.solvers",
    "AdamsMoulton": "genzoo.models.diffusion.samplers.solvers",
    "Ancestral": "genzoo.models.diffusion.samplers.solvers",
    "DPMSolverPP2M": "genzoo.models.diffusion.samplers.solvers",
    "Dopri5": "genzoo.models.diffusion.samplers.solvers",
    "Euler": "genzoo.models.diffusion.samplers.solvers",
    "Heun": "genzoo.models.diffusion.samplers.solvers",
    "KarrasGrid": "genzoo.models.diffusion.samplers.time_grids",
    "LogSNRGrid": "genzoo.models.diffusion.samplers.time_grids",
    "LogisticGrid": "genzoo.models.diffusion.samplers.time_grids",
    "Sampler": "genzoo.models.diffusion.samplers.base_sampler",
    "Sampling": "genzoo.models.diffusion.samplers.sampling",
    "TimeGrid": "genzoo.models.diffusion.samplers.time_grids",
    "UniformGrid": "genzoo.models.diffusion.samplers.time_grids",
    "guided": "genzoo.models.diffusion.samplers.guidance",
    "impute": "genzoo.models.diffusion.samplers.editing",
    "invert": "genzoo.models.diffusion.samplers.editing",
}
"""Public name to the module that defines it."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
