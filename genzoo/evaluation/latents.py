"""What the latents of a model hold: figures for the report, and pictures."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genzoo.core.files import MADE_BY, write_product
from genzoo.core.spec import DataSpec
from genzoo.data.image_grid import save_grid
from genzoo.evaluation.likelihood import LikelihoodReport
from genzoo.objectives.elbo import DiagonalGaussian

if TYPE_CHECKING:
    from genzoo.data.split import Split

MOST_IMAGES = 1000
MAPPED = 3  # up to so many latents, a map of the two most active ones shows nearly all of them


@runtime_checkable
class LatentVariableModel(Protocol):
    """A model that can tell what its latents hold; `images` are integer `[n, c, h, w]`."""

    spec: DataSpec

    def latent_figures(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """JSON-able figures such as `active_units` or `codebook_usage`."""
        ...


@runtime_checkable
class PicturedLatents(Protocol):
    """A model that can show what its latents do beyond reconstructing."""

    spec: DataSpec

    def latent_picture(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images `[rows, columns, c, h, w]` that show what the latents do."""
        ...


@runtime_checkable
class EncodesImages(Protocol):
    """A model that encodes images on its own."""

    def encode(self, images: Tensor, cond: Tensor | None = None) -> DiagonalGaussian | Tensor:
        """q(z|x), `[n, latent_dim]`, or codes."""
        ...


def latent_figures(
    model: LatentVariableModel,
    split: "Split",
    likelihood: LikelihoodReport,
    *,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """The model's figures on at most `MOST_IMAGES` images of `split`, and its point in the rate-distortion plane.

    `rate` is the mean KL to the prior and `distortion` the mean -log P(x|z), both in nats per image and both
    from `likelihood`; they add up to the negative ELBO (Alemi et al. 2018). Absent for models without them.
    """
    images, cond = first_images(model.spec, split, MOST_IMAGES)
    figures = {"images": len(images), **model.latent_figures(images, cond, generator=generator)}
    details = likelihood.details
    if {"kl", "reconstruction"} <= details.keys():
        figures |= {"rate": details["kl"], "distortion": details["reconstruction"]}
    if "kl_per_group" in details:
        figures["kl_per_group"] = details["kl_per_group"]
    return figures


def draw_latents(
    model: PicturedLatents,
    split: "Split",
    folder: Path,
    *,
    generator: torch.Generator | None = None,
) -> list[Path]:
    """Writes `latents.png`, and `latent_map.png` where the latent vector is small; returns what was written."""
    images, cond = first_images(model.spec, split, MOST_IMAGES)
    picture = model.latent_picture(images, cond, generator=generator)
    paths = [folder / "latents.png"]
    save_grid(picture.flatten(0, 1), model.spec, paths[0], columns=picture.shape[1], inside=folder)
    means = _latent_vectors(model, images, cond)
    if means is not None and 2 <= means.shape[1] <= MAPPED:
        paths.append(folder / "latent_map.png")
        save_map(means, split.labels, paths[1], inside=folder)
    return paths


def _latent_vectors(model: PicturedLatents, images: Tensor, cond: Tensor | None) -> Tensor | None:
    """Posterior means `[n, d]` on the CPU; None for a model without a latent vector."""
    if not isinstance(model, EncodesImages):
        return None
    with torch.no_grad():
        encoded = model.encode(images, cond)
    return encoded.mean.cpu() if isinstance(encoded, DiagonalGaussian) else None


def save_map(means: Tensor, labels: Tensor | None, path: Path, *, inside: Path | None = None) -> None:
    """A PNG of posterior means `[n, d]` in the plane of the two most active latents.

    The points are coloured by `labels` (the first n of them) where these are classes.
    """
    from matplotlib.figure import Figure

    first, second = means.var(0, correction=0).argsort(descending=True, stable=True)[:2].tolist()
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    classes = None if labels is None or labels.ndim != 1 else labels[: len(means)]
    for label in [None] if classes is None else classes.unique().tolist():
        points = means if classes is None else means[classes == label]
        axes.scatter(points[:, first], points[:, second], s=6, label=label)
    axes.set(xlabel=f"latent {first}", ylabel=f"latent {second}", title="posterior means")
    if classes is not None:
        figure.legend(title="class", loc="outside right upper", markerscale=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": MADE_BY})
    write_product(path, buffer.getvalue(), inside=inside)


def first_images(spec: DataSpec, split: "Split", at_most: int) -> tuple[Tensor, Tensor | None]:
    """The first images `[n, c, h, w]` of a split and, for a conditional model, their conditions."""
    batch = split.batch(torch.arange(min(at_most, len(split))))
    return batch.images, None if spec.cond is None else batch.cond
