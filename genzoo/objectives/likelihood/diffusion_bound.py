"""The variational lower bound of diffusion models on log P of discrete images, in nats.

    -log P(k) <= KL(q(x_1|x) || N(0, sigma(1)^2 I))                               prior
               + 1/2 int E|x - x_hat(x_t, t)|^2 dSNR(t)   over t from 1 to first  diffusion
               + E[-log P(k | x_t_min)]                                           decoder

(Kingma et al. 2021, "Variational Diffusion Models", equations 11 to 18), x being the `bin_centres` of the image. In
T steps the diffusion term is a sum over i of (SNR(t_{i-1}) - SNR(t_i)) / 2 E|x - x_hat|^2 (equation 13; Ho et al.
2020, equation 5), that is expm1(log SNR(t_{i-1}) - log SNR(t_i)) / 2 E|eps - eps_hat|^2. The decoder is VDM's softmax
over the levels, P(k | x_t_min) proportional to N(x_t_min / alpha; x_k, sigma^2 / alpha^2): normalised by
construction, with no clamp. All terms are unbiased, for any network whatever, so the kind is LOWER_BOUND.

Times are drawn uniformly in log(1 + SNR), where the integrand is

    (1 + SNR) |x - x_hat|^2 = |x - x_hat|^2 + |eps - eps_hat|^2,

bounded at both ends of every path (alpha(1) = 0 included), which -1/2 dlog SNR/dt |eps - eps_hat|^2 in t is not.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self, override

from genzoo.core.bounds import BelowOne, Many
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import DataSpec
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.objectives.denoising.paths import Denoiser, GaussianPath
from genzoo.objectives.dequantisation import bin_centres
from genzoo.objectives.elbo import normal_noise
from genzoo.objectives.likelihood.protocol import Protocol


@dataclass(frozen=True)
class DiffusionBound:
    """The terms of the bound in nats, float64 `[n]` each, with log P >= -(prior + diffusion + decoder).

    `stderr` `[n]` is the Monte-Carlo error of `diffusion` (the other terms have none), estimated from few stratified
    times, so itself uncertain: 0.75 to 1.3 of the true spread where that was measured; None for a single time.
    """

    prior: Tensor
    diffusion: Tensor
    decoder: Tensor
    stderr: Tensor | None
    details: dict[str, Any] = field(default_factory=dict)
    kind: LikelihoodKind = LikelihoodKind.LOWER_BOUND

    @property
    def nats(self) -> Tensor:
        """The bound on log P `[n]`."""
        return -(self.prior + self.diffusion + self.decoder)

    def as_log_likelihood(self, spec: DataSpec) -> LogLikelihood:
        """The bound as a model of `spec` reports it, with the means of its terms among the details."""
        terms = {name: getattr(self, name).mean().item() for name in ("prior", "diffusion", "decoder")}
        return LogLikelihood(self.nats, self.kind, spec, self.stderr, {**self.details, **terms})


@dataclass(frozen=True)
class BoundProtocol(Protocol):
    """`diffusion_bound`, as a model is asked for it."""

    t_min: BelowOne = 1e-4
    """Time of the last latent, which the decoder rounds."""
    steps: Many | None = None
    """T; None: continuous time."""
    times: Many | None = 16
    """Network evaluations per image; None: every step once."""

    @property
    @override
    def kind(self) -> LikelihoodKind:
        return LikelihoodKind.LOWER_BOUND

    @override
    def exponentiable(self, dims: int) -> bool:
        """The noise of the diffusion term is in the exponent."""
        return False

    @override
    @in_plain_surroundings
    def check(self, path: GaussianPath) -> None:
        _check(path, self.t_min, self.steps, self.times)

    def measure(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        images: Tensor,
        spec: DataSpec,
        generator: torch.Generator | None = None,
    ) -> LogLikelihood:
        """In float32; raises `GenzooError` for real-valued data, which have no levels to decode."""
        if spec.levels is None:
            raise GenzooError(
                "the diffusion bound needs integer images: use an OdeProtocol for real-valued data"
            )
        bound = diffusion_bound(
            denoise, path, images, spec.levels, t_min=self.t_min, steps=self.steps, times=self.times,
            generator=generator,
        )  # fmt: skip
        return bound.as_log_likelihood(spec)


def diffusion_bound(
    denoise: Denoiser,
    path: GaussianPath,
    images: Tensor,
    levels: int,
    *,
    t_min: float,
    steps: int | None = None,
    times: int | None = 16,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> DiffusionBound:
    """The bound for integer `images` `[n, ...]` of a model whose last latent is x at time `t_min`.

    `steps` None is continuous time, else T equal steps between `t_min` and 1 (DDPM's betas of N steps are T = N - 1
    from first = 1 / N). `times` is the number of network evaluations per image; None takes every step once, else
    steps are drawn by their part of log(1 + SNR).
    The network is asked in `dtype`. Raises `GenzooError` where sigma(first) is 0 or a prediction is not finite.
    """
    _check(path, t_min, steps, times)
    x, samples = bin_centres(images, levels, dtype), []
    distribution = (
        _Continuous(path, t_min) if steps is None else _Discrete.of(path, t_min, steps, every=times is None)
    )
    for u in stratified(len(x), times or steps or 1, generator).to(x.device):
        t, weight = distribution.at(u)
        samples.append(weight * denoising_error(denoise, path, x, t, normal_noise(x, generator)))
    diffusion, stderr = _mean_over_strata(torch.stack(samples))
    if not diffusion.isfinite().all():
        raise GenzooError(
            "the diffusion bound is not finite: the network's x or eps overflows; a target other than noise helps "
            "where alpha(1) = 0"
        )
    details = {"estimator": "diffusion bound", "t_min": t_min, "steps": steps, "times": len(samples)}
    decoder = decoder_table(path, t_min, levels).to(x.device)[images.long()].flatten(1).sum(1)
    return DiffusionBound(_prior(path, x), diffusion, decoder, stderr, details)


def denoising_error(denoise: Denoiser, path: GaussianPath, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """|x - x_hat|^2 float64 `[n]` of data and noise `[n, ...]` at times `t` `[n]`.

    Where the signal is the stronger it is had from the noise, as |eps - eps_hat|^2 / SNR: in float32 x_t - x_hat has
    few digits there. Either is the error of some denoiser, so the bound holds even if the two do not agree.
    """
    with torch.no_grad():
        prediction = denoise(path.mix(x, eps, t), t)
    of_x, of_eps = (
        (a - b).flatten(1).double().square().sum(1) for a, b in zip((x, eps), prediction, strict=True)
    )
    log_snr = path.log_snr(t)
    return torch.where(log_snr < 0, of_x, of_eps * torch.exp(-log_snr))


# --- decoder -------------------------------------------------------------------------------------------------


def level_log_probs(x_t_min: Tensor, path: GaussianPath, t_min: float, levels: int) -> Tensor:
    """log P(k | x_t_min) of every level, float64: `[...]` to `[..., levels]`."""
    alpha, sigma, _, _ = path.at(torch.tensor(t_min, dtype=torch.float64, device=x_t_min.device))
    centres = bin_centres(torch.arange(levels, device=x_t_min.device), levels)
    offset = (x_t_min.double()[..., None] - alpha * centres) / sigma
    return (-0.5 * offset**2).log_softmax(-1)


def decoder_table(path: GaussianPath, t_min: float, levels: int) -> Tensor:
    """E[-log P(k | x_t_min)] with x_t_min from the level k itself, float64 `[levels]` in nats.

    A one-dimensional integral over the noise, so there is no need of Monte Carlo: the trapezoid rule with steps of a
    tenth on [-10, 10] is exact to rounding for such smooth integrands.
    """
    alpha, sigma, _, _ = path.at(torch.tensor(t_min, dtype=torch.float64))
    eps = torch.linspace(-10, 10, 201, dtype=torch.float64)
    density = (-0.5 * eps**2).softmax(0)
    table = []
    for k, centre in enumerate(bin_centres(torch.arange(levels), levels)):
        log_probs = level_log_probs(alpha * centre + sigma * eps, path, t_min, levels)
        table.append(-(density * log_probs[:, k]).sum())
    return torch.stack(table)


# --- times -----------------------------------------------------------------------------------------------------


def stratified(n: int, strata: int, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers float64 `[strata, n]`, one of each image in every stratum [j / strata, (j + 1) / strata).

    Within a stratum the images are spread evenly (VDM's low-discrepancy times), each uniform on its own; the strata
    of one image are independent.
    """
    device = torch.device("cpu") if generator is None else generator.device
    offset = torch.rand(strata, 1, generator=generator, dtype=torch.float64, device=device)
    within = (offset + torch.arange(n, dtype=torch.float64, device=device) / max(n, 1)) % 1
    return (within + torch.arange(strata, dtype=torch.float64, device=device)[:, None]) / strata


