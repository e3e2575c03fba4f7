"""Paths through a latent space: straight and spherical interpolation, and traversals along the axes."""

import torch
from torch import Tensor


def interpolate_linearly(z_0: Tensor, z_1: Tensor, n: int) -> Tensor:
    """`n` points on the segment from `z_0` to `z_1` `[b, d]`, both ends included: `[b, n, d]`.

    >>> interpolate_linearly(torch.zeros(1, 1), torch.ones(1, 1), 3).flatten()
    tensor([0.0000, 0.5000, 1.0000])
    """
    t = _shares(z_0, n)
    return (1 - t) * z_0[:, None] + t * z_1[:, None]


def interpolate_spherically(z_0: Tensor, z_1: Tensor, n: int) -> Tensor:
    """Like `interpolate_linearly`, but along the great circle: sin((1-t) w)/sin w z_0 + sin(t w)/sin w z_1.

    w is the angle between the ends (Shoemake 1985; White 2016). The middle of two draws from a wide normal
    prior is then as long as a draw itself. Ends that lie on one line through 0 are joined by the segment.
    """
    t = _shares(z_0, n)
    cosine = torch.cosine_similarity(z_0, z_1, dim=1).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None, None]
    sine = angle.sin()
    flat = sine < 1e-4
    safe = torch.where(flat, torch.ones_like(sine), sine)
    first = torch.where(flat, 1 - t, ((1 - t) * angle).sin() / safe)
    second = torch.where(flat, t, (t * angle).sin() / safe)
    return first * z_0[:, None] + second * z_1[:, None]


def traverse(z: Tensor, dims: Tensor, values: Tensor) -> Tensor:
    """Copies of `z` `[d]` where one of the latents `dims` `[m]` takes one of its `values` `[m, n]`: `[m, n, d]`.

    >>> traverse(torch.zeros(2), torch.tensor([1]), torch.tensor([[-1.0, 1.0]]))
    tensor([[[ 0., -1.],
             [ 0.,  1.]]])
    """
    moved = z.expand(*values.shape, -1).clone()
    moved[torch.arange(len(dims)), :, dims] = values.to(z)
    return moved


def _shares(like: Tensor, n: int) -> Tensor:
    return torch.linspace(0, 1, n, dtype=like.dtype, device=like.device)[None, :, None]
