"""Feature spaces that no model had a part in, for Fréchet distances between sets of images.

Principal components of the images see position and shape, a convolutional network with random weights from a fixed
seed sees texture. They have no tie to natural photographs, so that they serve any source.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from genzoo.data.split import Split

COMPONENTS = 64
BASIS_IMAGES = 10_000


class RandomConvolutions(nn.Module):
    """Images `[n, c, h, w]` in [-1, 1] to `[n, 64]`: three strided layers with orthogonal weights, never trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels, 32, 64, COMPONENTS]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain=2**0.5)  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        """The mean over places of the last layer."""
        for layer in self.layers:
            x = F.relu(layer(x))
        return x.mean((2, 3))


@dataclass(frozen=True)
class FeatureSpace:
    """A fixed map from integer images `[n, c, h, w]` to features `[n, 64]`, scaled to unit mean variance on data."""

    name: str
    network: nn.Module
    largest: float
    scale: float = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        """Float64 on the processor."""
        with torch.no_grad():
            parts = [self.network(2 * part.float() / self.largest - 1) for part in images.cpu().split(512)]
        return torch.cat(parts).double() * self.scale

    @classmethod
    def all_for(cls, split: "Split", basis_images: int = BASIS_IMAGES) -> "list[FeatureSpace]":
        """Both spaces; their scale and the principal components come from so many images of `split`."""
        images = some_images(split, basis_images, seed=0)
        largest = float(max(1, int(images.max())))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            random = RandomConvolutions(images.shape[1])
        rows = (2 * images.float() / largest - 1).flatten(1).double()
        _, _, basis = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        principal = nn.Linear(rows.shape[1], min(COMPONENTS, len(basis)), bias=False)
        principal.weight.data = basis[:COMPONENTS].float()
        spaces = [
            cls("pixel components", nn.Sequential(nn.Flatten(), principal), largest),
            cls("random convolutions", random, largest),
        ]
        return [replace(s, scale=s(images).var(0).mean().rsqrt().item()) for s in spaces]


def some_images(split: "Split", n: int, seed: int) -> Tensor:
    """`n` images of the split (all, if it has fewer) in a fixed random order."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:n]
    return split.batch(order).images
