"""Is an image of the kind that a model was trained on? Scores for every family with a likelihood.

All scores are in bits per sub-pixel and grow with strangeness:

    likelihood    -log2 P(x) / D
    complexity    (-log2 P(x) - L(x)) / D, L the length of a lossless code (Serra et al. 2020, equation 3)
    typicality    |-log2 P(x) / D - H|, H the mean over images of the right kind (Nalisnick et al. 2019, eq. 5)
    ratio         (-log2 P(x) + log2 P_0(x)) / D, P_0 a background model (Ren et al. 2019, equation 4)

Likelihood alone is known to rank simple strangers (Fashion-MNIST's model on MNIST, CIFAR-10's on SVHN) above
the data it was trained on; the others are the usual remedies. The code is a universal model's, so the second
score is a log-likelihood ratio as well. A background model of independent pixels has learnt how bright each
place is, and leaves the ratio to say what belongs together.
"""

import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import DataSpec, check_images
from genzoo.core.trainable import evaluating
from genzoo.metrics.codecs import PNG
from genzoo.metrics.roc import auroc, auroc_stderr
from genzoo.models.base import GenerativeModel

_ZLIB_WRAPPING = 6
"""Bytes of header and checksum around deflated data."""


class Background(Protocol):
    """What a likelihood is held against: a model of the zoo, or a classical baseline."""

    def log_likelihood(self, images: Tensor) -> LogLikelihood:
        """log P_0 of integer images `[n, c, h, w]` in nats."""
        ...


@dataclass(frozen=True)
class OODScores:
    """Scores float64 `[n]` in bits per sub-pixel, larger for stranger images; `kind` is the likelihood's.

    `ratio` is None where no background model was given.
    """

    likelihood: Tensor
    complexity: Tensor
    typicality: Tensor
    kind: LikelihoodKind
    ratio: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """The scores by name, those that there are."""
        three = {name: getattr(self, name) for name in ("likelihood", "complexity", "typicality")}
        return three if self.ratio is None else {**three, "ratio": self.ratio}


def ood_scores(
    model: GenerativeModel,
    images: Tensor,
    cond: Tensor | None = None,
    *,
    entropy: float,
    chunk: int = 100,
    background: Background | None = None,
    generator: torch.Generator | None = None,
) -> OODScores:
    """The scores of integer `images` `[n, c, h, w]` under `model`, `chunk` at a time.

    `entropy` is the mean of `likelihood_bits` over other images of the right kind (the validation split, say), given
    the like of `cond`; typicality is measured from it. With `background`, fitted on training images, there is
    a ratio, too. Raises `NoLikelihood` where the family has none, `GenzooError` for real-valued data or images that
    do not fit the model.
    """
    code = code_bits(images, model.spec) / model.spec.dims
    likelihood, kind = likelihood_bits(model, images, cond, chunk=chunk, generator=generator)
    ratio = None if background is None else likelihood - _background_bits(background, images, chunk)
    return OODScores(likelihood, likelihood - code, typicality(likelihood, entropy), kind, ratio)


def likelihood_bits(
    model: GenerativeModel,
    images: Tensor,
    cond: Tensor | None = None,
    *,
    chunk: int = 100,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, LikelihoodKind]:
    """-log2 P(x) / D of integer `images` `[n, c, h, w]`, float64 `[n]`, `chunk` at a time, and what kind it is.

    Its mean over images of the right kind is the entropy that `ood_scores` measures typicality from. Raises
    `NoLikelihood` where the family has none.
    """
    bits, kinds = [], [model.likelihood]
    with evaluating(model):
        for start in range(0, len(images), chunk):
            part = slice(start, start + chunk)
            of_part = None if cond is None else cond[part].to(model.device)
            answer = model.log_likelihood(images[part].to(model.device), of_part, generator=generator)
            bits.append(answer.bits_per_dim.cpu())
            kinds.append(answer.kind)
    return torch.cat(bits) if bits else torch.zeros(0, dtype=torch.float64), min(kinds)


