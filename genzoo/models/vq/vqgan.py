"""VQGAN: a VQ-VAE whose reconstructions also have to look right (Esser, Rombach & Ommer 2021, "Taming transformers").

    discriminator   loss of logits D(x), D(x^), plus penalties; logits of patches
    autoencoder     rec + commitment + w lambda adv
                    rec = -log P(x | z(x)) + f dims d(x, x^)               d: distance of features
                    lambda = |grad_L rec| / (|grad_L adv| + delta)         L: the decoder's last layer (equation 7)

x^ is the mean of P(x | z), by the cheap formula for it (`OutputDistribution.location`), rounded as it is when it is
shown: what the codes say about the image. The noise that P(x | z) has around it is what keeps the two-part code honest;
a discriminator that saw draws would punish it. The mean has a gradient in the distribution's parameters, the rounding
is passed straight through. Everything that a VQ-VAE does
(codes, two-part code, likelihood, samples) is done by the VQ-VAE inside, `autoencoder`; the likelihood stays a bound.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from genzoo.core.bounds import NotNegative, Share
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.passes import frozen
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.models.vq.vqvae import VQVAE, VQVAEConfig
from genzoo.nn.patch_discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from genzoo.nn.quantisers import straight_through
from genzoo.objectives.adversarial import R1, R2, AdversarialLoss, Lazy, RelativisticPaired
from genzoo.objectives.perceptual import FeatureMaps, perceptual_distance
from genzoo.objectives.scale import Scale
from genzoo.objectives.two_players import TwoPlayerGame

DELTA = 1e-6
MOST_PER_DIM = 0.1
"""The most that one unit of the adversarial loss may be worth, in nats per sub-pixel; 0.02 is usual on garments.

