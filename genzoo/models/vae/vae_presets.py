"""Presets of VAEs."""

from dataclasses import replace
from typing import TYPE_CHECKING

from genzoo.models.names import PresetRow

if TYPE_CHECKING:
    from genzoo.core.config import TrainConfig
    from genzoo.models.preset import Preset


def _training() -> "TrainConfig":
    from genzoo.core.config import TrainConfig

    return TrainConfig(batch_size=128, learning_rate=4e-3, clip_norm=20.0)


def _vae() -> "Preset":
    from genzoo.models.preset import Preset
    from genzoo.models.vae.vector_vae import VAEConfig

    muon = replace(_training(), optimizer="muon")
    sizes = {
        "tiny": VAEConfig(
            latent_dim=16,
            channels=(24, 48),
            blocks=1,
            prior_components=32,
            importance_samples=5,
            training=muon,
        ),
        "small": VAEConfig(importance_samples=5, training=muon),
        "base": VAEConfig(
            latent_dim=64,
            channels=(64, 192),
            blocks=3,
            prior_components=256,
            importance_samples=5,
            training=replace(muon, learning_rate=2e-3),
        ),
        "large": VAEConfig(
            latent_dim=128,
            channels=(128, 256, 512),
            blocks=4,
            prior_components=512,
            importance_samples=5,
            training=replace(muon, learning_rate=1e-3),
        ),
    }
    return Preset(sizes)


def _hvae() -> "Preset":
    from genzoo.models.preset import Preset
    from genzoo.models.vae.hierarchical_vae import HVAEConfig

    training = _training()
    sizes = {
        "tiny": HVAEConfig(
            top=16,
            prior_components=32,
            channels=(16, 24, 32),
            latent_channels=(1, 2, 4),
            groups=(1, 1, 2),
            head=16,
            training=training,
        ),
        "small": HVAEConfig(training=training),
        "base": HVAEConfig(
            top=64,
            prior_components=256,
            channels=(64, 128, 192),
            latent_channels=(4, 8, 16),
            groups=(2, 3, 4),
            blocks=2,
            head=32,
            training=replace(training, learning_rate=1e-3),
        ),
        "large": HVAEConfig(
            top=128,
            prior_components=512,
            channels=(128, 256, 384, 512),
            latent_channels=(4, 8, 16, 16),
            groups=(4, 6, 6, 4),
            blocks=3,
            head=64,
            training=replace(training, learning_rate=5e-4),
        ),
    }
    return Preset(sizes)


PRESETS = (
    PresetRow(
        "vae",
        "Convolutional VAE with one latent vector, likelihood by importance sampling",
        "[Kingma & Welling 2014](https://arxiv.org/abs/1312.6114)",
        _vae,
    ),
    PresetRow(
        "hvae",
        "Hierarchical VAE: groups of latents from coarse to fine, likelihood by importance sampling",
        "[Child 2021](https://arxiv.org/abs/2011.10650)",
        _hvae,
    ),
)
