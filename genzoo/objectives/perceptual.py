"""How far apart images look: distances between the features that a network has of them.

    d(x, y) = sum_l mean_hw |f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)||^2            (Zhang et al. 2018, LPIPS, equation 1)

f_l are the feature maps of stage l, the norms run along channels, all stages and channels count alike. With the
features of a discriminator this is feature matching (Larsen et al. 2016; Wang et al. 2018, equation 4) on that scale.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from genzoo.core.passes import frozen

SMALL = 1e-10
"""Added to squared norms: where there are no features, there is no direction."""


class FeatureMaps(Protocol):
    """What sees images on the scale of bin centres (`genzoo.objectives.scale.Scale.centres`)."""

    def maps(self, x: Tensor, /) -> list[Tensor]:
        """Images `[b, c, h, w]` to features `[b, width, h', w']`, one entry per stage."""
        ...


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The distance `[b]` of two lists of maps `[b, width, h', w']`, from 0 to 4 per stage; in float32 or better.

    Raises `ValueError` for lists of different lengths.
    """
    stages = [(_directions(f) - _directions(g)).square().sum(1) for f, g in zip(a, b, strict=True)]
    return torch.stack([places.mean((1, 2)) for places in stages]).sum(0)


def perceptual_distance(features: FeatureMaps, real: Tensor, fake: Tensor) -> Tensor:
    """The distance `[b]` of images `[b, c, h, w]`, differentiable in `fake` and in nothing else."""
    maps = frozen_maps(features)
    with torch.no_grad():
        wanted = maps(real)
    return feature_distance(maps(fake), wanted)


def frozen_maps(features: FeatureMaps) -> Callable[[Tensor], list[Tensor]]:
    """`features.maps`; where a network gives them, its parameters get no gradient."""
    if not isinstance(features, nn.Module):
        return features.maps
    return cast(Callable[[Tensor], list[Tensor]], frozen(_Maps(features)))


class _Maps(nn.Module):
    """A network's feature maps as the output of a module, which is what can be frozen."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        return cast(FeatureMaps, self.network).maps(x)


def _directions(features: Tensor) -> Tensor:
    """Unit vectors along channels."""
    features = features if features.dtype == torch.float64 else features.float()
    return features * (features.square().sum(1, keepdim=True) + SMALL).rsqrt()
