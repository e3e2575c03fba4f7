"""Likelihood by the probability-flow ODE: the change of variables along a continuous normalising flow.

    dx_t/dt = v(x_t, t),    log p_t_min(x_t_min) = log N(x_1; 0, sigma(1)^2 I) + int_t_min^1 div v(x_t, t) dt

(Chen et al. 2018, theorem 1; Song et al. 2021, equation 39; Lipman et al. 2023, appendix C; time runs from data at
t = `t_min` to noise at t = 1). The model is what the ODE makes of N(0, sigma(1)^2 I); where alpha(1) is not quite
0, noised data differ a little from that, and the likelihood is charged for it. Its density of images is that of
x = x_t_min / alpha(t_min), so

    log p(x) = log p_t_min(alpha(t_min) x) + D log alpha(t_min).

Discrete images are dequantised (`genzoo.objectives.dequantisation`), which gives lower bounds in expectation;
the solver then adds an error of no known sign. So the kind is ESTIMATE, for the exact divergence too, and
`ode_bound` refuses to answer where a finer solution differs by more than 0.01 bits/dim.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torchdiffeq
from torch import Tensor
from typing_extensions import Self, override

from genzoo.core.bounds import BelowOne, Many, NotNegative, Positive
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood, bits_per_dim
from genzoo.core.spec import DataSpec
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.objectives.denoising.paths import Denoiser, GaussianPath, velocity_of
from genzoo.objectives.dequantisation import Dequantisation, UniformDequantisation
from genzoo.objectives.elbo import LOG_2PI, importance_weighted_bound, importance_weighted_stderr
from genzoo.objectives.likelihood.divergence import Divergence, Hutchinson, velocity_and_divergence
from genzoo.objectives.likelihood.protocol import Protocol

State = tuple[Tensor, ...]
"""x `[b, ...]` and the integral of the divergence `[b]`, both float64."""
Field = Callable[[Tensor, State], State]
"""The variable of integration, a float64 scalar, and the state to the state's derivative."""


# --- solvers -------------------------------------------------------------------------------------------------


class Solver(Configurable, ABC):
    """Integrates a field between two values of its variable."""

    @abstractmethod
    def solve(self, of: Field, state: State, start: float, end: float) -> State:
        """The state at `end`; raises `GenzooError` where it does not get there."""

    @abstractmethod
    def finer(self) -> Self:
        """The solver whose answer this one's is held against."""


@dataclass(frozen=True)
class DormandPrince(Solver):
    """Dormand-Prince 5(4) with adaptive steps, which all images of a batch share."""

    tolerance: Positive = 1e-5
    """Absolute and relative tolerance, of pixels and of nats."""
    most_steps: Many = 10_000
    """Steps, rejected ones included, after which it gives up."""

    def solve(self, of: Field, state: State, start: float, end: float) -> State:
        """By torchdiffeq, whose assertions become one line.

        Left alone it would step past the end, or start with a step that leads there: paths end at t = 1.
        """
        ends = torch.tensor([start, end], dtype=torch.float64, device=state[0].device)
        within = {"first_step": 0.01 * (end - start), "step_t": ends[1:]}
        options = {"max_num_steps": self.most_steps, **within}
        try:
            states = torchdiffeq.odeint(
                of, state, ends, rtol=self.tolerance, atol=self.tolerance, method="dopri5", options=options
            )
        except AssertionError as error:
            reason = str(error).split(":")[0]
            raise GenzooError(f"the ODE could not be solved ({reason}): use a larger first time") from error
        return tuple(s[-1] for s in states)

    def finer(self) -> Self:
        """A tenth of the tolerance."""
        return replace(self, tolerance=self.tolerance / 10)


