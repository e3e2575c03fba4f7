"""Image-to-image: one network predicts an image x from another one y, by pixel loss and against a discriminator.

    generator      pixel_weight |x - G(y)|_1 / D + adversarial_weight loss of logits D(G(y), y)
    discriminator  loss of logits D(x, y), D(G(y), y), plus penalties on its slope in x
    sample         G(y)
    log_likelihood none: a prediction gives every other image probability 0

After Isola et al. (2017, pix2pix). Where y leaves x open the pixel loss alone asks for the median of what x may be,
sub-pixel by sub-pixel, which is blurred; the discriminator, which sees y too, asks for one of the images that x may
be. G is deterministic, as pix2pix's is all but in name: its noise came from dropout and was hardly seen (section 3.1
there). With adversarial_weight = 0 there is no discriminator, and one turn: plain regression.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from typing_extensions import override

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.passes import decodings_per_pass, frozen, slices
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss, evaluating
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.nn.conv_unet import ConvUNetConfig
from genzoo.nn.denoiser_network import DenoiserConfig
from genzoo.nn.embeddings import check_condition
from genzoo.nn.patch_discriminator import PatchDiscriminatorConfig
from genzoo.objectives.adversarial import R1, R2, AdversarialLoss, Critic, Lazy, RelativisticPaired
from genzoo.objectives.scale import Scale
from genzoo.objectives.two_players import TwoPlayerGame


@dataclass(frozen=True)
class ImageToImageConfig(ModelConfig):
    """The network that predicts, the one that judges, and how much each loss weighs."""

    network: DenoiserConfig = field(default_factory=ConvUNetConfig)
    """Predicts; its `c_noise` is 0."""
    residual: bool = True
    """The network predicts x - y, where both have as many channels: what y has right is right from the start."""
    discriminator: PatchDiscriminatorConfig = field(default_factory=PatchDiscriminatorConfig)
    """Judges patches of x beside y."""
    loss: AdversarialLoss = field(default_factory=RelativisticPaired)
    """What the two play for."""
    penalties: tuple[Lazy, ...] = (Lazy(R1(0.5)), Lazy(R2(0.5)))
    """Penalties on the discriminator's gradient."""
    pixel_weight: float = 10.0
    """Of the mean distance of sub-pixels, on the scale [-1, 1]."""
    adversarial_weight: float = 1.0
    """Of the adversarial loss; with 0 there is no discriminator."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "ImageToImage":
        """Raises `GenzooError` for data that are no images, or have no images as their condition."""
        if (
            self.pixel_weight < 0
            or self.adversarial_weight < 0
            or self.pixel_weight + self.adversarial_weight == 0
        ):
            raise GenzooError("image-to-image needs weights of at least 0, one of them above")
        given = given_channels(spec)
        network = self.network.build((given, *spec.shape[1:]), spec.shape[0], 0)
        discriminator = self.discriminator.build(spec.shape, given) if self.adversarial_weight else None
        return ImageToImage(spec, self, network, discriminator)


def given_channels(spec: DataSpec) -> int:
    """c', the channels of the input images `[c', h, w]` that the vectors of `spec` hold.

    Raises `GenzooError` where there are no vectors, or they hold no images of the size of the images.
    """
    if len(spec.shape) != 3:
        raise GenzooError(f"image-to-image needs images, these data have shape {spec.shape}")
    if spec.cond != "vector":
        raise GenzooError(
            "image-to-image needs an input image: give --cond mask, downsample, grey, edges or folder:INPUTS"
        )
    _, h, w = spec.shape
    if spec.cond_size % (h * w):
        raise GenzooError(
            f"image-to-image needs input images of {h}x{w} pixels as cond: {spec.cond_size} is no multiple of {h * w}"
        )
    return spec.cond_size // (h * w)


class ImageToImage(GenerativeModel):
    """A deterministic prediction of an image from an input image."""

    deterministic = True
    no_mean = "its network gives images, and no distribution of their pixels"
    watched = ("discriminator/accuracy", "discriminator/gap")
    config: ImageToImageConfig

    def __init__(
        self, spec: DataSpec, config: ImageToImageConfig, network: nn.Module, discriminator: nn.Module | None
    ) -> None:
        super().__init__()
        self.spec, self.config, self.scale = spec, config, Scale(spec)
        self.network, self.discriminator = network, discriminator
        self.given = given_channels(spec)
        self.game = TwoPlayerGame(config.loss, config.penalties)
        self.turns = ("generator",) if discriminator is None else ("discriminator", "generator")
        self.chunk = decodings_per_pass(spec.dims)
        """Images per pass outside of training: bounds memory."""

    @property
    def likelihood(self) -> LikelihoodKind:
        """A prediction is no distribution."""
        return LikelihoodKind.NONE

    @override
    def parameters_of(self, turn: str) -> Iterator[nn.Parameter]:
        players = {"generator": self.network, "discriminator": self.discriminator}
        player = players.get(turn)
        if player is None:
            raise ValueError(f"unknown turn {turn!r}, this model has {self.turns}")
        return player.parameters()

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(
        self, batch: Batch, turn: str = "generator", *, generator: torch.Generator | None = None
    ) -> Loss:
        """The player's loss `[b]`.

        Parts of the generator's: `l1`, the mean distance of sub-pixels on the scale [-1, 1], and `adversarial`, both
        before they are weighted. Those of the discriminator's are those of `TwoPlayerGame.discriminate`.
        """
        self.parameters_of(turn)
        real = self.scale.centres(check_images(batch.images, self.spec))
        y = self._inputs(batch.cond, len(real))
        playing = turn == "generator"
        with torch.set_grad_enabled(playing and torch.is_grad_enabled()):
            fake = self.predict(y)
        if playing:
            return self._generators_loss(real, fake, y)
        return self.game.discriminator_loss(self._critic(y), real, fake, generator, self.progress)

    def _generators_loss(self, real: Tensor, fake: Tensor, y: Tensor) -> Loss:
        l1 = (real - fake).abs().flatten(1).mean(1)
        total, parts = self.config.pixel_weight * l1, {"l1": l1.detach()}
        if self.discriminator is not None:
            adversarial = self.game.generator_loss(self._critic(y, for_generator=True), real, fake)
            total = total + self.config.adversarial_weight * adversarial
            parts["adversarial"] = adversarial.detach()
        return Loss(total, parts)

    def _critic(self, y: Tensor, *, for_generator: bool = False) -> Critic:
        """The discriminator beside the inputs; in the generator's turn it gets no gradients, its images do."""
        assert self.discriminator is not None
        discriminator = frozen(self.discriminator) if for_generator else self.discriminator
        return lambda x: discriminator(x, y.repeat(len(x) // max(1, len(y)), 1, 1, 1))

    # --- prediction ----------------------------------------------------------------------------------------

    def predict(self, y: Tensor) -> Tensor:
        """Images `[b, *spec.shape]` for inputs `[b, c', h, w]`, both on the scale [-1, 1], float32, differentiable."""
        x = self.network(y, torch.zeros(len(y), device=y.device)).to(
            torch.promote_types(y.dtype, torch.float32)
        )
        return x + y if self.config.residual and x.shape == y.shape else x

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The predictions `[n, *spec.shape]` for inputs `cond` `[n, c' h w]`; nothing about them is random."""
        y, parts = self._inputs(cond, n), []
        with evaluating(self):
            for part in slices(max(n, 1), self.chunk):
                parts.append(self.predict(y[part]))
        return self.scale.images(torch.cat(parts))

    def _inputs(self, cond: Tensor | None, n: int) -> Tensor:
        """`[n, c', h, w]` on the model's device."""
        vectors = check_condition(cond, self.spec, n)
        assert vectors is not None
        return vectors.to(self.device, torch.float32).view(n, self.given, *self.spec.shape[1:])

    # --- likelihood ----------------------------------------------------------------------------------------

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """Raises `NoLikelihood`: what exists instead are the families that draw."""
        raise NoLikelihood(
            "image-to-image predicts one image, so every other one has probability 0; "
            "flow, vae or pixelcnn, trained with the same --cond, give images a likelihood given their input"
        )
