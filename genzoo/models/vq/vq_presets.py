"""Presets of models over discrete codes: VQ-VAE, and transformers over its codes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from genzoo.models.names import PresetRow

if TYPE_CHECKING:
    from genzoo.core.config import TrainConfig
    from genzoo.models.autoregressive.pixel_models import PixelTransformerConfig
    from genzoo.models.preset import Preset
    from genzoo.models.vq.vqvae import VQVAEConfig
    from genzoo.nn.quantisers import QuantiserConfig


def _autoencoders() -> "Mapping[str, VQVAEConfig]":
    from genzoo.models.vq.vqvae import VQVAEConfig
    from genzoo.nn.quantisers import QuantiserConfig

    return {
        "tiny": VQVAEConfig(channels=(16, 32), blocks=1, neighbours=7),
        "small": VQVAEConfig(channels=(64, 128), blocks=2),
        "base": VQVAEConfig(channels=(96, 192), blocks=4),
        "large": VQVAEConfig(channels=(192, 384), blocks=6, quantiser=QuantiserConfig(codebook_size=1024)),
    }


def _training(size: str) -> "TrainConfig":
    from genzoo.core.config import TrainConfig

    steady = TrainConfig(batch_size=64, learning_rate=1e-3)
    return replace(steady, batch_size=128, learning_rate=5e-4) if size == "large" else steady


def _few_codes() -> "QuantiserConfig":
    """For images so small that a code is a few pixels: of more, each is too rare for a prior to learn."""
    from genzoo.nn.quantisers import QuantiserConfig

    return QuantiserConfig(codebook_size=64)


@dataclass(frozen=True)
class _PriorSize:
    width: int
    blocks: int
    dropout: float = 0.1

    def config(self) -> "PixelTransformerConfig":
        """Over codes, which are names and not amounts."""
        from genzoo.models.autoregressive.pixel_models import HeadConfig, PixelTransformerConfig

        head = HeadConfig(code_width=32, output="categorical")
        return PixelTransformerConfig(
            group=1, width=self.width, blocks=self.blocks, dropout=self.dropout, head=head
        )


_PRIORS = {
    "tiny": _PriorSize(64, 2, dropout=0.0),
    "small": _PriorSize(128, 4),
    "base": _PriorSize(256, 8),
    "large": _PriorSize(512, 12),
}


def _vqvae() -> "Preset":
    from genzoo.models.preset import LOW_RESOLUTION, Preset

    sizes = {
        size: replace(autoencoder, training=_training(size)) for size, autoencoder in _autoencoders().items()
    }
    return Preset(sizes, {LOW_RESOLUTION: {"quantiser": _few_codes()}})


def _vq_transformer() -> "Preset":
    from genzoo.models.preset import LOW_RESOLUTION, Preset
    from genzoo.models.vq.latent_model import LatentConfig

    sizes = {
        size: LatentConfig(autoencoder, _PRIORS[size].config(), training=_training(size))
        for size, autoencoder in _autoencoders().items()
    }
    changes = {"autoencoder.quantiser": _few_codes(), "training.learning_rate": 4e-3}
    return Preset(sizes, {LOW_RESOLUTION: changes})


def _vqgan() -> "Preset":
    from genzoo.models.preset import LOW_RESOLUTION, Preset
    from genzoo.models.vq.latent_model import LatentConfig
    from genzoo.models.vq.vqgan import VQGANConfig
    from genzoo.nn.patch_discriminator import PatchDiscriminatorConfig

    widths = {"tiny": (16, 32), "small": (48, 96), "base": (64, 128), "large": (96, 192, 384)}
    sizes = {
        size: LatentConfig(
            VQGANConfig(autoencoder, PatchDiscriminatorConfig(widths[size])),
            _PRIORS[size].config(),
            training=_training(size),
        )
        for size, autoencoder in _autoencoders().items()
    }
    return Preset(sizes, {LOW_RESOLUTION: {"autoencoder.autoencoder.quantiser": _few_codes()}})


PRESETS = (
    PresetRow(
        "vqvae",
        "VQ-VAE: an image as a small grid of codes, with a simple prior; two-part code length",
        "[van den Oord et al. 2017](https://arxiv.org/abs/1711.00937)",
        _vqvae,
    ),
    PresetRow(
        "vq-transformer",
        "VQ-VAE, then a causal transformer over its codes, in one run",
        "[Esser et al. 2021](https://arxiv.org/abs/2012.09841)",
        _vq_transformer,
    ),
    PresetRow(
        "vqgan",
        "VQ-VAE with a patch discriminator and a feature loss, then a causal transformer over its codes",
        "[Esser et al. 2021](https://arxiv.org/abs/2012.09841)",
        _vqgan,
    ),
)
