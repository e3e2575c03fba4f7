"""The divergence of a velocity field v: exact for small images, Hutchinson's estimate for others.

    div v = tr J = E[e^T J e],  J = dv/dx,  E[e e^T] = 1        (Hutchinson 1990; Grathwohl et al. 2019, equation 7)

Both are sums of e^T J e over some directions e; the directions of a trajectory are drawn once, before it starts,
so that the solver integrates one and the same field.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from genzoo.core.bounds import Many, OptionalMany
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError


class Divergence(Configurable, ABC):
    """div v = sum over directions e of e^T J e, one vector-Jacobian product each; J is the Jacobian of v."""

    exact: bool
    """Whether the sum is the divergence itself for all data, or only in expectation."""

    def exact_for(self, dims: int) -> bool:
        """Whether it is so for data of `dims` dimensions."""
        return self.exact

    @abstractmethod
    def directions(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """`[m, b or 1, ...]` for `x` `[b, ...]`; they stay the same along a whole trajectory."""


@dataclass(frozen=True)
class ExactDivergence(Divergence):
    """One direction per dimension: D products for each evaluation, so for small images."""

    exact = True

    def directions(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The unit vectors `[D, 1, ...]`."""
        dims = x.shape[1:].numel()
        return torch.eye(dims, dtype=x.dtype, device=x.device).view(dims, 1, *x.shape[1:])


@dataclass(frozen=True)
class Hutchinson(Divergence):
    """Rademacher directions: unbiased for log p, though not for p (Hutchinson 1990; Grathwohl et al. 2019)."""

    probes: int = 1
    """Random directions for each image."""

    exact = False

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise GenzooError(f"Hutchinson's estimator needs at least one probe, got {self.probes}")

    def directions(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Signs `[probes, b, ...]` over sqrt(probes), so that the sum is a mean."""
        device = x.device if generator is None else generator.device
        bits = torch.randint(2, (self.probes, *x.shape), generator=generator, device=device)
        return (2 * bits - 1).to(x) / math.sqrt(self.probes)


@dataclass(frozen=True)
class ExactIfSmall(Divergence):
    """Exact for data of few dimensions, Hutchinson's estimator for all others."""

    most_dims: OptionalMany = 16
    """Up to so many dimensions it is exact; each costs a backward pass."""
    probes: Many = 1
    """Random directions for each image beyond."""

    exact = False

    @override
    def exact_for(self, dims: int) -> bool:
        return dims <= self.most_dims

    def directions(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Those of the one that applies."""
        exact = self.exact_for(x.shape[1:].numel())
        chosen = ExactDivergence() if exact else Hutchinson(self.probes)
        return chosen.directions(x, generator)


def velocity_and_divergence(
    velocity: Callable[[Tensor], Tensor], x: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """v(x) `[b, ...]` and its divergence float64 `[b]` from `directions` `[m, b or 1, ...]`, both detached.

    One product at a time, so memory is that of a single backward pass. Images must not affect each other.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for e in directions:
            (product,) = torch.autograd.grad(v, x, e.expand_as(v).contiguous(), retain_graph=True)
            total += (product * e).flatten(1).sum(1, dtype=torch.float64)
    return v.detach(), total
