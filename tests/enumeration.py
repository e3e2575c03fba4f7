"""Helpers of the tests: all images of a small space, and weights that are anything but special."""

import itertools

import torch
from torch import Tensor, nn

from genzoo.core.spec import DataSpec


def all_images(spec: DataSpec) -> Tensor:
    """Every image of the spec, uint8 `[levels ** dims, *shape]`."""
    values = list(itertools.product(range(spec.levels), repeat=spec.dims))
    return torch.tensor(values, dtype=torch.uint8).view(-1, *spec.shape)


def perturbed(module: nn.Module, scale: float = 0.3, seed: int = 0) -> nn.Module:
    """The module with normal noise added to every parameter: zero-initialised layers hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module
