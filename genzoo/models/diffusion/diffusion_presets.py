"""Presets of diffusion and flow matching: rows of the table in `genzoo.models.diffusion.denoising_model`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from genzoo.models.names import PresetRow

if TYPE_CHECKING:
    from genzoo.models.diffusion.denoising_model import DiffusionConfig
    from genzoo.models.diffusion.shortcut import ShortcutConfig
    from genzoo.models.preset import Preset
    from genzoo.objectives.likelihood.ode import OdeProtocol


def _on_networks(
    recipe: "DiffusionConfig | ShortcutConfig", adjustments: Mapping[str, Mapping[str, Any]] | None = None
) -> "Preset":
    """The recipe on networks of four sizes; vectors get a perceptron, real-valued data the ODE."""
    from genzoo.core.config import TrainConfig
    from genzoo.models.diffusion.denoising_model import DiffusionConfig
    from genzoo.models.preset import REAL, VECTORS, Preset
    from genzoo.nn.conv_unet import UNETS
    from genzoo.nn.mlp import MLPConfig
    from genzoo.objectives.likelihood.divergence import ExactIfSmall
    from genzoo.objectives.likelihood.ode import DormandPrince, OdeProtocol

    rates = {"tiny": 3e-3, "small": 3e-3, "base": 1e-3, "large": 5e-4}
    training = TrainConfig(batch_size=64, optimizer="muon")
    sizes = {
        size: replace(recipe, network=network, training=replace(training, learning_rate=rates[size]))
        for size, network in UNETS.items()
    }
    ode = OdeProtocol(solver=DormandPrince(1e-4), divergence=ExactIfSmall(), draws=2)
    without_levels: dict[str, Any] = {"protocol": ode}
    if isinstance(recipe, DiffusionConfig):
        without_levels |= {"levels_head": False}
    return Preset(sizes, {VECTORS: {"network": MLPConfig()}, REAL: without_levels, **(adjustments or {})})


def _ddpm() -> "Preset":
    from genzoo.models.diffusion.denoising_model import DiffusionConfig
    from genzoo.objectives.denoising.betas import CosineBetas
    from genzoo.objectives.denoising.noise_conditioning import TimeConditioning
    from genzoo.objectives.denoising.paths import DiscreteBetas, VTarget
    from genzoo.objectives.likelihood.diffusion_bound import BoundProtocol

    return _on_networks(
        DiffusionConfig(
            path=DiscreteBetas(CosineBetas()),
            target=VTarget(),
            c_noise=TimeConditioning(1000.0, -1.0),
            protocol=BoundProtocol(t_min=1e-3),
        )
    )


def _ddpm_likelihood() -> "Preset":
    from genzoo.models.diffusion.denoising_model import DiffusionConfig
    from genzoo.objectives.denoising.noise_conditioning import LogSNRConditioning
    from genzoo.objectives.denoising.paths import VPCosine
    from genzoo.objectives.denoising.times import UniformLogSNR
    from genzoo.objectives.denoising.weighting import ELBOWeighting
    from genzoo.objectives.likelihood.diffusion_bound import BoundProtocol

    return _on_networks(
        DiffusionConfig(
            path=VPCosine(),
            levels_head=True,
            weighting=ELBOWeighting(),
            times=UniformLogSNR(),
            t_min=2e-5,
            c_noise=LogSNRConditioning(),
            protocol=BoundProtocol(t_min=2e-5),
        )
    )


def _edm() -> "Preset":
    from genzoo.models.diffusion.denoising_model import DiffusionConfig
    from genzoo.models.diffusion.samplers.sampling import Sampling
    from genzoo.models.diffusion.samplers.solvers import Heun
    from genzoo.models.diffusion.samplers.time_grids import KarrasGrid
    from genzoo.objectives.denoising.noise_conditioning import LogSNRConditioning
    from genzoo.objectives.denoising.paths import VE, EDMTarget
    from genzoo.objectives.denoising.times import LogNormalSigma
    from genzoo.objectives.likelihood.diffusion_bound import BoundProtocol

    return _on_networks(
        DiffusionConfig(
            path=VE(),
            target=EDMTarget(),
            times=LogNormalSigma(),
            c_noise=LogSNRConditioning(),
            scale_input=True,
            sampling=Sampling(Heun(), KarrasGrid(), steps=18),
            protocol=BoundProtocol(t_min=0.0),
        )
    )


def _ode() -> "OdeProtocol":
    from genzoo.objectives.likelihood.divergence import ExactIfSmall
    from genzoo.objectives.likelihood.ode import OdeProtocol, RungeKutta4

    return OdeProtocol(t_min=0.0, solver=RungeKutta4(10), divergence=ExactIfSmall(), draws=2)


def _flow_recipe() -> "DiffusionConfig":
    from genzoo.models.diffusion.denoising_model import DiffusionConfig
    from genzoo.objectives.denoising.paths import Linear, VelocityTarget
    from genzoo.objectives.denoising.times import LogitNormal

    return DiffusionConfig(path=Linear(), target=VelocityTarget(), times=LogitNormal(), protocol=_ode())


def _flow() -> "Preset":
    return _on_networks(_flow_recipe())


def _flow_likelihood() -> "Preset":
    from genzoo.objectives.denoising.times import StratifiedTimes

    return _on_networks(replace(_flow_recipe(), times=StratifiedTimes(), dequantised=True))


def _ot_flow() -> "Preset":
    from genzoo.models.preset import CLASSES, COND_VECTORS
    from genzoo.objectives.denoising.couplings import (
        ClassAwareOptimalTransport,
        Independent,
        OptimalTransport,
    )

    return _on_networks(
        replace(_flow_recipe(), coupling=OptimalTransport()),
        # pairs over a whole batch would tell the noise about its condition
        {CLASSES: {"coupling": ClassAwareOptimalTransport()}, COND_VECTORS: {"coupling": Independent()}},
    )


def _shortcut() -> "Preset":
    from genzoo.models.diffusion.shortcut import ShortcutConfig

    return _on_networks(ShortcutConfig(protocol=_ode()))


PRESETS = (
    PresetRow(
        "ddpm",
        "DDPM with the cosine schedule and v-prediction, for samples; likelihood by the variational bound",
        "[Ho et al. 2020](https://arxiv.org/abs/2006.11239)",
        _ddpm,
    ),
    PresetRow(
        "ddpm-likelihood",
        "Variational diffusion that predicts levels, for likelihood; variational bound",
        "[Kingma et al. 2021](https://arxiv.org/abs/2107.00630)",
        _ddpm_likelihood,
    ),
    PresetRow(
        "edm",
        "EDM: preconditioned denoising on the variance-exploding path; likelihood by the variational bound",
        "[Karras et al. 2022](https://arxiv.org/abs/2206.00364)",
        _edm,
    ),
    PresetRow(
        "flow",
        "Flow matching on straight paths, for samples; likelihood by the ODE",
        "[Lipman et al. 2023](https://arxiv.org/abs/2210.02747)",
        _flow,
    ),
    PresetRow(
        "flow-likelihood",
        "Flow matching on dequantised images, for likelihood; likelihood by the ODE",
        "[Lipman et al. 2023](https://arxiv.org/abs/2210.02747)",
        _flow_likelihood,
    ),
    PresetRow(
        "ot-flow",
        "Flow matching with optimal-transport pairs of noise and images; likelihood by the ODE",
        "[Tong et al. 2024](https://arxiv.org/abs/2302.00482)",
        _ot_flow,
    ),
    PresetRow(
        "shortcut",
        "Shortcut model: a flow that knows how far it steps, draws in one to four network calls; ODE",
        "[Frans et al. 2025](https://arxiv.org/abs/2410.12557)",
        _shortcut,
    ),
)