class _Weighted(NamedTuple):
    """Times `[n]` and what |x - x_hat|^2 is multiplied by there, for an unbiased diffusion term."""

    t: Tensor
    weight: Tensor


@dataclass(frozen=True)
class _Continuous:
    """Times at which y = log(1 + SNR) is uniform; dSNR = (1 + SNR) dy."""

    path: GaussianPath
    t_min: float

    def at(self, u: Tensor) -> _Weighted:
        """From uniform numbers `[n]`."""
        ends = torch.tensor([self.t_min, 1.0], dtype=torch.float64, device=u.device)
        high, low = _log_one_plus_snr(self.path, ends)
        y = high + (low - high) * u
        log_snr = y + torch.log(-torch.expm1(-y))  # log(exp(y) - 1) without overflow
        return _Weighted(self.path.time_of(log_snr), 0.5 * (high - low) * y.exp())


@dataclass(frozen=True)
class _Discrete:
    """The ends of steps between the times `t` `[steps + 1]`, drawn with probabilities `shares` `[steps]`."""

    path: GaussianPath
    t: Tensor
    shares: Tensor

    @classmethod
    def of(cls, path: GaussianPath, t_min: float, steps: int, *, every: bool) -> Self:
        """With equal shares where every step is taken, else by their part of log(1 + SNR)."""
        t = torch.linspace(t_min, 1, steps + 1, dtype=torch.float64)
        shares = torch.ones(steps, dtype=torch.float64) if every else -_log_one_plus_snr(path, t).diff()
        return cls(path, t, shares / shares.sum())

    def at(self, u: Tensor) -> _Weighted:
        """From uniform numbers `[n]`, by inversion; weighted by the inverse probability."""
        t, shares = self.t.to(u.device), self.shares.to(u.device)
        i = torch.searchsorted(shares.cumsum(0), u, right=True).clamp(max=len(shares) - 1)
        snr = self.path.log_snr(t).exp()
        return _Weighted(t[i + 1], 0.5 * (snr[i] - snr[i + 1]) / shares[i])


