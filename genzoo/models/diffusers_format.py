"""diffusers' folders: a diffusion model of genzoo as a pipeline. `diffusers_reader` opens them.

    genzoo                            diffusers
    DiscreteBetas, T states           DDPMScheduler with the same betas             timestep i is t = (i + 1) / T
    VPCosine, VPLinear                DDPMScheduler with trained_betas, T = 1000    timestep i is t = (i + 1) / T
    Linear                            FlowMatchEulerDiscreteScheduler               timestep 1000 t, output eps - x
    noise, data, v; velocity          epsilon, sample, v_prediction; (flow)

diffusers scales a pixel k of 256 to 2 k / 255 - 1 where genzoo takes the centre of its bin, (2 k + 1) / 256 - 1. They
are half a grey level apart at most, and rounding leads back to the same k; likelihoods are bounds all the same.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DModel, UNet2DOutput
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.files import write_folder
from genzoo.core.path_arguments import path_of
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.models.diffusion.denoising_model import Diffusion
from genzoo.models.loading import build_model
from genzoo.nn.unet import UNetDenoiser
from genzoo.objectives.denoising.betas import CosineBetas, LinearBetas
from genzoo.objectives.denoising.noise_conditioning import TimeConditioning
from genzoo.objectives.denoising.paths import (
    DataTarget,
    DiscreteBetas,
    GaussianPath,
    Linear,
    NoiseTarget,
    Target,
    VelocityTarget,
    VPCosine,
    VPLinear,
    VTarget,
    to_prediction,
)
from genzoo.training.checkpoint import describe

STEPS = 1000
"""Timesteps of what has none of its own: continuous paths and flows."""
TARGETS: dict[str, Target] = {"epsilon": NoiseTarget(), "sample": DataTarget(), "v_prediction": VTarget()}
"""Their prediction types."""


@dataclass(frozen=True)
class _Convention:
    """What a scheduler of diffusers tells its network and wants from it."""

    c_noise: TimeConditioning
    """Times to timesteps."""
    target: Target
    """What the network's output means."""

    @classmethod
    def of(cls, path: GaussianPath, target: Target) -> "_Convention":
        """That of the scheduler for `path`, nearest to `target`; raises `GenzooError` where there is none."""
        if isinstance(path, Linear):
            return cls(TimeConditioning(STEPS, 0.0), VelocityTarget())
        if not isinstance(path, (DiscreteBetas, VPCosine, VPLinear)):
            raise GenzooError(
                f"a model on the path {type(path).__name__} cannot be exported to diffusers: only those on "
                "DiscreteBetas, VPCosine, VPLinear and Linear have a scheduler there"
            )
        steps = path.steps if isinstance(path, DiscreteBetas) else STEPS
        return cls(TimeConditioning(float(steps), -1.0), target if target in TARGETS.values() else VTarget())

    def time_of(self, timestep: Tensor) -> Tensor:
        """Times float64 of timesteps."""
        return (timestep.double() - self.c_noise.offset) / self.c_noise.scale

    def scheduler(self, path: GaussianPath) -> DDPMScheduler | FlowMatchEulerDiscreteScheduler:
        """Few steps of it start from noise ("trailing"), and nothing is clipped: genzoo's samplers do neither."""
        if isinstance(path, Linear):
            return FlowMatchEulerDiscreteScheduler(num_train_timesteps=STEPS)
        kinds = {target: kind for kind, target in TARGETS.items()}
        fields: dict[str, Any] = {
            "num_train_timesteps": int(self.c_noise.scale),
            "prediction_type": kinds[self.target],
            "clip_sample": False,
            "timestep_spacing": "trailing",
        }
        return DDPMScheduler(**fields, **_beta_fields(path, int(self.c_noise.scale)))


def _beta_fields(path: GaussianPath, steps: int) -> dict[str, Any]:
    """A scheduler's fields for the variances between the states t = 1 / steps, 2 / steps ... 1 of `path`."""
    betas = path.betas if isinstance(path, DiscreteBetas) else None
    if isinstance(betas, LinearBetas):
        return {"beta_schedule": "linear", "beta_start": betas.start, "beta_end": betas.end}
    if betas == CosineBetas(steps):
        return {"beta_schedule": "squaredcos_cap_v2"}
    if betas is not None:
        return {"trained_betas": betas.values().tolist()}
    log_alpha = path.at(torch.arange(steps + 1, dtype=torch.float64) / steps).alpha.log()
    return {"trained_betas": (-torch.expm1(2 * log_alpha.diff())).tolist()}


