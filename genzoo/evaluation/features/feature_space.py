"""Feature spaces: fixed maps from images to vectors, in which sets of images are compared.

A space is told by its name, its width and the hash of what made it, so that a report can name it. A trained
encoder sees what its data are about. Two spaces need no training: principal components of the images see position and
shape, a convolutional network with random weights from a fixed seed sees texture (Naeem et al. 2020, section 4.3). All
are scaled so that their features have unit variance on average over dimensions and data: figures then have one scale.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.errors import GenzooError
from genzoo.models.base import Encoder

if TYPE_CHECKING:
    from genzoo.data.split import Split

COMPONENTS = 64
BASIS_IMAGES = 10_000
CHUNK = 512
"""Images that go through a network at once."""
DIGITS = 16
"""Hexadecimal digits of a hash."""


@final
@dataclass(frozen=True)
class FeatureSpace:
    """A fixed map from integer images `[n, c, h, w]` to features `[n, width]`.

    `identity` is a hash of what made it, `aliases` are further hashes of the same network; `embed` maps some hundred
    images at once.
    """

    name: str
    identity: str
    width: int
    embed: Callable[[Tensor], Tensor]
    scale: float = 1.0
    aliases: tuple[str, ...] = ()

    def features(self, images: Tensor) -> Tensor:
        """Integer images `[n, c, h, w]` to float32 `[n, width]` on the processor, `CHUNK` at a time.

        Raises `GenzooError` where an image has features that are not finite, or where images do not fit the space.
        """
        with torch.no_grad():
            parts = [self.embed(part).float().cpu() * self.scale for part in images.split(CHUNK) if len(part)]
        features = torch.cat([torch.zeros(0, self.width), *parts])
        if not bool(features.isfinite().all()):
            raise GenzooError(
                f"the feature extractor {self.name} ({self.identity}) gives features that are NaN or infinite: "
                "take another --features"
            )
        return features

    def __call__(self, images: Tensor) -> Tensor:
        """`features` in float64."""
        return self.features(images).double()

    def scaled_to(self, images: Tensor) -> "FeatureSpace":
        """The space whose features of `images` have unit variance on average; unchanged where they are all alike."""
        if len(images) < 2:
            return self
        variance = self(images).var(0).mean().item()
        return replace(self, scale=self.scale * variance**-0.5) if variance > 0 else self

    @staticmethod
    def all_for(split: "Split", basis_images: int = BASIS_IMAGES) -> "list[FeatureSpace]":
        """Both untrained spaces, from so many images of `split`."""
        return [pixel_space(split, basis_images), random_space(split, basis_images)]


# --- untrained spaces ------------------------------------------------------------------------------------------


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


def pixel_space(split: "Split", basis_images: int = BASIS_IMAGES) -> FeatureSpace:
    """The first 64 principal components of so many images of `split`."""
    images = some_images(split, basis_images, seed=0)
    largest = _largest(images)
    rows = _rescaled(images, largest).flatten(1).double()
    _, _, basis = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    principal = nn.Linear(rows.shape[1], min(COMPONENTS, len(basis)), bias=False)
    principal.weight.data = basis[:COMPONENTS].float()
    network = nn.Sequential(nn.Flatten(), principal)
    return _network_space("pixel components", network, principal.out_features, largest).scaled_to(images)


def random_space(split: "Split", basis_images: int = BASIS_IMAGES) -> FeatureSpace:
    """Random convolutions; so many images of `split` set their scale."""
    images = some_images(split, basis_images, seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RandomConvolutions(images.shape[1])
    space = _network_space("random convolutions", network, COMPONENTS, _largest(images))
    return space.scaled_to(images)


def _network_space(name: str, network: nn.Module, width: int, largest: float) -> FeatureSpace:
    def embed(images: Tensor) -> Tensor:
        return network(_rescaled(images.cpu(), largest))

    return FeatureSpace(name, weights_hash(network.state_dict(), f"{largest:g}"), width, embed)


def _largest(images: Tensor) -> float:
    return float(max(1, int(images.max())))


def _rescaled(images: Tensor, largest: float) -> Tensor:
    """Integers 0 .. largest to [-1, 1]."""
    return 2 * images.float() / largest - 1


# --- trained spaces --------------------------------------------------------------------------------------------


def encoder_space(encoder: Encoder, name: str, identity: str | None = None) -> FeatureSpace:
    """The representations of a trained encoder; its identity is the hash of its file, else that of its weights."""
    own = weights_hash(encoder.state_dict())

    def embed(images: Tensor) -> Tensor:
        return encoder.embed(images.to(encoder.device))

    return FeatureSpace(name, identity or own, encoder.width, embed, aliases=(own,))


def weights_hash(weights: Mapping[str, Tensor], more: str = "") -> str:
    """Of names, shapes and values of tensors, whatever file they come from; 16 hexadecimal digits."""
    digest = hashlib.sha256(more.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def bytes_hash(content: bytes) -> str:
    """Of a file's content; 16 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


# --- images ----------------------------------------------------------------------------------------------------


def some_images(split: "Split", n: int, seed: int) -> Tensor:
    """`n` images of the split (all, if it has fewer) in a fixed random order."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:n]
    return split.batch(order).images