def _log_one_plus_snr(path: GaussianPath, t: Tensor) -> Tensor:
    """log(1 + SNR) at times `t` `[...]`, 0 where no data are left."""
    return torch.logaddexp(torch.zeros_like(t), path.log_snr(t))


def _prior(path: GaussianPath, x: Tensor) -> Tensor:
    """KL(N(alpha x, sigma^2) || N(0, sigma^2)) = alpha^2 |x|^2 / (2 sigma^2) at t = 1."""
    alpha, sigma, _, _ = path.at(torch.ones((), dtype=torch.float64, device=x.device))
    return 0.5 * (alpha / sigma * x.double()).square().flatten(1).sum(1)


def _mean_over_strata(samples: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean of `[m, n]` over strata and its standard error, by differences of neighbours (None for m = 1).

    These hold the trend from one stratum to the next as well as the noise, which overstates the error; unequal
    noise in the strata can understate it.
    """
    m = len(samples)
    if m == 1:
        return samples[0], None
    variance = samples.diff(dim=0).square().sum(0) / (2 * (m - 1))
    return samples.mean(0), (variance / m).sqrt()


def _check(path: GaussianPath, t_min: float, steps: int | None, times: int | None) -> None:
    if not 0 <= t_min < 1 or not path.log_snr(torch.tensor(t_min, dtype=torch.float64)).isfinite():
        raise GenzooError(
            f"{path} has no noise at t = {t_min}: the bound's first time must be larger, say 1e-3"
        )
    given = [n for n in (times, steps) if n is not None]
    if not given or min(given) < 1:
        raise GenzooError(
            f"a diffusion bound needs times >= 1, or all of steps >= 1, got {times} and {steps}"
        )
