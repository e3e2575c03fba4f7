"""What a diffusion or flow model is asked for its likelihood by: a bound, or an ODE; and the sum over classes."""

import typing
from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from genzoo.core.config import Configurable
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.passes import slices
from genzoo.core.spec import DataSpec
from genzoo.nn.embeddings import Condition
from genzoo.objectives.denoising.paths import Denoiser, GaussianPath


class Protocol(Configurable, ABC):
    """A way to log P(x) of a denoiser."""

    @property
    @abstractmethod
    def kind(self) -> LikelihoodKind:
        """What its figures are."""

    @abstractmethod
    def exponentiable(self, dims: int) -> bool:
        """Whether exp of a figure of `dims` sub-pixels is at most P(x) in expectation.

        Such figures may be averaged in probability. Where only the figure itself is unbiased, exp of its noise of s
        nats would add some s^2 / 2.
        """

    def check(self, path: GaussianPath) -> None:
        """Raises `GenzooError` where there is no such figure of any model on this path."""

    @abstractmethod
    def measure(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        images: Tensor,
        spec: DataSpec,
        generator: torch.Generator | None = None,
    ) -> LogLikelihood:
        """log P of `images` `[n, *spec.shape]`, integers (or real where the spec has no levels)."""


def summed_over_classes(first: LogLikelihood, again: LogLikelihood, classes: int) -> LogLikelihood:
    """log 1/C sum_y P(x | y) from two sets of figures, each `[classes * n]`, the classes one after the other.

    sum_y q(y) (log P(x|y) - log(C q(y))) with q(y) = softmax of `first`: a lower bound in expectation if `again`
    was drawn independently, however noisy both are; a plain log-mean-exp of noisy figures would lie above. With
    `again` the same as `first` it is just that. What all classes of `first` have of noise in common leaves q alone.
    """
    n = len(first.nats) // classes
    before, nats = first.nats.view(classes, n), again.nats.view(classes, n)
    log_q = before.log_softmax(0)
    q, uniform = log_q.exp(), torch.tensor(float(classes), dtype=torch.float64).log()
    total = (q * (nats - log_q)).sum(0) - uniform
    stderr = None if again.stderr is None else (q * again.stderr.view(classes, n)).square().sum(0).sqrt()
    return LogLikelihood(total, again.kind, again.spec, stderr, again.details)


class DenoisingModel(typing.Protocol):
    """What a model must have to be asked by a protocol."""

    spec: DataSpec
    path: GaussianPath
    condition: Condition
    chunk: int
    """Images per pass."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        ...

    def denoiser(self, embedded: Tensor | None) -> Denoiser:
        """The network under the conditions `embedded` `[b, 64]`, or None."""
        ...


def measured(
    model: DenoisingModel,
    protocol: Protocol,
    images: Tensor,
    cond: Tensor | None,
    generator: torch.Generator | None,
) -> LogLikelihood:
    """log P(images | cond) `[n]` in passes of `model.chunk`; summed over the classes where `cond` is not told."""
    if cond is not None or model.spec.cond != "class":
        return _measured(model, protocol, images, cond, generator)
    classes = model.spec.cond_size
    first = again = _of_each_class(model, protocol, images, generator)
    if not protocol.exponentiable(model.spec.dims):
        every = torch.arange(classes).repeat_interleave(len(images))
        repeated = images.repeat(classes, *[1] * (images.ndim - 1))
        again = _measured(model, protocol, repeated, every, generator)
    total = summed_over_classes(first, again, classes)
    return replace(total, details={**total.details, "conditional": False})


def _of_each_class(
    model: DenoisingModel, protocol: Protocol, images: Tensor, generator: torch.Generator | None
) -> LogLikelihood:
    """log P(images | y) `[classes * n]` with the same noise for every class, so that it cancels between them."""
    device = torch.device("cpu") if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    given = []
    for y in range(model.spec.cond_size):
        same = torch.Generator(device).manual_seed(seed)
        given.append(_measured(model, protocol, images, torch.full((len(images),), y), same))
    return LogLikelihood.cat(given)


def _measured(
    model: DenoisingModel,
    protocol: Protocol,
    images: Tensor,
    cond: Tensor | None,
    generator: torch.Generator | None,
) -> LogLikelihood:
    embedded, answers = model.condition(cond, len(images)), []
    if len(images) == 0:
        nothing = torch.zeros(0, dtype=torch.float64)
        return LogLikelihood(nothing, protocol.kind, model.spec, stderr=nothing)
    for part in slices(len(images), model.chunk):
        denoise = model.denoiser(None if embedded is None else embedded[part])
        of_part = images[part].to(model.device)
        answers.append(protocol.measure(denoise, model.path, of_part, model.spec, generator))
    answer = LogLikelihood.cat(answers)
    return replace(answer, details={"conditional": cond is not None, **answer.details})
