"""Pipelines in diffusers' folders as models with a likelihood; what becomes of each part stands in `diffusers_format`.

Weights are safetensors and configurations are JSON built from known types: opening a folder executes nothing in it.
"""

import os
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from safetensors import SafetensorError

from genzoo.core.bounded_build import BUILD_ERRORS, on_meta
from genzoo.core.checked_json import read_json
from genzoo.core.errors import GenzooError
from genzoo.core.path_arguments import path_of
from genzoo.core.regular_files import open_regular
from genzoo.core.spec import DataSpec
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.models.diffusers_format import STEPS, TARGETS, DiffusersDenoiser
from genzoo.models.diffusion.denoising_model import Diffusion, DiffusionConfig
from genzoo.nn.saved_unet import SavedUNetConfig
from genzoo.nn.unet import UNetDenoiser
from genzoo.objectives.denoising.betas import Betas, CosineBetas, GivenBetas, LinearBetas
from genzoo.objectives.denoising.noise_conditioning import TimeConditioning
from genzoo.objectives.denoising.paths import DiscreteBetas, Linear, VelocityTarget
from genzoo.objectives.likelihood.diffusion_bound import BoundProtocol

DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": STEPS,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}
"""What the schedulers below take for granted where a configuration does not say."""
DDPM_SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
)
"""Solvers of the same networks: they share the fields that name the betas and the prediction."""
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"


@in_plain_surroundings
def from_diffusers(path: str | Path) -> Diffusion:
    """The model of a folder that `DDPMPipeline.save_pretrained` or `UNet2DModel.save_pretrained` wrote.

    A pipeline's `unet/` is an unconditional `UNet2DModel` for images of 256 levels, or what `to_diffusers` made of a
    model, which comes back as it was. Its `scheduler/` is one of DDPM's family (of whose fields the betas and the
    prediction type count) or the Euler scheduler of flow matching. For a bare `UNet2DModel` folder DDPM's are assumed:
    1000 linear betas from 1e-4 to 0.02, noise predicted. The answer samples by genzoo's solvers, without the
    scheduler's clipping, and bounds likelihoods in the pipeline's own steps (`protocol`: DDPM's T states, or
    continuous time from 1 / T for a flow), 16 of them drawn per image.

    Raises `GenzooError` where something is missing, damaged, only pickled, or of another kind; conditional U-Nets and
    those that predict a variance too are of another kind.
    """
    root = path_of(path, "path")
    if not root.is_dir():
        raise GenzooError(f"no folder at {root}: give one that a diffusers pipeline was saved to")
    nested = (root / "unet").is_dir()
    folder = root / "unet" if nested else root
    settings = _read_json(folder / "config.json")
    kind = settings.get("_class_name")
    if kind == DiffusersDenoiser.__name__:
        return _opened(DiffusersDenoiser, folder, settings).model.eval()
    if kind != UNet2DModel.__name__:
        raise GenzooError(
            f"{folder} holds a {kind or 'network of no name'}: only a UNet2DModel can be opened"
        )
    scheduler = {"_class_name": "DDPMScheduler"}
    if nested:
        scheduler = _read_json(root / "scheduler" / "scheduler_config.json")
    try:
        spec, recipe = _spec_of(settings, folder), _recipe_of(scheduler)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise GenzooError(
            f"{root} has settings of a wrong kind: {textwrap.shorten(str(error), 200)}"
        ) from error
    return _model_of(recipe, spec, _opened(UNet2DModel, folder, settings))


def _model_of(recipe: DiffusionConfig, spec: DataSpec, unet: UNet2DModel) -> Diffusion:
    with torch.random.fork_rng():
        model = replace(recipe, network=SavedUNetConfig.of(unet)).build(spec)
    assert isinstance(model.network, UNetDenoiser)
    model.network.unet.load_state_dict(unet.state_dict())
    return model.eval()


def _read_json(file: Path) -> dict[str, Any]:
    if not os.path.lexists(file):
        raise GenzooError(f"{file} is missing: give a folder that a diffusers pipeline was saved to")
    content = read_json(file, any_float=True)  # bounds of schedulers may be infinite
    if not isinstance(content, dict):
        raise GenzooError(f"{file} is no configuration of diffusers")
    return content


