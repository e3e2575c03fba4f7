"""For type checkers: where the names that `__init__.py` loads lazily are defined."""

from genzoo.models.diffusion.samplers.base_sampler import Sampler as Sampler
from genzoo.models.diffusion.samplers.editing import impute as impute
from genzoo.models.diffusion.samplers.editing import invert as invert
from genzoo.models.diffusion.samplers.guidance import guided as guided
from genzoo.models.diffusion.samplers.sampling import Sampling as Sampling
from genzoo.models.diffusion.samplers.solvers import DDIM as DDIM
from genzoo.models.diffusion.samplers.solvers import AdamsMoulton as AdamsMoulton
from genzoo.models.diffusion.samplers.solvers import Ancestral as Ancestral
from genzoo.models.diffusion.samplers.solvers import Dopri5 as Dopri5
from genzoo.models.diffusion.samplers.solvers import DPMSolverPP2M as DPMSolverPP2M
from genzoo.models.diffusion.samplers.solvers import Euler as Euler
from genzoo.models.diffusion.samplers.solvers import Heun as Heun
from genzoo.models.diffusion.samplers.time_grids import KarrasGrid as KarrasGrid
from genzoo.models.diffusion.samplers.time_grids import LogisticGrid as LogisticGrid
from genzoo.models.diffusion.samplers.time_grids import LogSNRGrid as LogSNRGrid
from genzoo.models.diffusion.samplers.time_grids import TimeGrid as TimeGrid
from genzoo.models.diffusion.samplers.time_grids import UniformGrid as UniformGrid
