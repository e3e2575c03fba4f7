"""How a model draws: a solver, its grid and its guidance, as one part of a configuration."""

from dataclasses import dataclass, field
from typing import Literal

from genzoo.core.bounds import Many
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.models.diffusion.samplers.base_sampler import Sampler
from genzoo.models.diffusion.samplers.solvers import AdamsMoulton
from genzoo.models.diffusion.samplers.time_grids import LogisticGrid, TimeGrid
from genzoo.objectives.denoising.paths import GaussianPath


@dataclass(frozen=True)
class Sampling(Configurable):
    """How noise is led back to data."""

    sampler: Sampler = field(default_factory=AdamsMoulton)
    """The solver."""
    grid: TimeGrid = field(default_factory=LogisticGrid)
    """Where it stops on its way."""
    steps: Many = 30
    """Steps of the grid."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 turns guidance off."""
    guidance_from: float = 0.0
    """Guidance holds from this time ..."""
    guidance_to: float = 1.0
    """... to this one."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 autocast of the network; "auto" uses it where the processor has AMX or the GPU supports it."""

    def __post_init__(self) -> None:
        if self.guidance_from > self.guidance_to:
            raise GenzooError(
                f"guidance cannot hold from {self.guidance_from} to {self.guidance_to}: times rise with noise"
            )

    @in_plain_surroundings
    def check(self, path: GaussianPath) -> None:
        """Raises `GenzooError` where the grid has no such times on this path."""
        self.grid(path, min(self.steps, 100))