Where the discriminator is at a loss its gradient is noise, and the ratio would blow that up to the size of the
reconstruction's. It goes with the number of sub-pixels, as -log P(x | z) does and a mean over patches does not.
"""


@dataclass(frozen=True)
class VQGANConfig(ModelConfig):
    """A VQ-VAE, a discriminator of patches, and what its opinion is worth."""

    autoencoder: VQVAEConfig = field(default_factory=VQVAEConfig)
    """Its own `training` is not used."""
    discriminator: PatchDiscriminatorConfig = field(default_factory=PatchDiscriminatorConfig)
    """Judges reconstructions against their images."""
    loss: AdversarialLoss = field(default_factory=RelativisticPaired)
    """What both minimise; pairs are an image and its own reconstruction."""
    penalties: tuple[Lazy, ...] = (Lazy(R1(1.0), every=4), Lazy(R2(1.0), every=4))
    """Penalties on the discriminator's gradient."""
    adversarial_weight: NotNegative = 0.2
    """Size of the adversarial gradient at the decoder's last layer, as a share of the reconstruction's."""
    adversarial_start: Share = 0.25
    """Share of the training after which the discriminator joins in."""
    feature_weight: NotNegative = 0.1
    """Nats per sub-pixel that a feature distance of 1 is worth; features are the discriminator's if none are given."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "VQGAN":
        """Raises `GenzooError` where the parts do not take the data, or a weight or the start is out of range."""
        if min(self.adversarial_weight, self.feature_weight) < 0 or not 0 <= self.adversarial_start < 1:
            raise GenzooError("a VQGAN needs weights of at least 0 and 0 <= adversarial_start < 1")
        return VQGAN(spec, self, self.autoencoder.build(spec), self.discriminator.build(spec.shape))


class VQGAN(GenerativeModel):
    """A VQ-VAE as `autoencoder`, and a `discriminator` that only training needs.

    `features`, set from outside, replaces the discriminator's features in the feature loss. It is no part of the model:
    neither trained nor saved with it, so set it again before a run is resumed.
    """

    turns = ("discriminator", "autoencoder")
    watched = ("discriminator/accuracy", "discriminator/gap")
    config: VQGANConfig
    features: FeatureMaps | None = None
    balance: Tensor

    def __init__(
        self, spec: DataSpec, config: VQGANConfig, autoencoder: VQVAE, discriminator: PatchDiscriminator
    ) -> None:
        super().__init__()
        self.spec, self.config, self.scale = spec, config, Scale(spec)
        self.autoencoder, self.discriminator = autoencoder, discriminator
        self.game = TwoPlayerGame(config.loss, config.penalties)
        self.register_buffer("balance", torch.zeros(()))
        """The last lambda of training, in nats: what losses take where there are no gradients to weigh."""

    def __setattr__(self, name: str, value: Any) -> None:
        """As of any module, but that a network given as `features` does not become a part of it."""
        if name == "features":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    @override
    def likelihood(self) -> LikelihoodKind:
        return self.autoencoder.likelihood

    @property
    def decoder_part(self) -> GenerativeModel:
        """The VQ-VAE."""
        return self.autoencoder

    def parameters_of(self, turn: str) -> Iterator[nn.Parameter]:
        """The network of that name."""
        if turn not in self.turns:
            raise ValueError(f"unknown turn {turn!r}, this model has {self.turns}")
        return self.get_submodule(turn).parameters()

    def span_of(self, turn: str) -> tuple[float, float]:
        """The discriminator plays from `adversarial_start` on."""
        self.parameters_of(turn)
        return (self.config.adversarial_start if turn == "discriminator" else 0.0, 1.0)

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(
        self, batch: Batch, turn: str = "autoencoder", *, generator: torch.Generator | None = None
    ) -> Loss:
        """The player's loss `[b]`; in training mode the codes follow the features in the autoencoder's turn only.

        Parts of the discriminator's turn are those of `TwoPlayerGame.discriminate`. The autoencoder's are those of the
        VQ-VAE, `features` (distance), `adversarial` (loss, unweighted) and `balance` (lambda, nats), where they play.
        """
        self.parameters_of(turn)
        real = self.scale.centres(check_images(batch.images, self.spec))
        if turn == "autoencoder":
            return self._autoencoder_loss(batch, real, generator)
        fake = self.scale.centres(self.autoencoder.located(batch.images, batch.cond))
        return self.game.discriminator_loss(self.discriminator, real, fake, generator, self.progress)

    def _autoencoder_loss(self, batch: Batch, real: Tensor, generator: torch.Generator | None) -> Loss:
        (total, parts), params = self.autoencoder.loss_and_params(batch, generator)
        mean = self.autoencoder.distribution.location(params)
        fake = self.scale.centres(straight_through(mean, mean.detach().round()))
        plays = self.progress_of("discriminator") is not None
        features = self.discriminator if self.features is None and plays else self.features
        rec = parts["nll"]
        if self.config.feature_weight and features is not None:
            distance = perceptual_distance(features, real, fake)
            penalty = self.config.feature_weight * self.spec.dims * distance
            total, rec, parts = total + penalty, rec + penalty, parts | {"features": distance}
        if self.config.adversarial_weight and plays:
            adv = self.game.generator_loss(frozen(self.discriminator), real, fake)
            balance = self._balanced(rec, adv)
            total = total + self.config.adversarial_weight * balance * adv
            parts = parts | {"adversarial": adv, "balance": balance.expand(len(adv))}
        return Loss(total, parts)

    def _balanced(self, rec: Tensor, adv: Tensor) -> Tensor:
        """lambda, from losses `[b]` of this process's images; in training it is remembered."""
        layer = self.autoencoder.decoder.up[0].weight
        assert isinstance(layer, Tensor)
        if self.training and torch.is_grad_enabled() and layer.requires_grad:
            most = MOST_PER_DIM * self.spec.dims
            self.balance.copy_(adaptive_weight(rec.mean(), adv.mean(), layer, most))
        return self.balance.clone()

    # --- what the autoencoder does -------------------------------------------------------------------------

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Those of the autoencoder: codes from its prior, then images `[n, c, h, w]` from P(x|z)."""
        return self.autoencoder.sample(n, cond, generator=generator)

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """That of the autoencoder, a lower bound in nats."""
        return self.autoencoder.log_likelihood(images, cond, generator=generator)

    def reconstruct(self, images: Tensor, cond: Tensor | None = None) -> Tensor:
        """The expected images, rounded, `[n, c, h, w]`, given the images' own codes."""
        return self.autoencoder.reconstruct(images, cond)

    def latent_figures(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """Those of the autoencoder."""
        return self.autoencoder.latent_figures(images, cond, generator=generator)


def adaptive_weight(rec: Tensor, adv: Tensor, layer: Tensor, most: float) -> Tensor:
    """lambda = |grad rec| / (|grad adv| + delta) at most `most`, of scalars that depend on `layer`; no gradient.

    Esser et al. 2021, equation 7. Both graphs stay for the backward pass that follows.
    """
    norms = [torch.autograd.grad(loss, layer, retain_graph=True)[0].norm() for loss in (rec, adv)]
    return (norms[0] / (norms[1] + DELTA)).clamp(max=most).detach()
