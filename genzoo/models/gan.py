"""Generative adversarial networks: a generator against a discriminator that tells its images from real ones.

    z ~ N(0, 1),  fake = G(z, y)
    discriminator  loss of logits D(real, y), D(fake, y), plus penalties on its slope, each paid every so often
    generator      loss of logits, through D
    sample         G(z, y); truncated z trade variety for quality               (Marchesi 2017; Brock et al. 2019)
    log_likelihood none: the images of G lie on a surface of measure zero. `genzoo.likelihood.decoder_likelihood`
                   estimates that of G plus discretised noise, which is another model

The default is in the manner of R3GAN (Huang et al. 2024): relativistic loss, R1 and R2, no normalisation. Small data
are augmented before the discriminator sees them, real and fake alike and differentiably (Zhao et al. 2020).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from genzoo.config import ModelConfig, TrainConfig
from genzoo.contract import (
    Batch,
    DataSpec,
    GenerativeModel,
    GenzooError,
    Likelihood,
    LogLikelihood,
    Loss,
    NoLikelihood,
    check_images,
    evaluating,
)
from genzoo.likelihood.scale import Scale
from genzoo.networks.embeddings import Condition, check_condition, condition_width
from genzoo.networks.gan_nets import ConvGANNetworks, GANNetworks
from genzoo.networks.latent_paths import interpolate_spherically
from genzoo.networks.passes import decodings_per_pass, slices
from genzoo.objectives.adversarial import R1, R2, AdversarialLoss, Critic, Lazily, RelativisticPaired
from genzoo.objectives.elbo import normal_noise


@dataclass(frozen=True)
class GANConfig(ModelConfig):
    """Two networks, a loss and its penalties."""

    latents: int = 64
    """Numbers in z."""
    networks: GANNetworks = field(default_factory=ConvGANNetworks)
    """Both players' networks."""
    loss: AdversarialLoss = field(default_factory=RelativisticPaired)
    """What they minimise."""
    penalties: tuple[Lazily, ...] = (Lazily(R1(1.0)), Lazily(R2(1.0)))
    """Prices on the discriminator's slope."""
    augmentation: float = 0.0
    """Share of the images that are shifted and cut out before the discriminator sees them."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "GAN":
        """Raises `GenzooError` where the networks do not take the data."""
        if self.latents < 1 or not 0 <= self.augmentation <= 1:
            raise GenzooError("a GAN needs at least one latent and 0 <= augmentation <= 1")
        width = condition_width(spec)
        players = (
            self.networks.generator(spec.shape, self.latents, width),
            self.networks.discriminator(spec.shape, width),
        )
        return GAN(spec, self, *players)
