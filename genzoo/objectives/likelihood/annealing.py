"""Annealed importance sampling: log-evidence of latent-variable models, from below and from above.

    log p(x) = log E_start[ prod_i (f_{t_i} / f_{t_{i-1}})(z_{i-1}) ],   f_t(z) = start(z)^(1-t) p(x, z)^t

A chain starts from `start` (the prior, or an encoder's q(z|x)) and passes through temperatures
0 = t_0 < ... < t_T = 1; at each inner one a Hamiltonian transition leaves f_t invariant (Neal 2001, equations
10 and 11). The weights are unbiased, so their log-mean is a stochastic lower bound. The same chains run
backwards from an exact posterior sample give a stochastic upper bound; simulated data come with such a sample,
the z that made them: bidirectional Monte Carlo, BDMC (Grosse, Ghahramani & Adams 2015). Temperatures follow
Wu et al. 2017, "On the Quantitative Analysis of Decoder-Based Generative Models".

Densities are plain callables of `z [k, b, d]`, k chains for each of b observations, that give `[k, b]` in nats;
they must take any k. A VAE supplies prior, decoder and encoder, a GAN its generator and an observation model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import DataSpec
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.objectives.elbo import importance_weighted_bound, importance_weighted_stderr

LogDensity = Callable[[Tensor], Tensor]
"""Log-density in nats, normalised or not: `[k, b, d]` to `[k, b]`, differentiable."""
Sampler = Callable[[int, torch.Generator | None], Tensor]
"""Draws `[k, b, d]` for a number of chains k; the dtype it draws in is that of the chains."""


@dataclass(frozen=True)
class AnnealingPath:
    """The geometric path from a normalised `start` to the joint p(x, z): log f_t = log_start + t * log_ratio."""

    log_start: LogDensity
    log_ratio: LogDensity
    """log p(x, z) - log_start(z)."""
    sample_start: Sampler

    @classmethod
    def from_prior(cls, log_prior: LogDensity, log_likelihood: LogDensity, sample_prior: Sampler) -> Self:
        """From p(z): log f_t = log p(z) + t log p(x|z)."""
        return cls(log_prior, log_likelihood, sample_prior)

    @classmethod
    def from_encoder(
        cls, log_prior: LogDensity, log_likelihood: LogDensity, log_q: LogDensity, sample_q: Sampler
    ) -> Self:
        """From q(z|x): log f_t = (1 - t) log q(z|x) + t log p(x, z); a good encoder needs far fewer steps."""
        return cls(log_q, lambda z: log_prior(z) + log_likelihood(z) - log_q(z), sample_q)

    def at(self, t: float) -> LogDensity:
        """log f_t."""
        return lambda z: self.log_start(z) + t * self.log_ratio(z)


@dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo: how long a trajectory is and how its step size is found.

    Step sizes are tuned on `pilot_chains` chains of their own, each towards the wanted acceptance, and then
    fixed for each temperature and observation: adapting them within the weighted chains would make a transition
    depend on the chain's past, and the weights would no longer be unbiased.
    """

    leapfrog_steps: int = 10
    """Gradients per transition, less one."""
    step_size: float = 0.1
    """Where tuning starts."""
    acceptance: float = 0.65
    """The acceptance probability that tuning aims at (Neal 2011, section 5.4.4)."""
    adaptation: float = 0.1
    """Change of a log step size per transition and unit of acceptance too much."""
    pilot_chains: int = 4
    """Chains that tune step sizes; 0 keeps `step_size`."""
    pilot_transitions: int = 200
    """The least number of transitions of a pilot chain: with few temperatures it makes several at each."""

    def __post_init__(self) -> None:
        if self.leapfrog_steps < 1 or self.step_size <= 0 or self.pilot_chains < 0:
            raise GenzooError("HMC needs leapfrog_steps >= 1, step_size > 0 and pilot_chains >= 0")


@dataclass(frozen=True)
class Evidence:
    """log p(x) of each observation from forward chains: a stochastic lower bound.

    `nats` and `stderr` (delta method over chains; NaN for one chain) are float64 `[b]`, `log_weights` float64
    `[chains, b]`; `details` holds the protocol and the mean acceptance.
    """

    nats: Tensor
    stderr: Tensor
    log_weights: Tensor
    kind: LikelihoodKind = LikelihoodKind.LOWER_BOUND
    details: dict[str, Any] = field(default_factory=dict)

    def as_log_likelihood(self, spec: DataSpec) -> LogLikelihood:
        """The same figures as a model of `spec` reports them, where p(x|z) is a probability of whole images."""
        return LogLikelihood(self.nats, self.kind, spec, self.stderr, self.details)


