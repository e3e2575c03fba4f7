"""Output distributions: the probability of one sub-pixel given a network's parameters.

Each turns parameters `[..., p]` into log-probabilities of the integers 0 .. levels-1 that sum to one exactly:
the decoders of VAEs, the heads of autoregressive models and the last term of diffusion bounds share them.
The parameters' last dimension holds the `p = n_params` numbers of a sub-pixel; every other dimension is a
batch dimension. All arithmetic is in at least float32, whatever precision the network ran in.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec

MOST_AT_ONCE = 2**21
"""Numbers that a sum over the edges between levels holds at once: 8 MiB in float32."""


class OutputDistribution(ABC):
    """A distribution over `levels` integers; frozen, stateless, its own configuration."""

    levels: int

    @property
    @abstractmethod
    def n_params(self) -> int:
        """Parameters per sub-pixel."""

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """log P(x) in nats: `[..., n_params]` and integers `[...]` to `[...]`."""

    @abstractmethod
    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Integers (long) `[...]` from `[..., n_params]`."""

    @abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """The expected level sum_v v P(v), float `[...]` in 0 .. levels-1: a sub-pixel without its noise."""

    def location(self, params: Tensor) -> Tensor:
        """A stand-in for the mean that is cheap enough for each step of a training, float `[...]`, differentiable.

        The mean itself but where that is a sum over all edges between levels.
        """
        return self.mean(params)


def as_images(values: Tensor, levels: int | None) -> Tensor:
    """Drawn or expected values as images come: whole numbers, uint8 where they fit, real data as they are."""
    if levels is None:
        return values
    values = values.round() if values.is_floating_point() else values
    return values.to(torch.uint8 if levels <= 256 else torch.long)


