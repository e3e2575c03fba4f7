"""Priors over latent vectors: networks that give the components of a Gaussian mixture.

A prior is called with the condition and with the encoder, and returns means and log-scales `[n, m, d]` and
log-weights `[n, m]` of m components; n is the number of conditions, or 1 where the condition has no say.
Standard and conditional normal priors have one component.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genzoo.nn.layers import zeroed

WIDEST = 6.0
"""Largest |log scale|: keeps a step that went astray from overflowing."""

Encode = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""Features of images and embedded conditions to means and log-scales `[b, d]`."""
Components = tuple[Tensor, Tensor, Tensor]


class StandardNormal(nn.Module):
    """N(0, 1) whatever the condition."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(1, 1, latent_dim), persistent=False)

    def forward(self, cond: Tensor | None, encode: Encode) -> Components:
        """One component, shared by all rows."""
        return self.zero, self.zero, self.zero[:, :, 0]  # pyright: ignore


class ConditionalNormal(nn.Module):
    """N(mean(cond), scale(cond)^2), standard at the start (Sohn et al. 2015)."""

    def __init__(self, latent_dim: int, cond_width: int) -> None:
        super().__init__()
        self.head = zeroed(nn.Linear(cond_width, 2 * latent_dim))

    def forward(self, cond: Tensor | None, encode: Encode) -> Components:
        """One component per condition of `cond` `[b, cond_width]`."""
        mean, log_scale = gaussian_parameters(self.head(cond))
        return mean[:, None], log_scale[:, None], mean.new_zeros(len(mean), 1)


class MixturePrior(nn.Module):
    """Mixture of `components` learned Gaussians; a condition chooses their weights.

    As cheap as one Gaussian, where a VampPrior runs the encoder on every pseudo-input in every step.
    """

    def __init__(self, latent_dim: int, components: int, cond_width: int = 0) -> None:
        super().__init__()
        self.mean = nn.Parameter(
            0.5 * torch.randn(1, components, latent_dim)
        )  # apart, or they would stay equal
        self.log_scale = nn.Parameter(torch.zeros(1, components, latent_dim))
        self.logits = None if cond_width else nn.Parameter(torch.zeros(1, components))
        self.weights = zeroed(nn.Linear(cond_width, components)) if cond_width else None

    def forward(self, cond: Tensor | None, encode: Encode) -> Components:
        """The components are shared by all rows, their weights are too or follow the condition."""
        logits = self.logits if self.weights is None else self.weights(cond)
        log_scale = WIDEST * torch.tanh(self.log_scale / WIDEST)
        assert logits is not None  # one of the two there is
        return self.mean, log_scale, logits.to(self.mean.dtype).log_softmax(1)


class VampPrior(nn.Module):
    """Mixture of the encoder's posteriors of learned pseudo-inputs (Tomczak & Welling 2018, equation 9).

    Pseudo-inputs live in the encoder's feature space, bounded to [-1, 1]. In a conditional model each comes
    with a pseudo-condition, and the condition at hand chooses the weights of the components.
    """

    def __init__(self, features: tuple[int, ...], components: int, cond_width: int = 0) -> None:
        super().__init__()
        self.inputs = nn.Parameter(torch.randn(components, *features))
        self.conditions = nn.Parameter(torch.randn(components, cond_width)) if cond_width else None
        self.weights = zeroed(nn.Linear(cond_width, components)) if cond_width else None

    def forward(self, cond: Tensor | None, encode: Encode) -> Components:
        """The components are shared by all rows, their weights are uniform or follow the condition."""
        mean, log_scale = encode(self.inputs.tanh(), self.conditions)
        logits = mean.new_zeros(1, len(mean)) if self.weights is None else self.weights(cond).to(mean.dtype)
        return mean[None], log_scale[None], logits.log_softmax(1)


def gaussian_prior(latent_dim: int, components: int, cond_width: int = 0) -> nn.Module:
    """A mixture of `components` Gaussians; for 0 one normal, which follows the condition if there is one."""
    if components:
        return MixturePrior(latent_dim, components, cond_width)
    return ConditionalNormal(latent_dim, cond_width) if cond_width else StandardNormal(latent_dim)


def gaussian_parameters(raw: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's output `[b, 2 d]` to mean and softly bounded log-scale `[b, d]`, in at least float32.

    >>> gaussian_parameters(torch.tensor([[1.0, 1000.0]]))
    (tensor([[1.]]), tensor([[6.]]))
    """
    raw = raw if raw.dtype == torch.float64 else raw.float()
    mean, log_scale = raw.chunk(2, 1)
    return mean, WIDEST * torch.tanh(log_scale / WIDEST)
