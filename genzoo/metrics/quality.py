"""All figures of a set of samples in the features of one extractor, each with its interval and its reference value.

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
from genzoo.metrics.diversity import sliced_wasserstein, vendi_score
from genzoo.metrics.estimate import ERRORS, REACH, Estimate, Metric, bootstrap, in_halves
from genzoo.metrics.frechet import Extrapolated, frechet_distance, frechet_extrapolated
from genzoo.metrics.kernels import gaussian_mmd, kid
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


Estimator = Callable[[Tensor, Tensor], Estimated]
"""Of real features `[n, d]` and generated ones `[m, d]`."""


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

    def generator(self, purpose: str) -> torch.Generator:
        """For what is random in a figure."""
        return seeded("cpu", "figures", purpose, self.seed)


def halved(
    sets: FeatureSets, name: str, metric: Metric, real: Tensor, *, higher_is_better: bool = False
) -> dict[str, Estimate]:
    """The figure `name` by a metric of `real` and sampled features, its interval by halves of both."""
    low, high = bootstrap(metric, real, sets.samples, draws=DRAWS, generator=sets.generator(name))
    sizes = len(sets.samples), len(real)
    reference = metric(real, sets.stand_in)
    return {
        name: Estimate(
            metric(real, sets.samples), *sizes, low, high, in_halves(DRAWS), reference, higher_is_better
        )
    }


def with_errors(sets: FeatureSets, name: str, estimate: Estimator) -> dict[str, Estimate]:
    """The figure `name`, its interval from a standard error that comes with it."""
    found = estimate(sets.real, sets.samples)
    low, high = found.value - REACH * found.stderr, found.value + REACH * found.stderr
    sizes = len(sets.samples), len(sets.real)
    return {name: Estimate(found.value, *sizes, low, high, ERRORS, estimate(sets.real, sets.stand_in).value)}


def quality_figures(sets: FeatureSets) -> tuple[dict[str, Estimate], dict[str, str]]:
    """All figures by name, and why there is none of those that the features do not allow."""

    def extrapolated(real: Tensor, fake: Tensor) -> Extrapolated:
        return frechet_extrapolated(real, fake, generator=sets.generator("frechet_infinity"))

    def sliced(real: Tensor, fake: Tensor) -> float:
        return sliced_wasserstein(
            real, fake, generator=sets.generator("directions")
        )  # the same ones each time

    return collected({
        "frechet": lambda: halved(sets, "frechet", frechet_distance, sets.real),
        "frechet_train": lambda: halved(sets, "frechet_train", frechet_distance, sets.train_like_real),
        "frechet_infinity": lambda: with_errors(sets, "frechet_infinity", extrapolated),
        "kid": lambda: with_errors(sets, "kid", kid),
        "mmd": lambda: with_errors(sets, "mmd", gaussian_mmd),
        "sliced_wasserstein": lambda: halved(sets, "sliced_wasserstein", sliced, sets.real),
        "precision": lambda: neighbour_figures(sets),
        "vendi": lambda: halved(sets, "vendi", vendi_about_mean, sets.real, higher_is_better=True),
        "fld": lambda: {"fld": likelihood_divergence(sets)},
    })  # fmt: skip


def vendi_about_mean(real: Tensor, fake: Tensor) -> float:
    """The Vendi score of what generated features `[m, d]` have beyond the mean of real ones, which all share."""
    return vendi_score(fake - real.mean(0))


def likelihood_divergence(sets: FeatureSets) -> Estimate:
    """FLD; its reference value is that of held-out images alone, since training images would count as copies."""

    def found(fake: Tensor) -> LikelihoodDivergence:
        return feature_likelihood_divergence(sets.train, sets.real, fake, generator=sets.generator("fld"))

    own, real = found(sets.samples), sets.held[: len(sets.samples)]
    low, high = own.value - REACH * own.stderr, own.value + REACH * own.stderr
    reference = found(real).value if len(real) > 1 else None
    return Estimate(own.value, len(sets.samples), len(sets.real), low, high, ERRORS, reference)


def collected(
    makers: dict[str, Callable[[], dict[str, Estimate]]],
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """What the makers make, and the reasons of those that refuse."""
    figures: dict[str, Estimate] = {}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            figures |= make()
        except GenzooError as reason:
            missing[name] = str(reason)
    return figures, missing


def neighbour_figures(sets: FeatureSets) -> dict[str, Estimate]:
    """Precision, recall, density and coverage in one pass, and another for their reference values."""
    found, real = (neighbour_metrics(sets.real, rows) for rows in (sets.samples, sets.stand_in))
    return {
        name: _neighbour_figure(name, found, real) for name in ("precision", "recall", "density", "coverage")
    }


def _neighbour_figure(name: str, found: NeighbourMetrics, real: NeighbourMetrics) -> Estimate:
    value, reach = getattr(found, name), REACH * getattr(found, f"{name}_stderr")
    return Estimate(
        value, found.n_fake, found.n_real, value - reach, value + reach,
        f"{ERRORS}, for given balls", getattr(real, name), higher_is_better=True,
    )  # fmt: skip


def memorisation_figures(sets: FeatureSets) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Whether samples are copies of training images: figures by name, and why there is none.

    The reference values are those of evaluated images (authenticity) and of held-out ones (C_T) in the place of
    samples.
    """
    return collected({
        "authenticity": lambda: {"authenticity": _authenticity(sets)}, "ct": lambda: {"ct": _data_copying(sets)},
    })  # fmt: skip


def _authenticity(sets: FeatureSets) -> Estimate:
    found = authenticity(sets.train, sets.samples)
    low, high = found.value - REACH * found.stderr, found.value + REACH * found.stderr
    order = torch.randperm(len(sets.real), generator=sets.generator("authenticity"))
    reference = authenticity(sets.train, sets.real[order[: len(sets.samples)]]).value
    sizes = len(sets.samples), len(sets.train)
    return Estimate(found.value, *sizes, low, high, ERRORS, reference, higher_is_better=True)


def _data_copying(sets: FeatureSets) -> Estimate:
    found = data_copying(sets.train, sets.real, sets.samples)
    try:
        reference = data_copying(sets.train, sets.real, sets.held).z
    except GenzooError:  # too few held-out images for any cell
        reference = None
    how = "95%: 1.96 standard deviations of a z-score"
    return Estimate(
        found.z,
        found.n_fake,
        found.n_held_out,
        found.z - REACH,
        found.z + REACH,
        how,
        reference,
        higher_is_better=True,
    )