@dataclass(frozen=True)
class Bernoulli(OutputDistribution):
    """P(x = 1) = sigmoid(logit): binary images.

    >>> Bernoulli().log_prob(torch.zeros(3, 1), torch.tensor([0, 1, 1])).exp()
    tensor([0.5000, 0.5000, 0.5000])
    """

    levels: int = 2

    def __post_init__(self) -> None:
        if self.levels != 2:
            raise ValueError(f"a Bernoulli distribution has 2 levels, got {self.levels}")

    @property
    @override
    def n_params(self) -> int:
        return 1

    @override
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        logit = _at_least_float32(params)[..., 0]
        return F.logsigmoid(torch.where(x.bool(), logit, -logit))

    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One uniform number per sub-pixel, compared with P(x = 1)."""
        probability = _at_least_float32(params)[..., 0].sigmoid()
        return (_uniform(probability, generator) < probability).long()

    @override
    def mean(self, params: Tensor) -> Tensor:
        return _at_least_float32(params)[..., 0].sigmoid()


@dataclass(frozen=True)
class Categorical(OutputDistribution):
    """P(x = v) = softmax(logits)_v: few levels, or values without an order (codes of a quantiser)."""

    levels: int

    @property
    @override
    def n_params(self) -> int:
        return self.levels

    @override
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        logits = _at_least_float32(params)
        return logits.gather(-1, x.long()[..., None])[..., 0] - logits.logsumexp(-1)

    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """By inversion of the cumulative distribution: one uniform number per sub-pixel."""
        return _inverse_cdf(_at_least_float32(params).softmax(-1), generator)

    @override
    def mean(self, params: Tensor) -> Tensor:
        probabilities = _at_least_float32(params).softmax(-1)
        # no matrix product, which autocast would take in bf16
        return (probabilities * torch.arange(self.levels).to(probabilities)).sum(-1)


@dataclass(frozen=True)
class LogisticMixture(OutputDistribution):
    """Mixture of discretised logistics (PixelCNN++, Salimans et al. 2017, equation 2), for 8-bit images.

    Levels lie at the centres of equal bins of [-1, 1]; a component gives a bin the logistic mass between its
    edges, and the first and last bins take the tails, so the levels' probabilities sum to one exactly.
    With u = (upper edge - mean)/s and l = (lower edge - mean)/s the mass of an inner bin is computed as
    sigmoid(u) sigmoid(-l) (1 - exp(l - u)), which loses no digits far out in the tails.
    """

    levels: int = 256
    components: int = 10
    min_log_scale: float = -8.0
    """Smallest log s, in units where the image's range is 2: keeps gradients finite."""
    max_log_scale: float = 7.0
    """Largest log s, for the same reason: by then nearly all of the mass lies in the end bins."""

    @property
    def n_params(self) -> int:
        """A mixture logit, a mean and a log-scale per component."""
        return 3 * self.components

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """log sum_m pi_m (sigmoid(u_m) - sigmoid(l_m))."""
        logits, mean, inverse_scale = self._parts(params)
        half_bin = 1 / (self.levels - 1)
        x = x[..., None]
        offset = x.to(mean.dtype) * (2 * half_bin) - 1 - mean
        log_below = F.logsigmoid((offset + half_bin) * inverse_scale)  # log sigmoid(u)
        log_above = F.logsigmoid((half_bin - offset) * inverse_scale)  # log sigmoid(-l)
        log_width = torch.log(-torch.expm1(-2 * half_bin * inverse_scale))  # log(1 - exp(l - u))
        first, last = x == 0, x == self.levels - 1
        zero = torch.zeros((), dtype=mean.dtype, device=mean.device)
        log_mass = (
            torch.where(last, zero, log_below)
            + torch.where(first, zero, log_above)
            + torch.where(first | last, zero, log_width)
        )
        return torch.logsumexp(logits.log_softmax(-1) + log_mass, -1)

    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws a component, then a logistic value, then its bin: two uniform numbers per sub-pixel."""
        logits, mean, inverse_scale = self._parts(params)
        component = _inverse_cdf(logits.softmax(-1), generator)[..., None]
        mean, inverse_scale = mean.gather(-1, component)[..., 0], inverse_scale.gather(-1, component)[..., 0]
        tiny = torch.finfo(mean.dtype).eps
        value = mean + torch.logit(_uniform(mean, generator), eps=tiny) / inverse_scale
        return _nearest_level(value, self.levels)

    def mean(self, params: Tensor) -> Tensor:
        """sum_m pi_m sum_k sigmoid((mean_m - edge_k)/s_m) over the edges between levels."""
        logits, mean, inverse_scale = self._parts(params)
        each = _sum_over_edges(lambda edges: ((mean - edges) * inverse_scale).sigmoid(), mean, self.levels)
        return (logits.softmax(-1) * each).sum(-1)

    @override
    def location(self, params: Tensor) -> Tensor:
        """sum_m pi_m mean_m with means clamped to the range: as if components were narrow."""
        logits, mean, _ = self._parts(params)
        return ((logits.softmax(-1) * mean.clamp(-1, 1)).sum(-1) + 1) * ((self.levels - 1) / 2)

    def _parts(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mixture logits, means and 1/s, each `[..., components]`.

        At zero parameters the components tile the range, so an untrained head already covers every level.
        """
        logits, mean, log_scale = _at_least_float32(params).chunk(3, -1)
        tiles = (torch.arange(self.components, device=mean.device) + 0.5) * (2 / self.components) - 1
        log_scale = log_scale - math.log(2 * self.components)
        log_scale = log_scale.clamp(self.min_log_scale, self.max_log_scale)
        return logits, mean + tiles.to(mean.dtype), torch.exp(-log_scale)