class DiffusersDenoiser(ModelMixin, ConfigMixin):
    """A model of genzoo as the network of a pipeline, for all that a plain `UNet2DModel` cannot hold.

    `sample_size` and `in_channels` are what `DDPMPipeline` asks for; `genzoo` is what
    `genzoo.training.checkpoint.describe` tells of the model, which is rebuilt from it.
    """

    @register_to_config
    def __init__(self, sample_size: tuple[int, int], in_channels: int, genzoo: dict[str, Any]) -> None:
        """Raises `GenzooError` where `genzoo` describes no diffusion model of this zoo."""
        super().__init__()
        model = build_model(genzoo, Path("of a DiffusersDenoiser"))
        if not isinstance(model, Diffusion):
            raise GenzooError(f"a DiffusersDenoiser holds a diffusion model, not a {type(model).__name__}")
        self.model = model
        self._convention = _Convention.of(model.path, model.target)

    @classmethod
    def of(cls, model: Diffusion) -> "DiffusersDenoiser":
        """A copy of `model`."""
        channels, height, width = model.spec.shape
        wrapped = cls(sample_size=(height, width), in_channels=channels, genzoo=describe(model))
        wrapped.model.load_state_dict(model.state_dict())
        return wrapped

    def forward(
        self, sample: Tensor, timestep: Tensor | float, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """What the scheduler expects of `sample` `[b, c, h, w]` at its `timestep`, a number or `[b]`."""
        t = self._convention.time_of(torch.as_tensor(timestep, device=sample.device))
        t = t.flatten().expand(len(sample))
        y, at = self.model.predict(sample, t, None), self.model.path.at(t)
        if self._convention.target != self.model.target:
            y = self._convention.target.of(*to_prediction(sample, y, at, self.model.target), at)
        y = y.to(sample.dtype)
        return UNet2DOutput(sample=y) if return_dict else (y,)


@in_plain_surroundings
def to_diffusers(model: Diffusion, path: str | Path) -> None:
    """Writes the folder `path`, which `diffusers.DDPMPipeline.from_pretrained` opens and samples from.

    A `UNetConfig` network without patches or padding, which predicts what the scheduler expects (noise, data or v, the
    velocity on `Linear`) on a `TimeConditioning` of the scheduler's scale, becomes a plain `UNet2DModel`: nothing of
    genzoo is needed to load it. Any other model becomes a `DiffusersDenoiser`. diffusers imports no module because a
    folder names one, so that these want `import genzoo.models.diffusers_format` before `from_pretrained`.

    Linear paths get a flow scheduler; `DDPMPipeline` runs it too, and says that it expected another. Images come out
    of the pipeline in 0 .. 1, a pixel k as (k + 1/2) / levels. Raises `GenzooError` for conditional models, data that
    are no images, other paths and folders that hold anything else or cannot be written.
    """
    path = path_of(path, "path")
    if not isinstance(model, Diffusion):
        raise GenzooError(
            f"only diffusion and flow models are exported to diffusers, not a {type(model).__name__}"
        )
    _check_exportable(model, path)
    convention = _Convention.of(model.path, model.target)
    unet = _plain_unet(model, convention) or DiffusersDenoiser.of(model)
    pipeline = DDPMPipeline(unet=unet, scheduler=convention.scheduler(model.path))  # pyright: ignore[reportArgumentType]
    write_folder(path, pipeline.save_pretrained, "model_index.json")


def _check_exportable(model: Diffusion, path: Path) -> None:
    if model.spec.cond is not None:
        raise GenzooError(
            "diffusers' unconditional pipelines have no place for a condition: only models without one are exported"
        )
    if len(model.spec.shape) != 3:
        raise GenzooError(f"diffusers' pipelines make images, these data have shape {model.spec.shape}")
    if path.exists() and not path.is_dir():
        raise GenzooError(f"{path} is a file; choose another folder")


def _plain_unet(model: Diffusion, convention: _Convention) -> UNet2DModel | None:
    """The U-Net itself, where the scheduler asks it just what genzoo would; None where it takes more than that."""
    network, config = model.network, model.config
    if not isinstance(network, UNetDenoiser) or network.patch > 1:
        return None
    padded = any(side % network.multiple for side in model.spec.shape[1:])
    if padded or config.levels_head or config.scale_input or model.target != convention.target:
        return None
    if not isinstance(config.c_noise, TimeConditioning) or config.c_noise.scale != convention.c_noise.scale:
        return None
    unet = copy.deepcopy(network.unet)
    _turn_embedding(unet, config.c_noise.offset - convention.c_noise.offset)
    return unet


def _turn_embedding(unet: UNet2DModel, late: float) -> None:
    """Makes `unet` see at timestep i what it saw at i + `late`.

    Its time comes in as sines and cosines, and sin(f (i + late)) is a rotation of sin(f i) and cos(f i), which goes
    into the linear layer behind them. The frequencies f, at most 1, are read off at timestep 1.
    """
    cos_first, weight = unet.config["flip_sin_to_cos"], unet.time_embedding.linear_1.weight
    waves = unet.time_proj(torch.ones(1))[0].double().to(weight.device)
    half = len(waves) // 2
    with torch.no_grad():
        one, other = waves[:half], waves[half : 2 * half]
        angle = late * (torch.atan2(other, one) if cos_first else torch.atan2(one, other))
        parts = weight.double()[:, :half], weight.double()[:, half : 2 * half]
        cos, sin = parts if cos_first else parts[::-1]
        turned = cos * angle.cos() + sin * angle.sin(), sin * angle.cos() - cos * angle.sin()
        weight[:, : 2 * half] = torch.cat(turned if cos_first else turned[::-1], 1).to(weight)