@dataclass(frozen=True)
class RungeKutta4(Solver):
    """Fourth order with a fixed number of equal steps: images do not affect each other."""

    steps: int = 64
    """Steps of four evaluations each."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise GenzooError(f"a solver needs at least one step, got {self.steps}")

    def solve(self, of: Field, state: State, start: float, end: float) -> State:
        """By torchdiffeq (the 3/8 rule)."""
        ends = torch.tensor([start, end], dtype=torch.float64, device=state[0].device)
        grid = torch.linspace(start, end, self.steps + 1, dtype=torch.float64, device=state[0].device)
        grid[-1] = end
        options = {"grid_constructor": lambda _of, _state, _ends: grid}
        states = torchdiffeq.odeint(of, state, ends, method="rk4", options=options)
        return tuple(s[-1] for s in states)

    @override
    def finer(self) -> Self:
        return replace(self, steps=2 * self.steps)


# --- density -------------------------------------------------------------------------------------------------


class OdeDensity(NamedTuple):
    """log p in nats, float64 `[n]`, and the number of network evaluations it took."""

    nats: Tensor
    nfe: int


def ode_log_density(
    denoise: Denoiser,
    path: GaussianPath,
    x: Tensor,
    *,
    t_min: float,
    divergence: Divergence | None = None,
    solver: Solver | None = None,
    generator: torch.Generator | None = None,
) -> OdeDensity:
    """log p_t_min(x) of real `x` `[n, ...]` that stand at time `t_min` of `path`, in the network's type.

    By default one Hutchinson probe and `DormandPrince`. State and divergence are integrated in float64, the network is
    asked in the type of `x`. Raises `GenzooError` where the path has no finite velocity at `t_min` or the
    solver fails.
    """
    directions = (divergence or Hutchinson()).directions(x, generator)
    return _integrated(denoise, path, x, t_min, directions, solver or DormandPrince())


def _integrated(
    denoise: Denoiser, path: GaussianPath, x: Tensor, t_min: float, directions: Tensor, solver: Solver
) -> OdeDensity:
    """The variable of integration is u = sqrt(t): the noise of variance-preserving paths starts with sqrt(t), smooth in
    u."""
    _check_t_min(path, t_min)
    nfe = 0

    def of(u: Tensor, state: State) -> State:
        """d/du of x `[b, ...]` and of the integral `[b]` in nats: 2 u times their derivatives by t = u^2."""
        nonlocal nfe
        nfe += 1
        t = (u * u).expand(len(x))
        v, divergence = velocity_and_divergence(
            lambda x_t: velocity_of(denoise(x_t, t), path.at(t)), state[0].to(x.dtype), directions
        )
        return 2 * u * v.double(), 2 * u * divergence

    with torch.no_grad():
        start = (x.double(), torch.zeros(len(x), dtype=torch.float64, device=x.device))
        x_1, integral = solver.solve(of, start, math.sqrt(t_min), 1.0)
        nats = _log_noise(path, x_1) + integral
    if not nats.isfinite().all():
        raise GenzooError(
            "the ODE likelihood is not finite: use a larger first time, or a target other than noise at alpha(1) = 0"
        )
    return OdeDensity(nats, nfe)


def _check_t_min(path: GaussianPath, t_min: float) -> None:
    if not (0 <= t_min < 1 and all(c.isfinite() for c in path.at(torch.tensor(t_min, dtype=torch.float64)))):
        raise GenzooError(f"{path} has no finite velocity at t = {t_min}: start a little later, say at 1e-5")


def _log_noise(path: GaussianPath, x_1: Tensor) -> Tensor:
    """log N(x_1; 0, sigma(1)^2 I) `[n]`."""
    sigma = path.at(torch.ones((), dtype=torch.float64, device=x_1.device)).sigma
    return (-0.5 * (x_1 / sigma) ** 2 - sigma.log() - 0.5 * LOG_2PI).flatten(1).sum(1)


# --- images --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OdeProtocol(Protocol):
    """How an ODE likelihood is computed; all of it is reported with the figure.

    Raises `GenzooError` for importance weights without the exact divergence: Hutchinson's noise of s nats would
    be exponentiated and lift the "bound" by up to s^2 / 2.
    """

    t_min: BelowOne = 1e-5
    """Time at which the ODE starts."""
    solver: Solver = field(default_factory=DormandPrince)
    divergence: Divergence = field(default_factory=Hutchinson)
    dequantisation: Dequantisation = field(default_factory=UniformDequantisation)
    draws: int = 1
    """K: dequantised images, each with fresh probes, for every image."""
    importance_weighted: bool = False
    """log of the mean weight (Hoogeboom et al. 2020) in place of the mean of its log."""
    gate_bits: NotNegative = 0.01
    """Difference from the finer solution, in bits/dim, above which there is no answer."""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise GenzooError(f"an ODE likelihood needs at least one draw, got {self.draws}")
        if self.importance_weighted and not self.divergence.exact:
            raise GenzooError(
                f"importance weights need the exact divergence, not {self.divergence}: average the draws instead"
            )

    @property
    def kind(self) -> LikelihoodKind:
        """The solver's error has no known sign."""
        return LikelihoodKind.ESTIMATE

    @override
    def exponentiable(self, dims: int) -> bool:
        """With the exact divergence: p(x) / q(x) of a dequantised image is P in expectation."""
        return self.divergence.exact_for(dims)

    @override
    @in_plain_surroundings
    def check(self, path: GaussianPath) -> None:
        _check_t_min(path, self.t_min)

    @override
    def measure(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        images: Tensor,
        spec: DataSpec,
        generator: torch.Generator | None = None,
    ) -> LogLikelihood:
        return ode_bound(
            denoise, path, images, spec.levels, protocol=self, generator=generator
        ).as_log_likelihood(spec)

    def details(self, nfe: int) -> dict[str, Any]:
        """The protocol and the network evaluations per draw, as JSON-able values."""
        return {
            "estimator": "probability-flow ODE",
            "t_min": self.t_min,
            "solver": str(self.solver),
            "divergence": str(self.divergence),
            "dequantisation": str(self.dequantisation),
            "draws": self.draws,
            "importance_weighted": self.importance_weighted,
            "nfe": nfe,
        }


