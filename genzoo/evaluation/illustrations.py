"""Pictures of a model at work, of the families that have something to show: one protocol and one PNG each.

    reconstructions.png   images beside what their latents keep of them
    denoising.png         how samples come about, from noise to image
    interpolations.png    the way from one image, or latent, to another

A family that has none of these methods is shown by its samples alone.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from genzoo.core.spec import DataSpec
from genzoo.data.image_grid import save_grid
from genzoo.evaluation.latents import EncodesImages, first_images
from genzoo.models.base import GenerativeModel

if TYPE_CHECKING:
    from genzoo.data.split import Split

RECONSTRUCTIONS, DENOISING, INTERPOLATIONS = "reconstructions.png", "denoising.png", "interpolations.png"
RECONSTRUCTED, PAIRS_A_ROW = 32, 4
DENOISED = 4
INTERPOLATED, STATIONS = 4, 9
LOOKED_THROUGH = 200  # images, for two of each class


@runtime_checkable
class Reconstructing(Protocol):
    """A model that takes images `[n, c, h, w]` through its latents and back."""

    spec: DataSpec

    def reconstruct(self, images: Tensor, cond: Tensor | None = None) -> Tensor:
        """Images `[n, c, h, w]`."""
        ...


@runtime_checkable
class Denoising(Protocol):
    """A model that draws by leading noise to images."""

    spec: DataSpec

    def denoising_picture(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images `[rows, columns, c, h, w]` that show how `n` samples come about, from left to right."""
        ...


@runtime_checkable
class Interpolating(Protocol):
    """A model that knows a way between images; or, where it cannot encode any, between latents."""

    spec: DataSpec

    def interpolate(self, x_0: Tensor, x_1: Tensor, n: int, cond: Tensor | None = None) -> Tensor:
        """Images `[b, n, c, h, w]`, the ends included."""
        ...


@runtime_checkable
class Noisy(Protocol):
    """A model that draws the latents of its samples."""

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents `[n, ...]`."""
        ...


def illustrate(
    model: GenerativeModel, split: "Split", folder: Path, *, generator: torch.Generator | None = None
) -> list[Path]:
    """Writes into `folder` what there is to show of `model`, of the first images of `split`; returns the files.

    Conditions are those of the images. Writes nothing for real-valued data.
    """
    if model.spec.levels is None:
        return []
    pictures = {
        RECONSTRUCTIONS: _reconstructions(model, split),
        DENOISING: _denoising(model, split, generator),
        INTERPOLATIONS: _interpolations(model, split, generator),
    }
    written = []
    for name, picture in pictures.items():
        if picture is not None:
            rows, spec = picture
            written.append(folder / name)
            save_grid(rows.flatten(0, 1), spec, written[-1], columns=rows.shape[1], inside=folder)
    return written


Picture = tuple[Tensor, DataSpec]
"""Images `[rows, columns, c, h, w]`, and what they are images of."""


def _reconstructions(model: object, split: "Split") -> Picture | None:
    """Pairs of image and reconstruction."""
    if not isinstance(model, Reconstructing):
        return None
    images, cond = first_images(model.spec, split, RECONSTRUCTED)
    shown = model.reconstruct(images, cond)
    pairs = torch.stack([images.to(shown), shown], 1).flatten(0, 1)
    columns = 2 * min(PAIRS_A_ROW, len(images))
    whole = pairs[: len(pairs) // columns * columns]
    return whole.view(-1, columns, *model.spec.shape), model.spec


def _denoising(model: object, split: "Split", generator: torch.Generator | None) -> Picture | None:
    if not isinstance(model, Denoising):
        return None
    images, cond = first_images(model.spec, split, DENOISED)
    return model.denoising_picture(len(images), cond, generator=generator), model.spec


def _interpolations(model: object, split: "Split", generator: torch.Generator | None) -> Picture | None:
    """Between images of one condition; between latents where the model cannot tell those of an image."""
    if not isinstance(model, Interpolating):
        return None
    if isinstance(model, EncodesImages):
        starts, goals, cond = _pairs(model.spec, split)
    elif isinstance(model, Noisy):
        images, cond = first_images(model.spec, split, INTERPOLATED)
        starts, goals = (model.noise(len(images), generator) for _ in range(2))
    else:
        return None
    return (model.interpolate(starts, goals, STATIONS, cond), model.spec) if len(starts) else None


def _pairs(spec: DataSpec, split: "Split") -> tuple[Tensor, Tensor, Tensor | None]:
    """Images `[b, c, h, w]` to go from and to: of classes two of each, else whatever comes; and their conditions."""
    images, cond = first_images(spec, split, LOOKED_THROUGH)
    places = torch.arange(len(images))
    kinds = [places] if cond is None or spec.cond != "class" else [places[cond == c] for c in cond.unique()]
    each = [kind[: len(kind) // 2 * 2].view(-1, 2) for kind in kinds]
    shares = each if len(each) == 1 else [pairs[:1] for pairs in each]
    starts, goals = torch.cat(shares)[:INTERPOLATED].unbind(1)
    return images[starts], images[goals], None if cond is None else cond[starts]