@dataclass(frozen=True)
class BidirectionalBounds:
    """Stochastic bounds of log p(x) of simulated data, float64 `[b]` each: E[lower] <= log p(x) <= E[upper]."""

    lower: Tensor
    upper: Tensor
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        """The BDMC gap: mean of upper - lower in nats, in expectation at least the error of either."""
        return (self.upper - self.lower).mean().item()

    @property
    def gap_stderr(self) -> float:
        """Standard error of the gap over observations; NaN for a single one."""
        return ((self.upper - self.lower).std() / len(self.lower) ** 0.5).item()


class Trajectory(NamedTuple):
    """The end of a leapfrog trajectory, and the log-density `[k, b]` at its two ends."""

    z: Tensor
    velocity: Tensor
    log_density_before: Tensor
    log_density_after: Tensor


def sigmoid_temperatures(steps: int, sharpness: float = 4.0) -> Tensor:
    """0 = t_0 < ... < t_steps = 1, float64 `[steps + 1]`, dense at both ends (Wu et al. 2017, section 4.1).

    >>> sigmoid_temperatures(4)
    tensor([0.0000, 0.1050, 0.5000, 0.8950, 1.0000], dtype=torch.float64)
    """
    raw = torch.linspace(-sharpness, sharpness, steps + 1, dtype=torch.float64).sigmoid()
    return (raw - raw[0]) / (raw[-1] - raw[0])


def leapfrog(
    log_density: LogDensity, z: Tensor, velocity: Tensor, step_size: Tensor, steps: int
) -> Trajectory:
    """`steps` leapfrog steps of size `step_size` `[k, b]` for unit mass (Neal 2011, equations 2.28 to 2.30).

    Volume-preserving and reversible: from (z', -velocity') it leads back to (z, -velocity).
    """
    eps = step_size.to(z.dtype)[..., None]
    before, gradient = _value_and_gradient(log_density, z)
    after = before
    for _ in range(steps):
        velocity = velocity + 0.5 * eps * gradient
        z = z + eps * velocity
        after, gradient = _value_and_gradient(log_density, z)
        velocity = velocity + 0.5 * eps * gradient
    return Trajectory(z, velocity, before, after)


