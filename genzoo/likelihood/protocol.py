"""What a diffusion or flow model is asked for its likelihood by: a bound, or an ODE; and the sum over classes."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genzoo.contract import DataSpec, Likelihood, LogLikelihood
from genzoo.paths import Denoise, GaussianPath


class Protocol(ABC):
    """A way to log P(x) of a denoiser."""

    @property
    @abstractmethod
    def kind(self) -> Likelihood:
        """What its figures are."""

    @abstractmethod
    def measure(
        self,
        denoise: Denoise,
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
    `again` the same as `first` it is just that.
    """
    before, nats = first.nats.view(classes, -1), again.nats.view(classes, -1)
    log_q = before.log_softmax(0)
    q, uniform = log_q.exp(), torch.tensor(float(classes), dtype=torch.float64).log()
    total = (q * (nats - log_q)).sum(0) - uniform
    stderr = None if again.stderr is None else (q * again.stderr.view(classes, -1)).square().sum(0).sqrt()
    return LogLikelihood(total, again.kind, again.spec, stderr, again.details)