def _spec_of(settings: dict[str, Any], folder: Path) -> DataSpec:
    if settings.get("class_embed_type") is not None or settings.get("num_class_embeds") is not None:
        raise GenzooError(f"{folder} is class-conditional: only unconditional U-Nets can be opened")
    size = settings.get("sample_size")
    sides = [size, size] if isinstance(size, int) else size
    if not sides:
        raise GenzooError(f"{folder} does not say the size of its images: set sample_size in config.json")
    channels, out = settings.get("in_channels", 3), settings.get("out_channels", 3)
    if out == 2 * channels:
        raise GenzooError(f"{folder} predicts a variance too: only U-Nets with a fixed one can be opened")
    return DataSpec((channels, *sides), levels=256)


def _opened(kind: Any, folder: Path, settings: dict[str, Any]) -> Any:
    """The network of `folder`, which is of the class `kind`, all of whose weights must be there."""
    _check_size(kind, folder, settings)
    try:
        with torch.random.fork_rng():
            network, info = kind.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False,
                output_loading_info=True,
            )  # fmt: skip
    except (SafetensorError, OSError, *BUILD_ERRORS) as error:
        reason = textwrap.shorten(str(error), 300)
        raise GenzooError(
            f"{folder} cannot be opened, its weights must be safetensors and fit config.json: {reason}"
        ) from error
    wrong = [*info["missing_keys"], *info["unexpected_keys"]]
    if wrong:
        raise GenzooError(f"{folder} cannot be opened: config.json and weights disagree about {wrong[0]}")
    return network


def _check_size(kind: Any, folder: Path, settings: dict[str, Any]) -> None:
    """Raises `GenzooError` where the network would be larger than its files, or they are no regular ones."""
    size = 0
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".safetensors"):
            with open_regular(file):
                size += file.stat().st_size
    network = on_meta(lambda: kind.from_config(settings))
    if network is not None and sum(p.numel() for p in network.parameters()) > size:
        raise GenzooError(
            f"{folder} cannot be opened: its weights must be safetensors, and as many as config.json says"
        )


def _recipe_of(scheduler: dict[str, Any]) -> DiffusionConfig:
    """Path, target, noise conditioning and protocol that go with a scheduler's configuration."""
    name, fields = scheduler.get("_class_name"), {**DEFAULTS, **scheduler}
    if name == FLOW_SCHEDULER and not fields.get("invert_sigmas"):
        steps = float(fields["num_train_timesteps"])
        return DiffusionConfig(
            path=Linear(),
            target=VelocityTarget(),
            c_noise=TimeConditioning(steps, 0.0),
            protocol=BoundProtocol(t_min=1 / steps),
        )
    if name not in DDPM_SCHEDULERS:
        raise GenzooError(
            f"the scheduler {name} is not supported: use one of {', '.join(DDPM_SCHEDULERS)} or {FLOW_SCHEDULER} "
            "(without invert_sigmas)"
        )
    kind = fields["prediction_type"]
    if kind not in TARGETS:
        raise GenzooError(f"the prediction type {kind!r} is not supported: use one of {', '.join(TARGETS)}")
    path = DiscreteBetas(_betas_of(fields))
    return DiffusionConfig(
        path=path,
        target=TARGETS[kind],
        c_noise=TimeConditioning(float(path.steps), -1.0),
        protocol=BoundProtocol(t_min=1 / path.steps, steps=path.steps - 1, times=16),
    )


def _betas_of(fields: dict[str, Any]) -> Betas:
    steps, start, end = (fields[k] for k in ("num_train_timesteps", "beta_start", "beta_end"))
    if fields.get("rescale_betas_zero_snr"):
        raise GenzooError(
            "a scheduler with rescale_betas_zero_snr leaves no data at its last step: not supported"
        )
    if fields.get("trained_betas") is not None:
        return GivenBetas(tuple(float(beta) for beta in fields["trained_betas"]))
    if fields["beta_schedule"] == "linear":
        return LinearBetas(steps, start, end)
    if fields["beta_schedule"] == "squaredcos_cap_v2":
        return CosineBetas(steps)
    if fields["beta_schedule"] == "scaled_linear":
        roots = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64)
        return GivenBetas(tuple((roots**2).tolist()))
    raise GenzooError(
        f"the beta schedule {fields['beta_schedule']!r} is not supported: use linear, scaled_linear, "
        "squaredcos_cap_v2 or trained_betas"
    )
