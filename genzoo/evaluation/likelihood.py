"""Likelihood of a split under a model: mean, standard error over images, kind and protocol."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.core.trainable import evaluating
from genzoo.models.base import GenerativeModel

if TYPE_CHECKING:
    from genzoo.data.split import Split


@dataclass(frozen=True)
class LikelihoodReport:
    """What a model says of a split, per image.

    `nats` is the mean of log P(x) (so usually negative) and `bits_per_dim` the mean of -log2 P(x) / D; each
    `_stderr` is the standard error of that mean over images, which holds the Monte-Carlo error of a
    stochastic likelihood too, and is None for a single image. `seconds` is the time of `images` images.
    """

    nats: float
    nats_stderr: float | None
    bits_per_dim: float
    bits_per_dim_stderr: float | None
    kind: LikelihoodKind
    images: int
    seconds: float
    details: dict[str, Any]

    @property
    def images_per_second(self) -> float:
        """Images whose likelihood is computed in a second."""
        return self.images / max(self.seconds, 1e-9)


@in_plain_surroundings
def evaluate_likelihood(
    model: GenerativeModel,
    split: "Split",
    *,
    chunk: int = 100,
    max_images: int | None = None,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> LikelihoodReport:
    """The mean log-likelihood of `split`, `chunk` images at a time.

    With `max_images` a random subset of that size is taken; with `max_seconds` no further chunk is begun after that
    time, and chunks start small, so that what is evaluated is a smaller random subset. A conditional
    model is given the split's labels. `generator` (on the model's device) decides the subset and what is random in
    the likelihood. `progress` is called with the number of images of every finished chunk.

    Raises `NoLikelihood` where the family has none, `GenzooError` where there are no images.
    """
    order = None if generator is None else _on_cpu(generator)
    indices = subset(len(split), max_images, order)
    if max_seconds is not None:  # whatever comes first must be no special part of it
        indices = indices[torch.randperm(len(indices), generator=order)]
    if len(indices) == 0:
        raise GenzooError("there are no images to evaluate: the split is empty or --max-images is below 1")
    start, answers = time.perf_counter(), []
    with evaluating(model):
        for part in _chunks(indices, chunk, rising=max_seconds is not None):
            if answers and max_seconds is not None and time.perf_counter() - start > max_seconds:
                break
            images, cond = split.batch(
                part
            )  # without a generator: the fixed draw, as every reader will see it
            cond = None if model.spec.cond is None or cond is None else cond.to(model.device)
            answers.append(model.log_likelihood(images.to(model.device), cond, generator=generator))
            progress(len(part))
    return summarise(answers, time.perf_counter() - start)


def _chunks(indices: Tensor, most: int, *, rising: bool) -> Iterator[Tensor]:
    """Parts of at most `most` images; rising ones start with ten and double."""
    size = min(10, most) if rising else most
    while len(indices):
        yield indices[:size]
        indices, size = indices[size:], min(2 * size, most)


def subset(count: int, at_most: int | None, generator: torch.Generator | None) -> Tensor:
    """Sorted indices long `[n]`: all `count`, or a random `at_most` of them."""
    if at_most is None or at_most >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[: max(at_most, 0)].sort().values


def summarise(answers: list[LogLikelihood], seconds: float) -> LikelihoodReport:
    """One report from the answers to successive chunks; the kind is the worst among them."""
    answer = LogLikelihood.cat(answers)
    nats, bits = answer.nats, answer.bits_per_dim
    return LikelihoodReport(
        nats=nats.mean().item(),
        nats_stderr=_stderr(nats),
        bits_per_dim=bits.mean().item(),
        bits_per_dim_stderr=_stderr(bits),
        kind=answer.kind,
        images=len(nats),
        seconds=seconds,
        details=answer.details,
    )


def _stderr(values: Tensor) -> float | None:
    """Standard error of the mean of `[n]`; None where one value cannot tell."""
    return None if len(values) < 2 else (values.std() / math.sqrt(len(values))).item()


def _on_cpu(generator: torch.Generator) -> torch.Generator:
    """A generator for indices, which are on the CPU, seeded from one that may be elsewhere."""
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))
