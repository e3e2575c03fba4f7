"""How a metric of two sets of features becomes a figure: with its interval, and with its floor.

The reference value of an estimate is that of as many real images that are neither the evaluated ones nor in their
place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.metrics.diversity import vendi_score
from genzoo.metrics.estimate import ERRORS, REACH, Estimate, Metric, bootstrap, in_halves
from genzoo.metrics.likelihood_divergence import LikelihoodDivergence, feature_likelihood_divergence
from genzoo.metrics.memorisation import authenticity, data_copying
from genzoo.metrics.neighbours import NeighbourMetrics, neighbour_metrics

DRAWS = 100
"""Pairs of halves behind an interval."""


class Estimated(Protocol):
    """A value and its standard error."""

    @property
    def value(self) -> float:
        """The estimate."""
        ...

    @property
    def stderr(self) -> float:
        """Over images."""
        ...


@dataclass(frozen=True)
class FeatureSets:
    """Features, float64 `[n, d]` each: of samples, of the images they are compared with, of real images that nothing
    was trained on, and of training images in random order."""

    samples: Tensor
    real: Tensor
    held: Tensor
    train: Tensor
    seed: int = 0

    @cached_property
    def stand_in(self) -> Tensor:
        """As many other real images as there are samples: held-out ones, and training images where these are few."""
        return torch.cat([self.held, self.train])[: len(self.samples)]

    @cached_property
    def train_like_real(self) -> Tensor:
        """Training images, as many as evaluated ones, so that distances to both can be compared."""
        return self.train[-len(self.real) :]

    @cached_property
    def neighbours(self) -> tuple[NeighbourMetrics, NeighbourMetrics]:
        """Precision, recall, density and coverage of samples in one pass, and those of real images in their place."""
        return neighbour_metrics(self.real, self.samples), neighbour_metrics(self.real, self.stand_in)

    def generator(self, purpose: str) -> torch.Generator:
        """For what is random in a figure."""
        return seeded("cpu", "figures", purpose, self.seed)


# --- interval methods ------------------------------------------------------------------------------------------


def halved(
    sets: FeatureSets,
    name: str,
    metric: Metric,
    real: Tensor | None = None,
    *,
    higher_is_better: bool | None = False,
) -> Estimate:
    """The figure of a metric of evaluated (else `sets.evaluated`) and sampled features, its interval by halves of
    both."""
    real = sets.real if real is None else real
    low, high = bootstrap(metric, real, sets.samples, draws=DRAWS, generator=sets.generator(name))
    return Estimate(
        metric(real, sets.samples), len(sets.samples), len(real), low, high, in_halves(DRAWS),
        metric(real, sets.stand_in), higher_is_better,
    )  # fmt: skip


def with_errors(
    sets: FeatureSets,
    estimate: Callable[[Tensor, Tensor], Estimated],
    *,
    higher_is_better: bool | None = False,
) -> Estimate:
    """The figure of an estimate of real and sampled features, its interval from the standard error that it brings."""
    found, real = estimate(sets.real, sets.samples), estimate(sets.real, sets.stand_in)
    return Estimate.from_stderr(
        found.value, found.stderr, len(sets.real), samples=len(sets.samples), floor=real.value,
        higher_is_better=higher_is_better,
    )  # fmt: skip


def neighbour_figure(sets: FeatureSets, name: str) -> Estimate:
    """Precision, recall, density or coverage, for the balls about these images."""
    found, real = sets.neighbours
    return Estimate.from_stderr(
        getattr(found, name), getattr(found, f"{name}_stderr"), found.n_real, samples=found.n_fake,
        interval=f"{ERRORS}, for given balls", floor=getattr(real, name), higher_is_better=True,
    )  # fmt: skip


# --- metrics of more than two sets -----------------------------------------------------------------------------


def vendi_about_mean(real: Tensor, fake: Tensor) -> float:
    """The Vendi score of what generated features `[m, d]` have beyond the mean of real ones, which all share."""
    return vendi_score(fake - real.mean(0))


def likelihood_divergence(sets: FeatureSets) -> Estimate:
    """FLD; its reference value is that of held-out images alone, since training images would count as copies."""

    def found(fake: Tensor) -> LikelihoodDivergence:
        return feature_likelihood_divergence(sets.train, sets.real, fake, generator=sets.generator("fld"))

    own, real = found(sets.samples), sets.held[: len(sets.samples)]
    reference = found(real).value if len(real) > 1 else None
    return Estimate.from_stderr(
        own.value, own.stderr, len(sets.real), samples=len(sets.samples), floor=reference
    )


def authenticity_figure(sets: FeatureSets) -> Estimate:
    """The share of samples that are no copies of training images; its floor is that of evaluated images."""
    found = authenticity(sets.train, sets.samples)
    order = torch.randperm(len(sets.real), generator=sets.generator("authenticity"))
    floor = authenticity(sets.train, sets.real[order[: len(sets.samples)]]).value
    return Estimate.from_stderr(
        found.value, found.stderr, len(sets.train), samples=len(sets.samples), floor=floor, higher_is_better=True
    )  # fmt: skip


def copying_figure(sets: FeatureSets) -> Estimate:
    """C_T as a z-score; its floor is that of held-out images."""
    found = data_copying(sets.train, sets.real, sets.samples)
    try:
        floor = data_copying(sets.train, sets.real, sets.held).z
    except GenzooError:  # too few held-out images for any cell
        floor = None
    how = f"95%: {REACH} standard deviations of a z-score"
    return Estimate.from_stderr(
        found.z, 1.0, found.n_held_out, samples=found.n_fake, interval=how, floor=floor, higher_is_better=True
    )
