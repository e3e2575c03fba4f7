"""Small diffusers pipelines and models of ours, with weights that are nowhere zero, for tests of the format."""

import json
from dataclasses import replace

import torch
from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    UNet2DModel,
)

from genzoo.core.spec import DataSpec
from genzoo.models.diffusion.denoising_model import DiffusionConfig
from genzoo.nn.conv_unet import ConvUNetConfig
from genzoo.nn.patch_transformer import PatchTransformerConfig
from genzoo.nn.unet import UNetConfig
from genzoo.objectives.denoising.betas import CosineBetas, GivenBetas, LinearBetas
from genzoo.objectives.denoising.noise_conditioning import LogSNRConditioning, TimeConditioning
from genzoo.objectives.denoising.paths import (
    DataTarget,
    DiscreteBetas,
    EDMTarget,
    Linear,
    NoiseTarget,
    VelocityTarget,
    VPCosine,
    VPLinear,
    VTarget,
)

CONV = ConvUNetConfig(fine=4, channels=(8, 8), blocks=1)
UNET = UNetConfig(channels=(8, 16), layers=1, attention=1, norm_groups=4)
STEPS = 40
LINEAR_BETAS = DiscreteBetas(LinearBetas(STEPS, 1e-3, 0.2))
DDPM_CLOCK = TimeConditioning(STEPS, -1)
NOISE = DiffusionConfig(path=LINEAR_BETAS, target=NoiseTarget(), network=UNET, c_noise=DDPM_CLOCK)
V = DiffusionConfig(path=VPCosine(), target=VTarget(), network=UNET)
FLOW = DiffusionConfig(path=Linear(), target=VelocityTarget(), network=UNET)
PLAIN = {
    "noise": NOISE,
    "cosine-betas-x": replace(
        NOISE,
        path=DiscreteBetas(CosineBetas(STEPS)),
        target=DataTarget(),
        c_noise=TimeConditioning(STEPS, 2.5),
    ),
    "given-betas": replace(
        NOISE, path=DiscreteBetas(GivenBetas((0.1, 0.2, 0.3, 0.4))), c_noise=TimeConditioning(4, -1)
    ),
    "v": V,
    "vp-linear-v": replace(V, path=VPLinear()),
    "velocity": FLOW,
    "velocity-late-clock": replace(FLOW, c_noise=TimeConditioning(1000, -7)),
}
OWN = {
    "conv-noise": replace(NOISE, network=CONV),
    "conv-v": replace(V, network=CONV, c_noise=LogSNRConditioning()),
    "conv-velocity": replace(FLOW, network=CONV, sigma_data=0.4, scale_input=True),
    "levels-head": replace(V, network=CONV, levels_head=True),
    "unet-other-clock": replace(NOISE, c_noise=TimeConditioning(1000, 0)),
    "transformer": replace(V, network=PatchTransformerConfig(width=32, blocks=1, head_width=16)),
    "unet-patch": replace(V, network=replace(UNET, patch=2)),
    "unet-edm": replace(V, target=EDMTarget()),
    "velocity-on-vp": replace(NOISE, target=VelocityTarget()),
    "v-on-linear": replace(FLOW, target=VTarget()),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def perturbed(module, seed=1):
    """Nothing is zero any more."""
    g = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
    return module.eval()


def noise(*shape, seed=3):
    return torch.randn(*shape, generator=generator(seed))


def stock_unet(channels=3, size=8, **changes):
    settings = {
        "sample_size": size, "in_channels": channels, "out_channels": channels, "block_out_channels": (8, 16),
        "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return perturbed(UNet2DModel(**{**settings, **changes}))


def ddpm(**fields):
    return DDPMScheduler(**{"num_train_timesteps": STEPS, "beta_end": 0.2, "clip_sample": False, **fields})


def saved(folder, scheduler, unet=None):
    unet = unet or stock_unet()
    DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(folder)
    return unet


def built(config, shape=(1, 8, 8), levels=256):
    return perturbed(config.build(DataSpec(shape, levels)))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) > 20
    return text


def read(file):
    return json.loads(file.read_text())
