"""The denoiser of discrete data, by Bayes' rule: what the network expects, times what the noisy pixel itself says.

A network that sees x_t gives each sub-pixel a distribution over its levels, and

    P(k | x_t) ~ exp(logit_k) N(x_t; alpha c_k, sigma^2),    x = sum_k c_k P(k | x_t)

with c_k the bin's centre. Where noise is small next to a bin, the second factor rounds to the level exactly, which a
network that predicts a number must learn to do; where it is large, only the first counts. If the logits did not
depend on x_t, the variational bound would be exactly the log-probability that they give the image (by the relation
of Guo, Shamai & Verdu 2005 between information and squared error), so that training starts from log2(levels) bits and
every bit of context counts from the first step. Bayesian flow networks (Graves et al. 2023, section 4) predict levels
likewise, without the second factor.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from genzoo.objectives.denoising.paths import Coefficients, append_dims
from genzoo.objectives.dequantisation import bin_centres


def expected_levels(logits: Tensor, x_t: Tensor, path: Coefficients, levels: int) -> Tensor:
    """x `[b, c, ...]`: the posterior mean of each sub-pixel of `x_t` `[b, c, ...]`.

    `logits` `[b, c * levels, ...]` in any precision, channel by channel; the arithmetic is in float32 at least.
    """
    wide = torch.promote_types(x_t.dtype, torch.float32)
    centres = bin_centres(torch.arange(levels, device=x_t.device), levels, dtype=wide)
    grouped = logits.unflatten(1, (x_t.shape[1], levels)).movedim(2, -1)
    x_t = x_t.to(wide)
    alpha, precision = append_dims(path.alpha, x_t), append_dims(path.sigma**-2, x_t)
    with torch.autocast(x_t.device.type, enabled=False):  # the product with the centres needs all digits
        return _PosteriorMean.apply(grouped, x_t, alpha, precision, centres)


class _PosteriorMean(torch.autograd.Function):
    """Written out, because autograd would keep and pass over `[b, c, ..., levels]` twice as often."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, x_t: Tensor, alpha: Tensor, precision: Tensor, centres: Tensor
    ) -> Tensor:
        """Mean `[...]` of `centres` c `[levels]` under exp(logits - precision (x_t - alpha c)^2 / 2)."""
        energy = (x_t[..., None] - alpha[..., None] * centres).square_().mul_(-0.5 * precision[..., None])
        p = energy.add_(logits).softmax(-1)
        mean = p @ centres
        ctx.save_for_backward(p, mean, alpha * precision, centres)
        ctx.dtype = logits.dtype
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """d mean / d logit_k = p_k (c_k - mean); d mean / d x_t = alpha precision times the posterior variance."""
        p, mean, gain, centres = ctx.saved_tensors
        by_logit = (centres - mean[..., None]).mul_(p)
        of_x_t = (by_logit @ centres) * gain * grad if ctx.needs_input_grad[1] else None
        return by_logit.mul_(grad[..., None]).to(ctx.dtype), of_x_t, None, None, None
