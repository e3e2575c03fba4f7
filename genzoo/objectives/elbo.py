"""The evidence lower bound: reconstruction, KL divergence and how the KL is weighted while training.

    log P(x) >= E_q(z|x)[log P(x|z)] - KL(q(z|x) || p(z))            (Kingma & Welling 2014, equation 3)
    log P(x) >= E log 1/K sum_k P(x|z_k) p(z_k) / q(z_k|x)           (Burda et al. 2016, equation 8: IWAE)

Everything is per example and in nats. The KL comes in groups of latents (one for a plain VAE, one per layer
for a hierarchical one) as `[b, groups]`; a KL weighting turns these into the term that is minimised. Only
evaluation reports a bound, and it always uses the plain KL.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from genzoo.core.bounds import Depth, NotNegative, Share
from genzoo.core.config import Configurable

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, exp(log_scale)^2), independent per element; both `[b, ...]`."""

    mean: Tensor
    log_scale: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """mean + scale * eps, differentiable in both."""
        return self.mean + self.log_scale.exp() * normal_noise(self.mean, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """log density of `z`, summed over all but the first dimension: `[b]`."""
        white = (z - self.mean) * torch.exp(-self.log_scale)
        each = -0.5 * white**2 - self.log_scale - 0.5 * LOG_2PI
        return each.flatten(1).sum(1)

    def repeated(self, times: int) -> "DiagonalGaussian":
        """Each of the `b` distributions `times` times, `[times * b, ...]`: row k * b + i is number i."""
        return DiagonalGaussian(repeated(self.mean, times), repeated(self.log_scale, times))


@dataclass(frozen=True)
class DiagonalMixture:
    """sum_m w_m N(mean_m, exp(log_scale_m)^2), diagonal: priors over latent vectors of `d` numbers.

    `mean` and `log_scale` are `[n, m, d]`, `log_weights` (normalised) `[n, m]`; each n is the number of rows,
    or 1 where all rows share a value. One component is a plain normal distribution.
    """

    mean: Tensor
    log_scale: Tensor
    log_weights: Tensor

    def log_prob(self, z: Tensor) -> Tensor:
        """log density of `z` `[b, d]`: `[b]`."""
        white = (z[:, None] - self.mean) * torch.exp(-self.log_scale)
        each = (-0.5 * white**2 - self.log_scale - 0.5 * LOG_2PI).sum(-1)
        return (self.log_weights + each).logsumexp(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`[n, d]`; n is the number of rows unless these are shared."""
        log_weights = self.log_weights.expand(n, -1)
        noise = normal_noise(self.mean.new_empty(n, self.mean.shape[2]), generator)
        if log_weights.shape[1] == 1:
            return self.mean[:, 0] + self.log_scale[:, 0].exp() * noise
        device = noise.device if generator is None else generator.device
        chosen = torch.multinomial(log_weights.exp().to(device), 1, generator=generator).to(noise.device)
        rows = torch.arange(n, device=noise.device)
        mean, log_scale = (t.expand(n, -1, -1)[rows, chosen[:, 0]] for t in (self.mean, self.log_scale))
        return mean + log_scale.exp() * noise

    def repeated(self, times: int) -> "DiagonalMixture":
        """Each row `times` times, in the order of `DiagonalGaussian.repeated`; shared values stay shared."""
        parts = (self.mean, self.log_scale, self.log_weights)
        return DiagonalMixture(*(t if len(t) == 1 else repeated(t, times) for t in parts))

    def rows(self, part: slice) -> "DiagonalMixture":
        """The distributions of some of the rows."""
        parts = (self.mean, self.log_scale, self.log_weights)
        return DiagonalMixture(*(t if len(t) == 1 else t[part] for t in parts))


def normal_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers of the shape, type and device of `like`, drawn on the generator's device."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def repeated(x: Tensor, times: int) -> Tensor:
    """The rows of `[b, ...]` `times` times over, `[times * b, ...]`: row k * b + i is number i."""
    return x.repeat(times, *[1] * (x.ndim - 1))


def gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """KL(q || p) per element, `[b, ...]`: log(s_p/s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2.

    >>> standard = DiagonalGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    >>> gaussian_kl(DiagonalGaussian(torch.ones(1, 2), torch.zeros(1, 2)), standard)
    tensor([[0.5000, 0.5000]])
    """
    variance_ratio = torch.exp(2 * (q.log_scale - p.log_scale))
    shift = (q.mean - p.mean) * torch.exp(-p.log_scale)
    return p.log_scale - q.log_scale + 0.5 * (variance_ratio + shift**2 - 1)


def kl_to_mixture(q: DiagonalGaussian, p: DiagonalMixture, z: Tensor) -> Tensor:
    """KL(q || p) `[b]` of latent vectors: closed form where p is one Gaussian, else estimated from `z` ~ q `[b, d]`."""
    if p.log_weights.shape[1] == 1:
        return gaussian_kl(q, DiagonalGaussian(p.mean[:, 0], p.log_scale[:, 0])).sum(1)
    return q.log_prob(z) - p.log_prob(z)


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """log 1/K sum_k w_k of log-weights `[K, b]`, `[b]`: the IWAE bound; K = 1 is the ELBO's estimate."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def importance_weighted_stderr(log_weights: Tensor) -> Tensor:
    """Delta-method standard error of `importance_weighted_bound` `[b]`: sd(w) / (sqrt(K) mean(w)).

    NaN for a single weight, which says nothing about its own spread. The spread of few weights is itself
    uncertain: where one weight dwarfs the others it comes out too small.
    """
    if len(log_weights) < 2:
        return torch.full_like(log_weights[0], math.nan)
    weights = (log_weights - log_weights.amax(0)).exp()
    return weights.std(0) / (weights.mean(0) * len(weights) ** 0.5)


@dataclass(frozen=True)
class ImportanceBound:
    """The IWAE bound of `n` images and what it is made of, all float64 in nats.

    `nats` and its Monte-Carlo error `stderr` `[n]`; of every draw -log P(x|z) and log q(z|x) - log p(z), `[K, n]`.
    """

    nats: Tensor
    stderr: Tensor
    reconstruction_draws: Tensor
    kl_draws: Tensor

    @classmethod
    def of(cls, log_prob: Tensor, log_ratio: Tensor) -> "ImportanceBound":
        """From log P(x|z_k) and log q(z_k|x) - log p(z_k), both `[K, n]`."""
        log_prob, log_ratio = log_prob.double(), log_ratio.double()
        weights = log_prob - log_ratio
        return cls(
            importance_weighted_bound(weights), importance_weighted_stderr(weights), -log_prob, log_ratio
        )

    @property
    def reconstruction(self) -> Tensor:
        """Mean of -log P(x|z) `[n]`."""
        return self.reconstruction_draws.mean(0)

    @property
    def kl(self) -> Tensor:
        """Mean of log q(z|x) - log p(z) `[n]`."""
        return self.kl_draws.mean(0)

    @property
    def elbo(self) -> Tensor:
        """-(`reconstruction` + `kl`) `[n]`."""
        return -(self.reconstruction + self.kl)

    @classmethod
    def cat(cls, parts: Sequence["ImportanceBound"]) -> "ImportanceBound":
        """The bounds of all images of `parts`, in order."""
        if not parts:
            return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in (0, 0, (1, 0), (1, 0))))
        return cls(*(torch.cat([getattr(b, f.name) for b in parts], -1) for f in fields(cls)))

    @classmethod
    def over_classes(cls, each: Sequence["ImportanceBound"]) -> "ImportanceBound":
        """log 1/C sum_y P(x|y) from the bounds given each of C classes.

        Importance weights are unbiased, so their log-mean is a bound whatever their noise. The ELBO is the one with
        the q(y|x) of `class_shares`, whose KL to the uniform classes is part of `kl`.
        """
        nats, stderr, reconstruction, kl = (
            torch.stack([getattr(b, f.name) for b in each]) for f in fields(cls)
        )
        shares = class_shares(each)
        log_classes = math.log(len(each))
        spread = (nats.softmax(0) * stderr).square().sum(0).sqrt()
        of_class = torch.special.xlogy(shares, shares) + shares * log_classes
        return cls(
            nats.logsumexp(0) - log_classes,
            spread,
            (shares * reconstruction).sum(0),
            (shares * kl + of_class).sum(0),
        )

    def means(self) -> dict[str, float]:
        """Means over the images of `elbo`, `reconstruction` and `kl`, to be reported beside the bound."""
        return {name: getattr(self, name).mean().item() for name in ("elbo", "reconstruction", "kl")}


def class_shares(each: Sequence[ImportanceBound]) -> Tensor:
    """q(y|x) `[C, K, n]` for every draw: softmax over the classes of the mean ELBO of other draws.

    Draws are halved and each half's q comes from the other one, so that no noise is in its own exponent; with a single
    draw it is, and the ELBO over classes comes out too large, though never above the IWAE bound's own expectation.
    """
    elbo = torch.stack([-(b.reconstruction_draws + b.kl_draws) for b in each])
    half = elbo.shape[1] // 2
    if half == 0:
        return elbo.softmax(0)
    first, second = (part.mean(1, keepdim=True).softmax(0) for part in (elbo[:, :half], elbo[:, half:]))
    return torch.cat([second.expand(-1, half, -1), first.expand(-1, elbo.shape[1] - half, -1)], 1)


ACTIVE = 0.01
"""Activity above which a latent counts as in use."""


def activity(means: Tensor) -> Tensor:
    """Variance over images of each latent's posterior mean, `[n, ...]` to `[...]` (Burda et al. 2016, section 5.2).

    For a latent with a prior of its own (hierarchical models) `means` are relative to it and in its scale.

    >>> activity(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
    tensor([0., 1.])
    """
    return means.var(0, correction=0)


class KLWeighting(Configurable, ABC):
    """How the KL enters the objective; `progress` is the share of the training budget used, 0 to 1."""

    linear: ClassVar[bool] = False
    """Whether the term is a multiple of the KL of each example, so that importance weights can bear it."""

    @abstractmethod
    def __call__(self, kl: Tensor, progress: float) -> Tensor:
        """Groups' KL `[b, groups]` in nats to the weighted term `[b]`."""


@dataclass(frozen=True)
class ConstantBeta(KLWeighting):
    """beta * KL (Higgins et al. 2017); beta = 1 is the ELBO."""

    linear: ClassVar[bool] = True
    beta: NotNegative = 1.0
    """Weight of the KL."""

    @override
    def __call__(self, kl: Tensor, progress: float) -> Tensor:
        return self.beta * kl.sum(1)


@dataclass(frozen=True)
class WarmUp(KLWeighting):
    """beta rises linearly from 0 over the first `share` of the run (Sonderby et al. 2016)."""

    linear: ClassVar[bool] = True
    fraction: Share = 0.05
    """Share of the run in which the weight of the KL rises."""
    beta: NotNegative = 1.0
    """Weight of the KL afterwards."""

    @override
    def __call__(self, kl: Tensor, progress: float) -> Tensor:
        return self.beta * _ramp(progress, self.fraction) * kl.sum(1)


@dataclass(frozen=True)
class Cyclical(KLWeighting):
    """beta rises linearly over `rise` of each of `cycles` cycles, then stays (Fu et al. 2019, equation 6)."""

    linear: ClassVar[bool] = True
    cycles: Depth = 4
    """Cycles in the run."""
    rise: Share = 0.5
    """Share of a cycle in which the weight of the KL rises."""
    beta: NotNegative = 1.0
    """Weight of the KL at the end of a cycle."""

    def __call__(self, kl: Tensor, progress: float) -> Tensor:
        """`[b, groups]` to `[b]`; the end of the run counts as the end of the last cycle."""
        phase = progress * self.cycles % 1.0 if progress < 1 else 1.0
        return self.beta * _ramp(phase, self.rise) * kl.sum(1)


@dataclass(frozen=True)
class FreeBits(KLWeighting):
    """sum over groups of max(lambda, batch mean of KL) (Kingma et al. 2016, equation 15).

    A group below `nats_per_group` is not pressed any further, which keeps it from being switched off.
    """

    nats_per_group: NotNegative = 0.5
    """lambda, in nats."""

    def __call__(self, kl: Tensor, progress: float) -> Tensor:
        """`[b, groups]` to `[b]`, the same number for each example: the floor is one of means."""
        return kl.mean(0).clamp(min=self.nats_per_group).sum().expand(len(kl))


@dataclass(frozen=True)
class Capacity(KLWeighting):
    """gamma * |KL - C| with C rising linearly to `nats` over `share` of the run (Burgess et al. 2018, equation 8)."""

    nats: NotNegative = 25.0
    """The KL aimed at, in nats."""
    gamma: NotNegative = 10.0
    """Weight of the distance to it."""
    fraction: Share = 0.5
    """Share of the run in which the target rises."""

    @override
    def __call__(self, kl: Tensor, progress: float) -> Tensor:
        return self.gamma * (kl.sum(1) - self.nats * _ramp(progress, self.fraction)).abs()


@dataclass(frozen=True)
class Balanced(KLWeighting):
    """Groups weighted by their share of the KL during warm-up (Vahdat & Kautz 2020, NVAE, appendix A).

    gamma_g = G * kl_g / sum kl, with kl_g the batch mean without gradient: groups that say little are pressed
    less. After the first `share` of the run all weights are one.
    """

    fraction: Share = 0.3
    """Share of the run that is warm-up."""

    @override
    def __call__(self, kl: Tensor, progress: float) -> Tensor:
        if progress >= self.fraction:
            return kl.sum(1)
        mean = kl.detach().mean(0)
        gamma = mean * len(mean) / mean.sum().clamp(min=1e-6)
        return progress / self.fraction * (gamma * kl).sum(1)


def _ramp(progress: float, fraction: float) -> float:
    """0 to 1 over the first `share`, then 1; no ramp at all where `share` is 0."""
    return 1.0 if progress >= fraction else progress / fraction
