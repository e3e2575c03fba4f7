"""Generative adversarial networks: a generator against a discriminator that tells its images from real ones.

    z ~ N(0, 1),  fake = G(z, y)
    discriminator  loss of logits D(real, y), D(fake, y), plus penalties on its slope, each paid every so often
    generator      loss of logits, through D
    sample         G(z, y); truncated z trade variety for quality               (Marchesi 2017; Brock et al. 2019)
    log_likelihood none: the images of G lie on a surface of measure zero. `genzoo.objectives.likelihood.decoder`
                   estimates that of G plus discretised noise, which is another model

The default is in the manner of R3GAN (Huang et al. 2024): relativistic loss, R1 and R2, no normalisation. Small data
are augmented before the discriminator sees them, real and fake alike and differentiably (Zhao et al. 2020).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from genzoo.core.bounds import OptionalWidth
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.passes import decodings_per_pass, frozen, slices
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss, evaluating
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.nn.embeddings import Condition, check_condition, condition_width
from genzoo.nn.gan_nets import ConvGANNetworks, GANNetworks
from genzoo.nn.latent_paths import interpolate_spherically
from genzoo.objectives.adversarial import R1, R2, AdversarialLoss, Critic, Lazy, RelativisticPaired
from genzoo.objectives.augmenting import shifted_and_cut
from genzoo.objectives.elbo import normal_noise
from genzoo.objectives.scale import Scale
from genzoo.objectives.two_players import TwoPlayerGame

MOST_LATENTS = 64


@dataclass(frozen=True)
class GANConfig(ModelConfig):
    """Two networks, a loss and its penalties."""

    latent_dim: OptionalWidth | None = None
    """Numbers in z; None: 64, or as many as an image has where it has fewer."""
    networks: GANNetworks = field(default_factory=ConvGANNetworks)
    """Both players' networks."""
    loss: AdversarialLoss = field(default_factory=RelativisticPaired)
    """What they minimise."""
    penalties: tuple[Lazy, ...] = (Lazy(R1(1.0)), Lazy(R2(1.0)))
    """Penalties on the discriminator's gradient."""
    augmentation_probability: float = 0.0
    """Share of the images that are shifted and cut out before the discriminator sees them."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "GAN":
        """Raises `GenzooError` where the networks do not take the data."""
        latent_dim = min(MOST_LATENTS, spec.dims) if self.latent_dim is None else self.latent_dim
        if latent_dim < 1 or not 0 <= self.augmentation_probability <= 1:
            raise GenzooError("a GAN needs at least one latent and 0 <= augmentation_probability <= 1")
        width = condition_width(spec)
        players = (
            self.networks.generator(spec.shape, latent_dim, width),
            self.networks.discriminator(spec.shape, width),
        )
        return GAN(spec, self, latent_dim, *players)


class GAN(GenerativeModel):
    """Generator and discriminator; samples in one pass, no likelihood."""

    turns = ("discriminator", "generator")
    watched = ("discriminator/accuracy", "discriminator/gap")
    no_mean = "its generator gives images, and no distribution of their pixels"
    config: GANConfig

    def __init__(
        self,
        spec: DataSpec,
        config: GANConfig,
        latent_dim: int,
        generator: nn.Module,
        discriminator: nn.Module,
    ) -> None:
        super().__init__()
        self.spec, self.config, self.scale, self.latent_dim = spec, config, Scale(spec), latent_dim
        self.generator, self.discriminator = generator, discriminator
        self.generator_condition, self.discriminator_condition = Condition(spec), Condition(spec)
        self.game = TwoPlayerGame(config.loss, config.penalties)
        self.chunk = decodings_per_pass(spec.dims)
        """Images per pass outside of training: bounds memory."""

    @property
    def likelihood(self) -> LikelihoodKind:
        """The generator's images have no density."""
        return LikelihoodKind.NONE

    def parameters_of(self, turn: str) -> Iterator[nn.Parameter]:
        """Each player's network and its own embedding of the condition."""
        players = {
            "discriminator": (self.discriminator, self.discriminator_condition),
            "generator": (self.generator, self.generator_condition),
        }
        if turn not in players:
            raise ValueError(f"unknown turn {turn!r}, this model has {self.turns}")
        return (p for part in players[turn] for p in part.parameters())

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(
        self, batch: Batch, turn: str = "discriminator", *, generator: torch.Generator | None = None
    ) -> Loss:
        """The player's loss `[b]`; one fake is drawn per real image, under the same condition.

        The parts of the discriminator's turn are those of `TwoPlayerGame.discriminate`.
        """
        self.parameters_of(turn)
        # noise within the bins would give real images away: the generator has too few latents to imitate it
        real = self.scale.centres(check_images(batch.images, self.spec))
        playing = turn == "generator"
        with torch.set_grad_enabled(playing and torch.is_grad_enabled()):
            fake = self.generate(self.noise(len(real), generator).to(real), batch.cond)
        real, fake = self._augmented(real, fake, generator)
        critic = self._critic(batch.cond, for_generator=playing)
        if playing:
            return Loss(self.game.generator_loss(critic, real, fake), {})
        return self.game.discriminator_loss(critic, real, fake, generator, self.progress)

    def _critic(self, cond: Tensor | None, *, for_generator: bool) -> Critic:
        """The discriminator under the condition; in the generator's turn it gets no gradients, its images do."""
        embedded = self.discriminator_condition(cond, 0 if cond is None else len(cond))
        discriminator = frozen(self.discriminator) if for_generator else self.discriminator
        embedded = embedded.detach() if for_generator and embedded is not None else embedded

        def critic(x: Tensor) -> Tensor:
            return discriminator(
                x, None if embedded is None else embedded.repeat(len(x) // max(1, len(embedded)), 1)
            )

        return critic

    def _augmented(
        self, real: Tensor, fake: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        if not self.config.augmentation_probability or not self.training or len(self.spec.shape) != 3:
            return real, fake
        share = self.config.augmentation_probability
        return shifted_and_cut(real, share, generator), shifted_and_cut(fake, share, generator)

    # --- sample --------------------------------------------------------------------------------------------

    def noise(
        self, n: int, generator: torch.Generator | None = None, truncation: float | None = None
    ) -> Tensor:
        """z `[n, latent_dim]`; with `truncation`, normal numbers given that none lies beyond it (Brock et al. 2019,
        3.1).

        They are the same draws, moved inwards by the distribution functions in place of being drawn anew.
        """
        z = normal_noise(torch.zeros(n, self.latent_dim, device=self.device), generator)
        if truncation is None:
            return z
        if not truncation > 0:
            raise GenzooError(f"truncation must be positive, got {truncation}")
        inside = torch.special.ndtr(torch.tensor(truncation, dtype=torch.float64)).item()
        share = torch.special.ndtr(z.double())
        return torch.special.ndtri(1 - inside + share * (2 * inside - 1)).to(z)

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images `[n, *spec.shape]`, one pass each."""
        return self.draw(n, cond, generator=generator)

    def draw(
        self,
        n: int,
        cond: Tensor | None = None,
        *,
        truncation: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images `[n, *spec.shape]` from latents within `truncation` standard deviations."""
        cond = self.generator_condition.or_drawn(cond, n, generator)
        return self.decode(self.noise(n, generator, truncation), cond)

    def decode(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Images `[n, *spec.shape]` of latents `[n, latent_dim]`."""
        cond, parts = check_condition(cond, self.spec, len(z)), []
        with evaluating(self):
            for part in slices(max(len(z), 1), self.chunk):
                parts.append(self.generate(z[part].to(self.device), None if cond is None else cond[part]))
        return self.scale.images(torch.cat(parts))

    def generate(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Images `[b, *spec.shape]` of latents `[b, latent_dim]` on the scale of bin centres, float32,
        differentiable."""
        return self.generator(z, self.generator_condition(cond, len(z))).to(
            torch.promote_types(z.dtype, torch.float32)
        )

    def interpolate(self, z_0: Tensor, z_1: Tensor, n: int, cond: Tensor | None = None) -> Tensor:
        """`[b, n, *spec.shape]`: images along the great circles between latents `[b, latent_dim]`."""
        z = interpolate_spherically(z_0, z_1, n)
        repeated = None if cond is None else cond.repeat_interleave(n, 0)
        return self.decode(z.flatten(0, 1), repeated).view(len(z_0), n, *self.spec.shape)

    def invert(
        self, images: Tensor, cond: Tensor | None = None, *, steps: int = 200, rate: float = 0.05, starts: int = 8,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Latents `[b, latent_dim]` whose images come near `images` `[b, ...]`: the best of `starts` descents by Adam.

        |G(z) - x|^2 plus the little that keeps z normal (Zhu et al. 2016; Karras et al. 2020, appendix D).
        """
        check_images(images, self.spec)
        if steps < 1 or starts < 1:
            raise GenzooError(f"an inversion needs steps and starts of at least 1, got {steps} and {starts}")
        cond = check_condition(cond, self.spec, len(images))
        z = self.noise(starts * len(images), generator).view(starts, len(images), -1)
        found = [z[0, :0]]
        with _frozen(self), torch.enable_grad():
            for part in slices(len(images), max(1, self.chunk // starts)):
                target = self.scale.centres(images[part].to(self.device))
                found.append(
                    self._descend(z[:, part], target, None if cond is None else cond[part], steps, rate)
                )
        return torch.cat(found)

    def _descend(self, z: Tensor, target: Tensor, cond: Tensor | None, steps: int, rate: float) -> Tensor:
        """From starts `z` `[starts, b, latent_dim]` to the latents `[b, latent_dim]` nearest to `target` on any
        descent."""
        starts, b, _ = z.shape
        target = target.repeat(starts, *[1] * (target.ndim - 1))
        cond = None if cond is None else cond.repeat(starts, *[1] * (cond.ndim - 1))
        z = z.flatten(0, 1).clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=rate)
        best, nearest = z.detach().clone(), torch.full((len(z),), torch.inf, device=z.device)
        for _ in range(steps):
            distance = (self.generate(z, cond) - target).square().flatten(1).sum(1)
            better = distance.detach() < nearest
            best, nearest = torch.where(better[:, None], z.detach(), best), nearest.min(distance.detach())
            optimizer.zero_grad()
            (distance + 0.01 * z.square().sum(1)).sum().backward()
            optimizer.step()
        return best.view(starts, b, -1)[nearest.view(starts, b).argmin(0), torch.arange(b, device=z.device)]

    # --- likelihood ----------------------------------------------------------------------------------------

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """Raises `NoLikelihood`: what exists instead is the likelihood of the generator plus noise."""
        raise NoLikelihood(
            "a GAN gives images no probability: its samples lie on a surface without volume; genzoo evaluate "
            "--ais 20 (genzoo.objectives.likelihood.decoder) estimates that of its generator plus discretised noise"
        )


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters inside; as before afterwards."""
    training, trainable = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for p in trainable:
            p.requires_grad_(True)
