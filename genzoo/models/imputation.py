"""Missing pixels of latent-variable models: Metropolis within Gibbs (Mattei & Frellsen 2018, algorithm 2).

A chain over (z, missing pixels) whose stationary distribution is P(z, missing | known). In each sweep z is
proposed by q(z|x) and accepted with probability min(1, w(z') / w(z)), w = P(x|z) p(z) / q(z|x), then the missing
pixels are drawn from P(x|z). Unlike pseudo-Gibbs, which always accepts, it needs no good encoder to be right.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError


def check_missing(missing: Tensor, images: Tensor) -> Tensor:
    """`missing` as bool of the shape of `images` `[b, ...]`; raises `GenzooError` where it does not broadcast."""
    try:
        return missing.to(torch.bool).expand(images.shape)
    except RuntimeError:
        raise GenzooError(
            f"missing must broadcast to the images {list(images.shape)}, got {list(missing.shape)}"
        ) from None


@dataclass(frozen=True)
class LatentChain:
    """What a chain needs of a model, for `b` images `x` `[b, c, h, w]`, latents `[b, d]` and parameters `[b, ...]`."""

    decode: Callable[[Tensor], Tensor]
    """Latents to the parameters of P(x|z)."""
    draw: Callable[[Tensor], Tensor]
    """Parameters to images drawn from P(x|z)."""
    propose: Callable[[Tensor], tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]]
    """Images to latents from q(z|x), and to log w as a function of latents and their parameters, `[b]`."""


def metropolis_within_gibbs(
    chain: LatentChain,
    images: Tensor,
    missing: Tensor,
    z: Tensor,
    *,
    sweeps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`images` with the pixels where `missing` is True drawn anew; `z` `[b, d]` is where the chains start.

    The more `sweeps`, the closer to P(missing | known).
    """
    params = chain.decode(z)
    x = torch.where(missing, chain.draw(params).to(images.dtype), images)
    for _ in range(sweeps):
        proposal, log_weight = chain.propose(x)
        proposed = chain.decode(proposal)
        gain = log_weight(proposal, proposed) - log_weight(z, params)
        accepted = _uniform(gain, generator).log() < gain
        z = torch.where(accepted[:, None], proposal, z)
        params = torch.where(accepted.view(-1, *[1] * (params.ndim - 1)), proposed, params)
        x = torch.where(missing, chain.draw(params).to(x.dtype), x)
    return x


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, device=device).to(like.device)
