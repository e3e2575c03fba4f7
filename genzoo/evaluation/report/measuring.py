"""Measuring the likelihood of a split, and saying it in rows of a table."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genzoo.data.image_data import ImageData
    from genzoo.evaluation.likelihood import LikelihoodReport
    from genzoo.models.base import GenerativeModel
from genzoo.core.progress_bar import progress_bar


def with_error(value: float, stderr: float | None, digits: int) -> str:
    """A figure and its standard error.

    >>> with_error(1.23456, 0.012, 3), with_error(1.0, None, 1)
    ('1.235 ± 0.012', '1.0')
    """
    return f"{value:.{digits}f}" + ("" if stderr is None else f" ± {stderr:.{digits}f}")


def set_id(data: "ImageData", split: str) -> str:
    """What names a set of images in reports: figures can be compared where it is the same."""
    return data.protocol["test_id"] if split == "test" else f"{data.name}/{split}"


def measure(
    model: "GenerativeModel",
    data: "ImageData",
    split: str,
    *,
    seed: int = 0,
    max_images: int | None = None,
    max_seconds: float | None = None,
) -> "LikelihoodReport":
    """The likelihood of one split of `data`, with a progress bar; what came in time with `max_seconds`.

    Raises `NoLikelihood` where the family has none, `GenzooError` where there are no images.
    """
    from genzoo.core.random import seeded
    from genzoo.evaluation.likelihood import evaluate_likelihood

    images = data.split(split)
    generator = seeded(model.device, "evaluate", seed, split)
    with progress_bar(f"{split} likelihood", min(len(images), max_images or len(images))) as progress:
        return evaluate_likelihood(
            model,
            images,
            max_images=max_images,
            max_seconds=max_seconds,
            generator=generator,
            progress=progress,
        )


def likelihood_rows(report: "LikelihoodReport", data: "ImageData", split: str) -> dict[str, str]:
    """The rows of a table that tell a likelihood with its relation to the truth and its standard error."""
    size, symbol = data.protocol["sizes"][split], report.kind.symbol
    part = "" if report.images == size else f" of {size}"
    bits = with_error(report.bits_per_dim, report.bits_per_dim_stderr, 4)
    nats = with_error(-report.nats, report.nats_stderr, 2)
    return {
        f"{split} bits/dim": f"{symbol} {bits}",
        f"{split} nats/image": f"{symbol} {nats}",
        "kind": report.kind.name.lower().replace("_", " "),
        f"{split} set": f"{set_id(data, split)} ({report.images}{part} images)",
    }