@dataclass(frozen=True)
class DiscretisedGaussian(OutputDistribution):
    """A Gaussian whose mass between a bin's edges is the level's probability; the end bins take the tails.

    Levels lie as in `LogisticMixture`. With a fixed `scale` this is the decoder behind a squared error, given
    a proper probability; without, the scale is a second parameter (a sigma-VAE shares it between sub-pixels,
    Rybkin et al. 2021). With u and l a bin's edges in standard deviations, on the side where u + l <= 0,
    log(Phi(u) - Phi(l)) = log Phi(u) + log(1 - exp(log Phi(l) - log Phi(u))) keeps its digits in the tails.
    """

    levels: int = 256
    scale: float | None = None
    """Standard deviation where the image's range is 2; None: from the second parameter."""
    min_log_scale: float = -8.0
    """Smallest log of a learned standard deviation: keeps gradients finite."""
    max_log_scale: float = 0.7
    """Largest log of a learned standard deviation: wider ones would lose the bins in rounding."""

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale > 0:
            raise GenzooError(f"the scale of a Gaussian must be positive, got {self.scale}")

    @property
    def n_params(self) -> int:
        """A mean, and log(2 standard deviation) where it is not fixed."""
        return 2 if self.scale is None else 1

    @override
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        mean, scale = self._parts(params)
        half_bin = 1 / (self.levels - 1)
        offset = x.to(mean.dtype) * (2 * half_bin) - 1 - mean
        first, last = x == 0, x == self.levels - 1
        # mirrored to the lower tail; in an end bin only the edge that it has counts
        side = torch.where(last | ((offset > 0) & ~first), -1.0, 1.0).to(mean.dtype)
        upper = (side * offset + half_bin) / scale
        log_upper = _log_normal_cdf(upper)
        inner = ~(first | last)
        # the end bins get a lower edge all the same, so that no infinity enters the gradients
        log_lower = _log_normal_cdf((side * offset - half_bin) / scale)
        tiny = torch.finfo(mean.dtype).eps
        width = torch.log(-torch.expm1((log_lower - log_upper).clamp(max=-tiny)))
        return log_upper + torch.where(inner, width, torch.zeros_like(width))

    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws a normal value, then its bin."""
        mean, scale = self._parts(params)
        device = mean.device if generator is None else generator.device
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=device)
        return _nearest_level(mean + scale * noise.to(mean.device), self.levels)

    def mean(self, params: Tensor) -> Tensor:
        """sum_k Phi((mean - edge_k)/s) over the edges between levels."""
        mean, scale = self._parts(params)
        return _sum_over_edges(lambda edges: torch.special.ndtr((mean - edges) / scale), mean, self.levels)

    @override
    def location(self, params: Tensor) -> Tensor:
        """The Gaussian's own mean, clamped to the range: as if it were narrow."""
        return (self._parts(params)[0].clamp(-1, 1) + 1) * ((self.levels - 1) / 2)

    def _parts(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations; zero parameters are a wide Gaussian around mid-grey."""
        params = _at_least_float32(params)
        if self.scale is not None:
            return params[..., 0], torch.full_like(params[..., 0], self.scale)
        mean, log_scale = params.unbind(-1)
        return mean, (log_scale - math.log(2)).clamp(self.min_log_scale, self.max_log_scale).exp()


def output_distribution(name: str, spec: DataSpec, components: int = 10) -> OutputDistribution:
    """By name (bernoulli, categorical, logistics, gaussian), or "auto": what follows the spec's levels.

    2 levels: Bernoulli; up to 32: categorical; more: a mixture of discretised logistics.

    >>> output_distribution("auto", DataSpec((1, 8, 8), levels=17))
    Categorical(levels=17)
    """
    levels = spec.levels
    if levels is None:
        raise GenzooError("real-valued data have no discrete output distribution")
    if name == "auto":
        name = "bernoulli" if levels == 2 else "categorical" if levels <= 32 else "logistics"
    known = {
        "bernoulli": lambda: Bernoulli(levels),
        "categorical": lambda: Categorical(levels),
        "logistics": lambda: LogisticMixture(levels, components),
        "gaussian": lambda: DiscretisedGaussian(levels),
    }
    if name not in known:
        raise GenzooError(f"unknown output distribution {name!r}: choose auto, {', '.join(known)}")
    return known[name]()


def _log_normal_cdf(u: Tensor) -> Tensor:
    """log Phi(u); unlike those of `torch.special.log_ndtr` its gradients hold beyond u = -1000."""
    low, high = u.clamp(max=0), u.clamp(min=0)
    tail = torch.log(torch.special.erfcx(low * -math.sqrt(0.5)) / 2) - low**2 / 2
    return torch.where(u < 0, tail, torch.log1p(-torch.special.erfc(high * math.sqrt(0.5)) / 2))


def _sum_over_edges(above: Callable[[Tensor], Tensor], like: Tensor, levels: int) -> Tensor:
    """The expected level, sum_k P(x > edge_k), from `above(edges)`, P(x > edge) of edges that broadcast with `like`.

    It counts how many edges a value lies above, the open tails of the end bins included. A few edges at a time bound
    memory.
    """
    edges = (torch.arange(levels - 1, device=like.device, dtype=like.dtype) * 2 + 1) / (levels - 1) - 1
    at_once = max(1, MOST_AT_ONCE // max(1, like.numel()))
    total = torch.zeros_like(like)
    for part in edges.split(at_once):
        total = total + above(part.view(-1, *[1] * like.ndim)).sum(0)
    return total


def _nearest_level(value: Tensor, levels: int) -> Tensor:
    """Values where the image's range is [-1, 1] to the level (long) whose bin they lie in."""
    return ((value + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1).long()


def _at_least_float32(params: Tensor) -> Tensor:
    return params if params.dtype == torch.float64 else params.float()


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def _inverse_cdf(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """The first level whose cumulative probability exceeds a uniform number: `[..., k]` to long `[...]`."""
    cumulative = probabilities.cumsum(-1)
    u = _uniform(cumulative[..., 0], generator)[..., None] * cumulative[..., -1:]
    return (cumulative <= u).sum(-1).clamp(max=probabilities.shape[-1] - 1)
