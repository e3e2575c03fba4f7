"""How near predictions of images from input images come to the true ones, and how much they look like images.

A blurred prediction is near in every pixel, a sharp one may be wrong and look right: L1 and PSNR tell the first thing,
the sharpness and the Fréchet distance the second, and no model is best in both where the input leaves the image
open (Blau & Michaeli 2018, the perception-distortion tradeoff). They serve any model conditioned on input images.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.evaluation.features.feature_space import FeatureSpace
from genzoo.metrics.frechet import frechet_distance
from genzoo.models.base import GenerativeModel

if TYPE_CHECKING:
    from genzoo.data.split import Split
from genzoo.models.input_pictures import input_images, predicted_images

BASIS_IMAGES = 2000


def translation_figures(
    model: GenerativeModel,
    split: "Split",
    *,
    max_images: int | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """Figures of the predictions for a split's inputs, all JSON-able; `generator` (on the model's device) draws them.

    `l1` (mean distance of sub-pixels, 1 from black to white) and `psnr` (dB, mean over images) with their standard
    errors over images; `sharpness`, the mean gradient of predictions over that of the true images; `frechet`, by
    feature space, the distance between predictions and truths. "input" holds the same of the inputs themselves, what
    doing nothing would give, where they have as many channels. With `max_images` the first so many. Raises
    `GenzooError` for a model without input images, and for fewer than two.
    """
    count = len(split) if max_images is None else min(max_images, len(split))
    if count < 2:
        raise GenzooError(f"translation figures need two images or more, got {count}")
    predictions, truths, inputs = predicted_images(model, split, torch.arange(count), generator)
    spaces = FeatureSpace.all_for(split, BASIS_IMAGES)
    figures = compared(predictions, truths, model.spec, spaces)
    if inputs.shape == truths.shape:
        figures["input"] = compared(input_images(inputs, model.spec), truths, model.spec, spaces)
    return {"images": count, **figures}


def compared(
    predictions: Tensor, truths: Tensor, spec: DataSpec, spaces: list[FeatureSpace]
) -> dict[str, Any]:
    """The figures of integer images `[n, c, h, w]` against true ones, see `translation_figures`."""
    l1, psnr = l1_distances(predictions, truths, spec), psnrs(predictions, truths, spec)
    detail = gradients(truths).mean()
    return {
        "l1": l1.mean().item(),
        "l1_stderr": _stderr(l1),
        "psnr": psnr.mean().item(),
        "psnr_stderr": _stderr(psnr),
        "sharpness": (gradients(predictions).mean() / detail).item() if detail else None,
        "frechet": {space.name: frechet_distance(space(truths), space(predictions)) for space in spaces},
    }


def l1_distances(predictions: Tensor, truths: Tensor, spec: DataSpec) -> Tensor:
    """Mean distances of sub-pixels, float64 `[n]`, 1 from the lowest level to the highest."""
    return (predictions.double() - truths.double()).abs().flatten(1).mean(1) / _range(spec)


def psnrs(predictions: Tensor, truths: Tensor, spec: DataSpec) -> Tensor:
    """Peak signal-to-noise ratios in dB, float64 `[n]`.

    A perfect image counts as one that is wrong by one level in one sub-pixel, so that means stay finite.
    """
    squared = (predictions.double() - truths.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(_range(spec) ** 2 / squared.clamp(min=1 / spec.dims))


def gradients(images: Tensor) -> Tensor:
    """The mean length of the gradient of each image `[n, c, h, w]`, in levels per pixel, float64 `[n]`."""
    x = images.double()
    across = torch.nn.functional.pad(x.diff(dim=3), (0, 1))
    down = torch.nn.functional.pad(x.diff(dim=2), (0, 0, 0, 1))
    return torch.hypot(across, down).flatten(1).mean(1)


def _range(spec: DataSpec) -> int:
    assert spec.levels is not None
    return spec.levels - 1


def _stderr(values: Tensor) -> float:
    return (values.std() / math.sqrt(len(values))).item()
