"""The default feature space: what images show and how rough they are, side by side.

    encoder   the representations of a small network trained on these images, which tell shapes and kinds apart
    texture   energies of fixed small filters (`genzoo.nn.texture`), which tell clean pixels from stray ones

Either part is whitened by training images. Means over places of what a network learned hardly change where each pixel
is drawn on its own; energies of filters hardly know what an image shows. Together they rank sets of images as people
do: the choice of parts and numbers, and what lost, stand in benchmarks/RESULTS.md ("The default feature extractor").
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genzoo.core.spec import DataSpec
from genzoo.evaluation.features.feature_space import (
    CHUNK,
    FeatureSpace,
    bytes_hash,
    some_images,
    weights_hash,
)
from genzoo.evaluation.features.reduction import reduced
from genzoo.evaluation.features.whitening import Whitening
from genzoo.models.base import Encoder
from genzoo.models.encoders.embedding import prepared
from genzoo.nn.texture import TextureEnergies

if TYPE_CHECKING:
    from genzoo.data.split import Split

WHITENED = 4000
"""Training images, at most, whose features set the whitening."""


@dataclass(frozen=True)
class PartSettings:
    """How features of one kind enter: as `Whitening.of` has it, times the square root of `total` / their number."""

    components: int
    shrinkage: float
    total: float
    """The same however many features there are: small and coloured images have other numbers of them."""


SHOWN = PartSettings(32, 0.1, 32.0)
"""What an encoder sees in an image."""
ROUGH = PartSettings(64, 1.0, 96.0)
"""The energies of its texture."""


def combined_space(encoder: Encoder, spec: DataSpec, train: "Split", name: str, file: str) -> FeatureSpace:
    """The space of an `encoder` of reduced images and of the texture of images of `spec`, whitened by `train`.

    `file` is the hash of the encoder's file, by which the encoder is known beside the hash of its weights. The space
    has an identity of its own, since figures depend on the settings too.
    """
    texture = TextureEnergies()

    def shown(images: Tensor) -> Tensor:
        return encoder.embed(reduced(images, spec).to(encoder.device)).cpu()

    def rough(images: Tensor) -> Tensor:
        return texture(prepared(images.cpu(), spec))

    images = some_images(train, WHITENED, seed=0)
    parts = [whitened(shown, images, SHOWN)]
    if rough(images[:1]).shape[1]:  # none where sides are below three pixels
        parts.append(whitened(rough, images, ROUGH))

    def embed(images: Tensor) -> Tensor:
        return torch.cat([part(images) for part in parts], 1)

    settings = f"{asdict(SHOWN)} {asdict(ROUGH)} {WHITENED}"
    return FeatureSpace(
        name, bytes_hash(f"{file} {settings}".encode()), embed(images[:1]).shape[1], embed,
        aliases=(file, weights_hash(encoder.state_dict())),
    )  # fmt: skip


def whitened(
    part: Callable[[Tensor], Tensor], images: Tensor, settings: PartSettings
) -> Callable[[Tensor], Tensor]:
    """A map from integer images to features `[n, d]` as one to whitened ones `[n, k]`; training `images` set how."""
    with torch.no_grad():
        found = torch.cat([part(some) for some in images.split(CHUNK)])
    whitening = Whitening.of(found, settings.components, settings.shrinkage)
    weight = math.sqrt(settings.total / whitening.width)
    return lambda images: weight * whitening(part(images))
