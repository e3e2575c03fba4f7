"""Two players: losses of logits, penalties on the discriminator's gradients, and how often a penalty is paid.

A discriminator gives images logits `[b]`, high for real ones. Every two-player model shares these: GANs,
image-to-image, VQGAN.

    non-saturating   D: softplus(-real) + softplus(fake)    G: softplus(-fake)         Goodfellow et al. 2014
    least squares    D: (real - 1)^2 + fake^2               G: (fake - 1)^2            Mao et al. 2017
    hinge            D: relu(1 - real) + relu(1 + fake)     G: -fake                   Lim & Ye 2017
    Wasserstein      D: fake - real                         G: -fake                   Arjovsky et al. 2017
    relativistic     D: softplus(fake - real)               G: softplus(real - fake)   Jolicoeur-Martineau 2019

The relativistic loss compares pairs, so that no mode can be dropped for free; with `R1` and `R2` on both sides of the
data it converges locally (Huang et al. 2024, "The GAN is dead; long live the GAN!").
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.contract import GenzooError

Critic = Callable[[Tensor], Tensor]
"""Images `[b, ...]` to logits `[b]`, images not affecting each other; conditions are bound already."""


class AdversarialLoss(ABC):
    """What the players minimise, of logits `[b]`; where a loss compares, real and fake images are pairs by row."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """`[b]` for the player that tells real from fake."""

    @abstractmethod
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """`[b]` for the player that makes the fakes."""


@dataclass(frozen=True)
class NonSaturating(AdversarialLoss):
    """Logistic; against the optimal discriminator its own loss is 2 log 2 - 2 JSD(real, fake)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log D(real) - log(1 - D(fake))."""
        return F.softplus(-real) + F.softplus(fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log D(fake), whose gradient does not vanish where the fakes are told apart with ease."""
        return F.softplus(-fake)


@dataclass(frozen=True)
class LeastSquares(AdversarialLoss):
    """Targets 1 for real and 0 for fake; the optimum is the Pearson chi^2 divergence up to a constant."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Squared distances from the targets."""
        return (real - 1) ** 2 + fake**2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """To the other target."""
        return (fake - 1) ** 2


@dataclass(frozen=True)
class Hinge(AdversarialLoss):
    """Logits beyond a margin of 1 teach nothing."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """What is missing to the margin."""
        return F.relu(1 - real) + F.relu(1 + fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Linear."""
        return -fake


@dataclass(frozen=True)
class Wasserstein(AdversarialLoss):
    """Needs a critic of bounded slope: `GradientPenalty`, or spectral normalisation."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The negative estimate of the distance."""
        return fake - real

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Linear."""
        return -fake


@dataclass(frozen=True)
class RelativisticPaired(AdversarialLoss):
    """Whether the real one of a pair looks more real than the fake one."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log sigmoid(real - fake)."""
        return F.softplus(fake - real)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log sigmoid(fake - real)."""
        return F.softplus(real - fake)


# --- penalties -------------------------------------------------------------------------------------------------


class Penalty(ABC):
    """A price `[b]` on the discriminator's slope."""

    @abstractmethod
    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """`[b]` of images `[b, ...]`, differentiable in the critic's parameters."""


@dataclass(frozen=True)
class R1(Penalty):
    """gamma / 2 |grad D(real)|^2 (Mescheder et al. 2018, equation 9)."""

    gamma: float = 1.0

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """At the real images."""
        return 0.5 * self.gamma * squared_slope(critic, real)


@dataclass(frozen=True)
class R2(Penalty):
    """gamma / 2 |grad D(fake)|^2 (Mescheder et al. 2018, equation 10)."""

    gamma: float = 1.0

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """At the fakes."""
        return 0.5 * self.gamma * squared_slope(critic, fake)


@dataclass(frozen=True)
class GradientPenalty(Penalty):
    """weight (|grad D(x)| - 1)^2 at random points between real and fake (Gulrajani et al. 2017, WGAN-GP)."""

    weight: float = 10.0

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """One point per pair."""
        device = real.device if generator is None else generator.device
        u = torch.rand(len(real), generator=generator, device=device).to(real)
        u = u.view(-1, *[1] * (real.ndim - 1))
        slope = squared_slope(critic, u * real + (1 - u) * fake)
        return self.weight * ((slope + 1e-12).sqrt() - 1) ** 2  # the root has no gradient at 0


def squared_slope(critic: Critic, images: Tensor) -> Tensor:
    """|grad D|^2 `[b]` at `images` `[b, ...]`, in float32, differentiable in the critic's parameters."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return slope.float().square().flatten(1).sum(1)


@dataclass(frozen=True)
class Lazily:
    """A penalty paid every `every` turns, `every` times over (Karras et al. 2020, StyleGAN2, appendix B).

    The sum of gradients over a period is what paying each time would give, if images and weights stood still.
    """

    penalty: Penalty
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise GenzooError(f"a penalty is paid every 1 or more turns, got {self.every}")

    def due(self, turn: int) -> bool:
        """Whether it is paid in turn number `turn`, counted from 0."""
        return turn % self.every == 0

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """`[b]`, scaled for the turns in which it is not paid."""
        return self.every * self.penalty(critic, real, fake, generator)