def hmc_transition(
    log_density: LogDensity, z: Tensor, step_size: Tensor, steps: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """One Metropolis-corrected trajectory from `z` `[k, b, d]`: the new state and P(accept) `[k, b]`.

    A trajectory that leaves the numbers (overflow, NaN) is rejected.
    """
    velocity = _random_like(torch.randn, z, generator)
    end = leapfrog(log_density, z, velocity, step_size, steps)
    kinetic = 0.5 * (velocity.square().sum(-1) - end.velocity.square().sum(-1))
    probability = (end.log_density_after - end.log_density_before + kinetic).exp().clamp(max=1)
    probability = torch.where(probability.isnan(), torch.zeros_like(probability), probability)
    accepted = _random_like(torch.rand, probability, generator) < probability
    return torch.where(accepted[..., None], end.z, z), probability


@in_plain_surroundings
def annealed_importance_sampling(
    path: AnnealingPath,
    *,
    chains: int = 16,
    steps: int = 1000,
    hmc: HMC | None = None,
    chunk: int = 16,
    generator: torch.Generator | None = None,
) -> Evidence:
    """log p(x) from `chains` forward chains of `steps` temperature steps, `chunk` chains at a time.

    One step is plain importance sampling from the start. Raises `GenzooError` for less than one chain or step.
    """
    run = _Run.prepared(path, chains, steps, hmc or HMC(), generator)
    log_weights = torch.cat([run.forward(k, generator) for k in _chunks(chains, chunk)])
    return Evidence(
        importance_weighted_bound(log_weights),
        importance_weighted_stderr(log_weights),
        log_weights,
        details=run.details(chains),
    )


@in_plain_surroundings
def bidirectional_monte_carlo(
    path: AnnealingPath,
    posterior_sample: Tensor,
    *,
    chains: int = 16,
    steps: int = 1000,
    hmc: HMC | None = None,
    chunk: int = 16,
    generator: torch.Generator | None = None,
) -> BidirectionalBounds:
    """Bounds of log p(x) of simulated data: `posterior_sample` `[b, d]` are the latents that made them.

    The upper bound is -log of the mean inverse weight of chains that run backwards from there. It holds only
    if z was drawn from the prior and x from p(x|z), or if z is otherwise an exact draw from p(z|x).
    """
    run = _Run.prepared(path, chains, steps, hmc or HMC(), generator)
    parts = _chunks(chains, chunk)
    forward = torch.cat([run.forward(k, generator) for k in parts])
    reverse = torch.cat([run.reverse(posterior_sample.expand(k, -1, -1), generator) for k in parts])
    return BidirectionalBounds(
        importance_weighted_bound(forward), -importance_weighted_bound(-reverse), run.details(chains)
    )


@dataclass
class _Run:
    """A path, its temperatures and step sizes; `acceptance` gathers the mean of every transition."""

    path: AnnealingPath
    temperatures: list[float]
    hmc: HMC
    step_sizes: list[Tensor]
    """For temperature i = 1 .. steps-1 the sizes `[b]` at index i - 1."""
    acceptance: list[float] = field(default_factory=list)

    @classmethod
    def prepared(
        cls, path: AnnealingPath, chains: int, steps: int, hmc: HMC, generator: torch.Generator | None
    ) -> Self:
        """Ready to run, with step sizes tuned by pilot chains."""
        if chains < 1 or steps < 1:
            raise GenzooError(f"annealing needs chains >= 1 and steps >= 1, got {chains} and {steps}")
        run = cls(path, sigmoid_temperatures(steps).tolist(), hmc, [])
        if steps > 1:
            run._tune(generator)
        return run

    def forward(self, chains: int, generator: torch.Generator | None) -> Tensor:
        """Log-weights float64 `[chains, b]` of chains from the start to the joint."""
        with torch.no_grad():
            z = self.path.sample_start(chains, generator)
            log_weights = self._increment(0, z)
            for i in range(1, len(self.temperatures) - 1):
                z = self._move(i, z, generator)
                log_weights = log_weights + self._increment(i, z)
        return log_weights.cpu()

    def reverse(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Log-weights float64 `[k, b]` of the forward chains whose time reversal starts from `z` `[k, b, d]`."""
        with torch.no_grad():
            last = len(self.temperatures) - 2
            log_weights = self._increment(last, z)
            for i in range(last, 0, -1):
                z = self._move(i, z, generator)
                log_weights = log_weights + self._increment(i - 1, z)
        return log_weights.cpu()

    def details(self, chains: int) -> dict[str, Any]:
        """The protocol, as JSON-able values."""
        mean = sum(self.acceptance) / len(self.acceptance) if self.acceptance else None
        return {
            "estimator": "annealed importance sampling",
            "chains": chains,
            "steps": len(self.temperatures) - 1,
            "leapfrog_steps": self.hmc.leapfrog_steps,
            "acceptance": mean,
        }

    def _increment(self, i: int, z: Tensor) -> Tensor:
        """log f_{t_{i+1}}(z) - log f_{t_i}(z)."""
        return (self.temperatures[i + 1] - self.temperatures[i]) * self.path.log_ratio(z).double()

    def _move(self, i: int, z: Tensor, generator: torch.Generator | None) -> Tensor:
        size = self.step_sizes[i - 1].expand(z.shape[:2])
        density = self.path.at(self.temperatures[i])
        z, probability = hmc_transition(density, z, size, self.hmc.leapfrog_steps, generator)
        self.acceptance.append(probability.mean().item())
        return z

    def _tune(self, generator: torch.Generator | None) -> None:
        """Anneals the pilot chains and keeps the geometric mean of their step sizes at every temperature."""
        hmc = self.hmc
        z = self.path.sample_start(max(1, hmc.pilot_chains), generator)
        log_size = torch.full_like(z[..., 0], hmc.step_size).log()
        inner = self.temperatures[1:-1]
        each = max(1, -(-hmc.pilot_transitions // len(inner)))
        for n, t in enumerate(inner):
            transitions = each if n else max(each, hmc.pilot_transitions // 2)  # the start may be far off
            for _ in range(transitions if hmc.pilot_chains else 0):
                step_size = log_size.exp()
                z, probability = hmc_transition(self.path.at(t), z, step_size, hmc.leapfrog_steps, generator)
                log_size = log_size + hmc.adaptation * (probability - hmc.acceptance)
            self.step_sizes.append(log_size.mean(0).exp())


def _value_and_gradient(log_density: LogDensity, z: Tensor) -> tuple[Tensor, Tensor]:
    """The log-density `[k, b]` and its gradient `[k, b, d]`, both detached."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_density(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def _random_like(draw: Callable[..., Tensor], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """torch.randn or torch.rand in the shape and type of `like`, on the generator's device, then moved."""
    device = like.device if generator is None else generator.device
    return draw(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def _chunks(count: int, size: int) -> list[int]:
    """`count` in parts of at most `size`."""
    return [min(size, count - start) for start in range(0, count, max(1, size))]
