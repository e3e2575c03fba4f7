"""Samples to be evaluated: as many as were asked for, or as come in time, under the conditions of the data."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.core.spec import check_images
from genzoo.models.base import GenerativeModel
from genzoo.models.prior.with_prior import WithPrior

if TYPE_CHECKING:
    from genzoo.data.image_data import ImageData

FIRST, MOST = 10, 250
"""Images that are drawn at once: few at first, which tell how long more would take, then ever more."""


@dataclass(frozen=True)
class Drawn:
    """Integer images `[n, c, h, w]` on the processor, of `asked` many; `conditions` says what they were drawn under.

    `classes` are those that were asked for, long `[n]`; None where there were none.
    """

    images: Tensor
    asked: int
    seconds: float
    conditions: str
    classes: Tensor | None = None

    @property
    def cut_short(self) -> bool:
        """Whether time ran out."""
        return len(self.images) < self.asked


def draw_for(
    model: GenerativeModel,
    data: "ImageData",
    split: str,
    n: int,
    *,
    seed: int = 0,
    max_seconds: float | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> Drawn:
    """Draws `n` images as the data would be drawn, seeded by `seed`.

    A class-conditional model is given classes in the shares of the training images; one conditioned on vectors (input
    images, an encoder's) those of `n` images of `split` in random order, so that at most as many are drawn; a model
    with a prior draws its own. No further images are begun that would take longer than `max_seconds` altogether. What
    has been drawn is then the first part of the whole. Raises `GenzooError` for fewer than two images, a model of
    real-valued data, and samples that are no images of the data's kind.
    """
    if model.spec.levels is None:
        raise GenzooError("samples are evaluated as images, these data are real-valued: pass --samples 0")
    conditions, told = _conditions(model, data, split, n, seed)
    n = n if conditions is None else min(n, len(conditions))
    if n < 2:
        raise GenzooError(f"sample metrics need two or more samples, got {n}: raise --samples (0: none)")
    generator, start = seeded(model.device, "quality", seed), time.perf_counter()
    parts, done, size = [], 0, min(FIRST, n)
    while done < n:
        spent = time.perf_counter() - start
        # at least two, and none that would overrun at the pace so far
        if max_seconds is not None and done > 1 and spent * (done + size) / done > max_seconds:
            break
        cond = None if conditions is None else conditions(done, size).to(model.device)
        images = model.sample(size, cond, generator=generator).cpu()
        if len(images) != size:
            raise GenzooError(f"the model drew {len(images)} images where {size} were asked for")
        parts.append(check_images(images, model.spec))
        progress(size)
        done, size = done + size, min(2 * size, MOST, n - done - size)
    classes = conditions(0, done) if conditions is not None and model.spec.cond == "class" else None
    return Drawn(torch.cat(parts), n, time.perf_counter() - start, told, classes)


@dataclass(frozen=True)
class _Rows:
    """Conditions by their place, read when asked for: there may be many, and wide ones."""

    read: Callable[[Tensor], Tensor | None]
    order: Tensor

    def __len__(self) -> int:
        return len(self.order)

    def __call__(self, start: int, size: int) -> Tensor:
        cond = self.read(self.order[start : start + size])
        if cond is None:
            raise GenzooError(
                "these data have nothing to condition samples on: load them with the run's --cond"
            )
        return cond


def _conditions(
    model: GenerativeModel, data: "ImageData", split: str, n: int, seed: int
) -> tuple[_Rows | None, str]:
    """The conditions of `n` samples, and what they are called; None where the model draws without."""
    order = seeded("cpu", "quality conditions", seed)
    if model.spec.cond == "class":
        labels = data.train.labels
        if labels is None:
            raise GenzooError("these data have no classes to draw samples of: take the run's own")
        rounds = -(-n // len(labels))  # beyond one draw of all training images it begins anew
        chosen = torch.cat([torch.randperm(len(labels), generator=order) for _ in range(rounds)])[:n]
        return _Rows(lambda rows: labels[rows], chosen), "classes in the shares of the training images"
    if model.spec.cond == "vector" and not isinstance(model, WithPrior):
        images = data.split(split)
        chosen = torch.randperm(len(images), generator=order)[:n]
        return _Rows(lambda rows: images.batch(rows).cond, chosen), f"the conditions of {split} images"
    return None, "none" if model.spec.cond is None else "vectors of the model's own prior"