@dataclass(frozen=True)
class OdeLikelihood:
    """log P of each image in nats, float64 `[n]`; `stderr` `[n]` is over the draws, None for a single one."""

    nats: Tensor
    stderr: Tensor | None
    details: dict[str, Any]
    kind: LikelihoodKind = LikelihoodKind.ESTIMATE

    def as_log_likelihood(self, spec: DataSpec) -> LogLikelihood:
        """The same figures as a model of `spec` reports them."""
        return LogLikelihood(self.nats, self.kind, spec, self.stderr, self.details)


def ode_bound(
    denoise: Denoiser,
    path: GaussianPath,
    images: Tensor,
    levels: int | None,
    *,
    protocol: OdeProtocol | None = None,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> OdeLikelihood:
    """log P of integer `images` `[n, ...]`, whose x are `bin_centres`; with `levels` None log p of real ones.

    The network is asked in `dtype`. The first draw is solved twice, with the same noise: raises `GenzooError`
    where the finer solution differs by more than `protocol.gate_bits` per dimension in the mean over images.
    """
    protocol, log_weights, nfe = protocol or OdeProtocol(), [], []
    for k in range(protocol.draws):
        x, log_q = _dequantised(protocol, images, levels, generator)
        directions = protocol.divergence.directions(x.to(dtype), generator)
        density = _density_of_data(denoise, path, x.to(dtype), protocol, directions)
        if k == 0:
            finer = replace(protocol, solver=protocol.solver.finer())
            again = _density_of_data(denoise, path, x.to(dtype), finer, directions)
            spec = DataSpec(tuple(images.shape[1:]), levels)
            _require_convergence(density.nats - again.nats, spec, protocol)
        log_weights.append(density.nats - log_q)
        nfe.append(density.nfe)
    nats, stderr = over_draws(torch.stack(log_weights), protocol.importance_weighted)
    return OdeLikelihood(nats, stderr, protocol.details(round(sum(nfe) / len(nfe))))


def over_draws(log_weights: Tensor, importance_weighted: bool) -> tuple[Tensor, Tensor | None]:
    """From log p(x_k) - log q(x_k) `[K, n]` the estimate `[n]` of log P and its standard error, None for K = 1.

    The mean, or log 1/K sum_k exp: both are log P at most in expectation, the latter rises with K.
    """
    if importance_weighted:
        nats, stderr = importance_weighted_bound(log_weights), importance_weighted_stderr(log_weights)
        return nats, stderr if len(log_weights) > 1 else None
    nats = log_weights.mean(0)
    return nats, log_weights.std(0) / len(log_weights) ** 0.5 if len(log_weights) > 1 else None


def _dequantised(
    protocol: OdeProtocol, images: Tensor, levels: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """x `[n, ...]` and log q(x) `[n]`; real data are x already."""
    if levels is None:
        return images, torch.zeros(len(images), dtype=torch.float64, device=images.device)
    return protocol.dequantisation.draw(images, levels, generator)


def _density_of_data(
    denoise: Denoiser, path: GaussianPath, x: Tensor, protocol: OdeProtocol, directions: Tensor
) -> OdeDensity:
    """log p(x) = log p_t_min(alpha x) + D log alpha."""
    alpha = path.at(torch.tensor(protocol.t_min, dtype=torch.float64, device=x.device)).alpha
    x_t_min = x * alpha.to(x.dtype)
    density = _integrated(denoise, path, x_t_min, protocol.t_min, directions, protocol.solver)
    return OdeDensity(density.nats + x.shape[1:].numel() * alpha.log(), density.nfe)


def _require_convergence(difference: Tensor, spec: DataSpec, protocol: OdeProtocol) -> None:
    """The mean of absolute differences: errors of different images must not cancel."""
    bits = bits_per_dim(difference.abs(), spec).abs().mean().item()
    if not bits <= protocol.gate_bits:
        raise GenzooError(
            f"the ODE likelihood has not converged: {protocol.solver} and {protocol.solver.finer()} differ by "
            f"{bits:.3g} bits/dim, more than {protocol.gate_bits}: use a finer solver"
        )
