"""Two players: losses of logits, penalties on the discriminator's gradients, and how often a penalty is paid.

A discriminator gives images logits `[b]`, high for real ones, or patches of them logits `[b, h', w']`. Every two-player
model shares these: GANs, image-to-image, VQGAN.

    non-saturating   D: softplus(-real) + softplus(fake)    G: softplus(-fake)         Goodfellow et al. 2014
    least squares    D: (real - 1)^2 + fake^2               G: (fake - 1)^2            Mao et al. 2017
    hinge            D: relu(1 - real) + relu(1 + fake)     G: -fake                   Lim & Ye 2017
    Wasserstein      D: fake - real                         G: -fake                   Arjovsky et al. 2017
    relativistic     D: softplus(fake - real)               G: softplus(real - fake)   Jolicoeur-Martineau 2019

The relativistic loss compares pairs, so that no mode can be dropped for free; with `R1` and `R2` on both sides of the
data it converges locally (Huang et al. 2024, "The GAN is dead; long live the GAN!").
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.bounds import NotNegative
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError

Critic = Callable[[Tensor], Tensor]
"""Images `[b, ...]` to logits `[b]`, or `[b, h', w']` of patches; images do not affect each other.

The condition is bound already; a conditional one also takes several batches under the same conditions after each
other, `[k b, ...]` to `[k b]`."""


class AdversarialLoss(Configurable, ABC):
    """What the players minimise, of logits `[b, ...]`; where a loss compares, real and fake ones are pairs by place."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """`[b]` for the player that tells real from fake."""

    @abstractmethod
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """`[b]` for the player that makes the fakes."""

    @abstractmethod
    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        """The share `[b]` of its judgements that the discriminator has right; ties are half right."""


def _around(threshold: float, real: Tensor, fake: Tensor) -> Tensor:
    """The share of rights `[b]` where real images are those above the threshold."""
    return 0.5 + 0.25 * ((real - threshold).sign() - (fake - threshold).sign())


def _in_pairs(real: Tensor, fake: Tensor) -> Tensor:
    """The share of rights `[b]` where only differences of logits mean anything."""
    return 0.5 + 0.5 * (real - fake).sign()


@dataclass(frozen=True)
class NonSaturating(AdversarialLoss):
    """Logistic; against the optimal discriminator its own loss is 2 log 2 - 2 JSD(real, fake)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log D(real) - log(1 - D(fake))."""
        return F.softplus(-real) + F.softplus(fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log D(fake), whose gradient does not vanish where the fakes are told apart with ease."""
        return F.softplus(-fake)

    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        """Around logit 0, probability one half."""
        return _around(0.0, real, fake)


@dataclass(frozen=True)
class LeastSquares(AdversarialLoss):
    """Targets 1 for real and 0 for fake; against the optimal discriminator its loss is 1/2 - chi^2(real, mixture) / 2,
    with the mixture of both in equal parts."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Squared distances from the targets."""
        return (real - 1) ** 2 + fake**2

    @override
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - 1) ** 2

    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        """Around the middle of the targets."""
        return _around(0.5, real, fake)


@dataclass(frozen=True)
class Hinge(AdversarialLoss):
    """Logits beyond a margin of 1 teach nothing."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """What is missing to the margin."""
        return F.relu(1 - real) + F.relu(1 + fake)

    @override
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake

    @override
    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        return _around(0.0, real, fake)


@dataclass(frozen=True)
class Wasserstein(AdversarialLoss):
    """Needs a critic of bounded slope: `GradientPenalty`, or spectral normalisation."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The negative estimate of the distance."""
        return fake - real

    @override
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake

    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        """In pairs: a critic is free up to a constant."""
        return _in_pairs(real, fake)


@dataclass(frozen=True)
class RelativisticPaired(AdversarialLoss):
    """Whether the real one of a pair looks more real than the fake one."""

    @override
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(fake - real)

    @override
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(real - fake)

    @override
    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        return _in_pairs(real, fake)


# --- penalties -------------------------------------------------------------------------------------------------


