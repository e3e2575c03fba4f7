"""Predictions of images from input images, as pictures."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec, Images
from genzoo.data.pairs import luma
from genzoo.objectives.dequantisation import quantise
from genzoo.objectives.pixels import as_images

CHUNK = 256

PICTURED = 8


@runtime_checkable
class DrawsImages(Protocol):
    """What pictures need of a generative model."""

    spec: DataSpec

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        ...

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws `[n, *spec.shape]`."""
        ...


def translation_picture(
    model: DrawsImages,
    split: Images,
    indices: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Input, prediction and truth, integers `[8, 3, c, h, w]`, of the images at `indices` `[n]`, else the first eight.

    A grey input of a colour image is shown in grey, a coloured one of a grey image by its brightness.
    """
    indices = torch.arange(min(PICTURED, len(split))) if indices is None else indices
    predictions, truths, inputs = predicted_images(model, split, indices, generator)
    shown = input_images(inputs, model.spec)
    return torch.stack([shown, predictions, truths.to(predictions.dtype)], 1)


def input_images(inputs: Tensor, spec: DataSpec) -> Tensor:
    """Inputs `[n, c', h, w]` in [-1, 1] as integer images `[n, *spec.shape]`."""
    shown = inputs if inputs.shape[1] == spec.shape[0] else luma(inputs).expand(-1, spec.shape[0], -1, -1)
    assert spec.levels is not None
    return as_images(quantise(shown, spec.levels), spec.levels)


def predicted_images(
    model: DrawsImages, split: Images, indices: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, truths and inputs `[n, c', h, w]` on the processor, the model's chunks after each other."""
    spec = model.spec
    if spec.cond != "vector" or spec.levels is None or spec.cond_size % (spec.shape[1] * spec.shape[2]):
        raise GenzooError(
            "this model has no input images: train it with --cond mask, downsample, grey or edges"
        )
    predictions, truths, inputs = [], [], []
    for part in indices.split(CHUNK):
        images, cond = split.batch(part)
        if cond is None or cond.shape[1:] != (spec.cond_size,):
            raise GenzooError("these data have no input images: load them with the cond of the run")
        predictions.append(model.sample(len(part), cond.to(model.device), generator=generator).cpu())
        truths.append(images.cpu())
        inputs.append(cond.cpu().unflatten(1, (-1, *spec.shape[1:])))
    return torch.cat(predictions), torch.cat(truths), torch.cat(inputs)
