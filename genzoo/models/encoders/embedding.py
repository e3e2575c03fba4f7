"""What every encoder does alike: images into its network, vectors out of it, and figures that show a collapse."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genzoo.core.errors import GenzooError
from genzoo.core.passes import decodings_per_pass, slices
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import evaluating
from genzoo.objectives.contrastive import directions, full
from genzoo.objectives.scale import Scale

if TYPE_CHECKING:
    from genzoo.models.base import Encoder


def embedded(encoder: "Encoder", network: nn.Module, images: Tensor) -> Tensor:
    """Integer images `[n, *spec.shape]` to `network`'s vectors, float32 `[n, encoder.width]`, on its device.

    In evaluation mode, without gradients and autocast, so many at once that memory is bounded. Raises `GenzooError` for
    images that do not fit the spec.
    """
    spec, device = encoder.spec, encoder.device
    check_images(images, spec)
    parts = [torch.zeros(0, encoder.width, device=device)]
    with evaluating(encoder), torch.autocast(device.type, enabled=False):
        for part in slices(len(images), decodings_per_pass(spec.dims)):
            parts.append(network(prepared(images[part].to(device), spec)).float())
    return torch.cat(parts)


def prepared(images: Tensor, spec: DataSpec) -> Tensor:
    """Integer images `[b, c, h, w]` as float32 in [-1, 1]; raises `GenzooError` for those that do not fit the spec."""
    return Scale(spec).centres(check_images(images, spec))


def check_discrete(spec: DataSpec) -> None:
    """Raises `GenzooError` where the data are no images of whole numbers."""
    if spec.levels is None:
        raise GenzooError("encoders take images of whole numbers, not real-valued data: give levels")


def classes_of(batch: Batch, learner: str) -> Tensor:
    """The labels, long `[b]`; raises `GenzooError` naming the `learner` where the batch has none."""
    if batch.cond is None or batch.cond.is_floating_point():
        found = "the data has none" if batch.cond is None else "the data has vectors in their place"
        raise GenzooError(
            f"{learner} learns from classes, but {found}: give (images, labels), or train simclr, which needs none"
        )
    return batch.cond


def collapse_figures(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Two views' embeddings `[b, d]`, of which `[b]` each: `agreement`, their cosine, and `dispersion`.

    The dispersion is that of the directions around their mean, 1 - |mean direction|^2, the same for all images: 0 where
    all embeddings point one way. Agreement near 1 without dispersion is a collapse.
    """
    a, b = directions(full(a.detach())), directions(full(b.detach()))
    mean = torch.cat([a, b]).mean(0)
    return {"agreement": (a * b).sum(1), "dispersion": (1 - mean.square().sum()).expand(len(a))}