class Penalty(Configurable, ABC):
    """A penalty `[b]` on the discriminator's gradient at some points."""

    @abstractmethod
    def points(self, real: Tensor, fake: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images `[b, ...]` at which the slope is looked at, from such real and fake ones."""

    @abstractmethod
    def value(self, slope: Tensor) -> Tensor:
        """The penalty `[b]` of squared gradient norms `[b]`."""

    @final
    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """`[b]` of images `[b, ...]`, differentiable in the critic's parameters."""
        return self.value(squared_slope(critic, self.points(real, fake, generator)))


@dataclass(frozen=True)
class R1(Penalty):
    """gamma / 2 |grad D(real)|^2 (Mescheder et al. 2018, equation 9).

    It flattens what changes over lengths below sqrt(gamma) or so: gamma goes with the square of the data's detail.
    """

    gamma: NotNegative = 1.0

    @override
    def points(self, real: Tensor, fake: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return real

    @override
    def value(self, slope: Tensor) -> Tensor:
        return 0.5 * self.gamma * slope


@dataclass(frozen=True)
class R2(Penalty):
    """gamma / 2 |grad D(fake)|^2 (Mescheder et al. 2018, equation 10)."""

    gamma: NotNegative = 1.0

    @override
    def points(self, real: Tensor, fake: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return fake

    @override
    def value(self, slope: Tensor) -> Tensor:
        return 0.5 * self.gamma * slope


@dataclass(frozen=True)
class GradientPenalty(Penalty):
    """weight (|grad D(x)| - 1)^2 at random points between real and fake (Gulrajani et al. 2017, WGAN-GP)."""

    weight: NotNegative = 10.0

    def points(self, real: Tensor, fake: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One point on the segment of each pair."""
        device = real.device if generator is None else generator.device
        u = torch.rand(len(real), generator=generator, device=device).to(real)
        u = u.view(-1, *[1] * (real.ndim - 1))
        return u * real + (1 - u) * fake

    def value(self, slope: Tensor) -> Tensor:
        """By the distance from length 1."""
        return self.weight * ((slope + 1e-12).sqrt() - 1) ** 2  # the root has no gradient at 0


def squared_slope(critic: Critic, images: Tensor) -> Tensor:
    """|grad D|^2 `[b]` at `images` `[b, ...]`, in float32, differentiable in the critic's parameters.

    D is the mean over its patches where the critic judges patches.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(per_image(critic(images)).sum(), images, create_graph=True)
    return slope.float().square().flatten(1).sum(1)


def per_image(values: Tensor) -> Tensor:
    """The mean `[b]` over the patches of values `[b, ...]`; those `[b]` of whole images stay as they are."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values


@dataclass(frozen=True)
class Lazy(Configurable):
    """A penalty paid every `every` turns, `every` times over (Karras et al. 2020, StyleGAN2, appendix B).

    The sum of gradients over a period is what paying each time would give, if images and weights stood still. Over the
    training budget the weight falls (or rises) evenly in its logarithm to `final` times that of the start: a high one
    finds all modes, a low one lets them become sharp (R3GAN anneals it likewise).
    """

    penalty: Penalty
    every: int = 1
    final: float = 1.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise GenzooError(f"a penalty is paid every 1 or more turns, got {self.every}")
        if not self.final > 0:
            raise GenzooError(f"the final weight of a penalty must be positive, got {self.final}")

    def due(self, turn: int) -> bool:
        """Whether it is paid in turn number `turn`, counted from 0."""
        return turn % self.every == 0

    def times(self, progress: float) -> float:
        """How many times over it is paid where it is due, at this share of the training budget."""
        return self.every * self.final**progress


def penalties_due(
    penalties: Sequence[Lazy],
    turn: int | None,
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    generator: torch.Generator | None = None,
    progress: float = 1.0,
) -> Tensor:
    """The sum `[b]` of the `penalties` due in turn number `turn`, each scaled for the turns in which it is not paid.

    Without a `turn` all of them, as if each were paid every time; `progress` is the share of the training budget used.
    One pass through the critic serves them all.
    """
    due = [(p.times(progress), p.penalty) for p in penalties if turn is not None and p.due(turn)]
    due = [(p.times(progress) / p.every, p.penalty) for p in penalties] if turn is None else due
    if not due:
        return torch.zeros(len(real), device=real.device)
    points = torch.cat([penalty.points(real, fake, generator) for _, penalty in due])
    slopes = squared_slope(critic, points).chunk(len(due))
    return torch.stack([n * p.value(slope) for (n, p), slope in zip(due, slopes, strict=True)]).sum(0)
