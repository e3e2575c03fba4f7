"""Learning to take long steps: the self-consistency of shortcut models.

    s(x_t, t, d) = average velocity from t back to t - d:   x_{t-d} = x_t - d s(x_t, t, d)
    s(x_t, t, 0) = E[dx_t/dt | x_t]                                             (flow matching)
    s(x_t, t, d) = 1/2 s(x_t, t, d/2) + 1/2 s(x_{t-d/2}, t - d/2, d/2)          (one step is two half steps)

Frans, Hafner, Levine & Abbeel 2024, "One Step Diffusion via Shortcut Models", equations 4 and 5; there time runs from
noise to data. Lengths are 2^k / `finest`: a half step of 1 / finest is asked for as d = 0, so that the solution of
all equations together is Euler's method in `finest` steps along the flow. Consistency alone is solved by any constant
s; it is flow matching that says where to go.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.paths import append_dims

AverageVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""s: x_t `[b, ...]`, times and lengths float64 `[b]` to the average velocity `[b, ...]` back to t - d."""


class Stretches(NamedTuple):
    """From `times` back to `times - lengths`, both float64 `[n]`."""

    times: Tensor
    lengths: Tensor


def check_power_of_two(number: int, what: str, most: int | None = None) -> int:
    """`number` if it is 1, 2, 4 ... up to `most`; raises `GenzooError` about `what` otherwise."""
    if number < 1 or number & (number - 1) or (most is not None and number > most):
        limit = "" if most is None else f" up to {most}"
        raise GenzooError(f"{what} must be a power of two{limit}, got {number}")
    return number


def draw_stretches(n: int, finest: int, generator: torch.Generator | None = None) -> Stretches:
    """`n` stretches to bootstrap, on the generator's device: d in {2 / finest, ..., 1/2, 1}, t in {d, 2d, ..., 1}.

    All lengths are equally frequent, up to one (the first of them is random); t is uniform. These are the steps that
    sampling in 1, 2, 4 ... finest / 2 steps takes. `finest` is a power of two, 2 or more.
    """
    device = None if generator is None else generator.device
    kinds = check_power_of_two(finest, "the number of finest steps").bit_length() - 1
    first = torch.randint(kinds, (1,), generator=generator, device=device)
    doublings = 1 + (first + torch.arange(n, device=device)) % kinds
    lengths = torch.exp2(doublings.double()) / finest
    u = torch.rand(n, generator=generator, dtype=torch.float64, device=device)
    return Stretches(((u / lengths).floor() + 1) * lengths, lengths)


def draw_rows(n: int, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Which of `n` images are bootstrapped, bool `[n]` on the generator's device.

    As near to n * share of them as whole numbers come, and that many in expectation, so that small batches are not
    without.
    """
    device = None if generator is None else generator.device
    count = (n * share + torch.rand((), generator=generator, dtype=torch.float64, device=device)).floor()
    return torch.randperm(n, generator=generator, device=device) < count


def asked_length(lengths: Tensor, finest: int) -> Tensor:
    """What the network is told of `lengths` float64 `[...]`: the finest step counts as an instant, 0."""
    return torch.where(lengths * finest <= 1, 0.0, lengths)


def stepped_back(x_t: Tensor, velocity: Tensor, lengths: Tensor) -> Tensor:
    """x_{t-d} = x_t - d s `[b, ...]` for lengths d `[b]`."""
    return x_t - append_dims(lengths, x_t) * velocity


@torch.no_grad()
def bootstrap_target(average: AverageVelocity, x_t: Tensor, stretches: Stretches, finest: int) -> Tensor:
    """The average velocity `[b, ...]` over two half steps from `x_t` `[b, ...]`, a constant for the gradient.

    The second step starts where the first one leads (equation 4).
    """
    times, half = stretches.times, stretches.lengths / 2
    asked = asked_length(half, finest)
    first = average(x_t, times, asked)
    second = average(stepped_back(x_t, first, half), times - half, asked)
    return (first + second) / 2


def lead_back(average: AverageVelocity, x: Tensor, steps: int, finest: int) -> Tensor:
    """Data `[b, ...]` from noise `x` `[b, ...]` at t = 1, in `steps` equal steps of one network call each (alg. 2).

    Raises `GenzooError` where `steps` is not a power of two up to `finest`.
    """
    check_power_of_two(steps, "the number of sampling steps", finest)
    length = torch.full((len(x),), 1 / steps, dtype=torch.float64, device=x.device)
    asked = asked_length(length, finest)
    for k in range(steps, 0, -1):
        x = stepped_back(x, average(x, k * length, asked), length)
    return x