def _background_bits(background: Background, images: Tensor, chunk: int) -> Tensor:
    """Bits per sub-pixel `[n]`."""
    with torch.no_grad():
        parts = [
            background.log_likelihood(part).bits_per_dim.cpu() for part in images.split(chunk) if len(part)
        ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def separation(inside: OODScores, outside: OODScores) -> dict[str, float]:
    """AUROC of each score at telling strangers from images of the right kind: 1 is perfect, 1/2 is chance."""
    strange = outside.named()
    return {name: auroc(score, strange[name]) for name, score in inside.named().items()}


def separation_stderr(inside: OODScores, outside: OODScores) -> dict[str, float | None]:
    """The standard error of each AUROC of `separation`; None for fewer than two images of either kind."""
    strange = outside.named()
    return {name: auroc_stderr(score, strange[name]) for name, score in inside.named().items()}


def typicality(bits: Tensor, entropy: float) -> Tensor:
    """|bits - entropy| of each `[n]`: how far from the typical set, on either side."""
    return (bits - entropy).abs()


def typicality_of_groups(bits: Tensor, entropy: float, size: int) -> Tensor:
    """Typicality `[n // size]` of successive groups of images, which are strange together or not at all.

    A group's mean is far less noisy than an image, so small shifts show (Nalisnick et al. 2019, section 3.2).
    Images that do not fill a group are left out.
    """
    return typicality(bits[: len(bits) // size * size].view(-1, size).mean(1), entropy)


def typicality_threshold(
    reference: Tensor,
    entropy: float,
    size: int,
    *,
    level: float = 0.99,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> float:
    """The typicality that groups of `size` images of the right kind stay below with probability `level`.

    By bootstrap from bits/dim `reference` `[n]` of held-out images (Nalisnick et al. 2019, algorithm 1); groups
    above it are called outliers, at a rate of 1 - `level` of false alarms.
    """
    if len(reference) == 0 or size < 1 or not 0 < level < 1:
        raise GenzooError("a typicality threshold needs reference images, size >= 1 and 0 < level < 1")
    device = None if generator is None else generator.device
    drawn = torch.randint(len(reference), (resamples, size), generator=generator, device=device)
    means = reference.double()[drawn.to(reference.device)].mean(1)
    return typicality(means, entropy).quantile(level).item()


def code_bits(images: Tensor, spec: DataSpec) -> Tensor:
    """Length in bits of a lossless code of each image, float64 `[n]`: the shorter of PNG and deflate.

    PNG is charged for its compressed data only, and deflate without its wrapping: headers are the same for all
    images of a spec. Raises `GenzooError` for real-valued data, which have no such code.
    """
    if spec.levels is None:
        raise GenzooError("real-valued data have no lossless code: only integer images do")
    arrays = check_images(images, spec).cpu().numpy()
    lengths = [8.0 * min(_deflated_bytes(a, spec.levels), _png_bytes(a, spec.levels)) for a in arrays]
    return torch.tensor(lengths, dtype=torch.float64)


def _deflated_bytes(image: np.ndarray, levels: int) -> int:
    """Deflate of the raw sub-pixels, in as few bits each as their levels need: 1, 8 or 16."""
    raw = np.packbits(image.astype(bool)) if levels == 2 else image.astype(_dtype(levels))
    return len(zlib.compress(raw.tobytes(), 9)) - _ZLIB_WRAPPING


def _png_bytes(image: np.ndarray, levels: int) -> float:
    """The data chunks of a PNG; infinite for what PNG cannot hold (other than grey and RGB up to 8 bits)."""
    if levels > 256 or len(image) not in (1, 3):
        return float("inf")
    return _chunk_bytes(PNG.encode(image, levels), b"IDAT") - _ZLIB_WRAPPING


def _chunk_bytes(png: bytes, kind: bytes) -> int:
    """Total length of a PNG's chunks of one kind; a chunk is length, kind, data and checksum."""
    position, total = 8, 0
    while position < len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        total += length if png[position + 4 : position + 8] == kind else 0
        position += 12 + length
    return total


def _dtype(levels: int) -> type[np.unsignedinteger]:
    return np.uint8 if levels <= 256 else np.uint16
