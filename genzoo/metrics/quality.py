"""How a metric of two sets of features becomes a figure: with its interval, and with its floor.

The reference value of an estimate is that of as many real images that are neither the evaluated ones nor in their
place.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.metrics.diversity import vendi_score
from genzoo.metrics.estimate import ERRORS, Estimate, Metric
from genzoo.metrics.intervals import (
    MORE,
    PAIRS,
    WILSON_OF_HALVES,
    bootstrap,
    design_effect,
    effect_of,
    figures_of_parts,
    in_halves,
    student,
    variance_by_power,
    variance_of_halves,
    wilson,
)
from genzoo.metrics.kernels import gaussian_mmd
from genzoo.metrics.likelihood_divergence import LikelihoodDivergence, feature_likelihood_divergence
from genzoo.metrics.memorisation import authenticity, data_copying
from genzoo.metrics.neighbours import K_DENSITY, K, NeighbourMetrics, neighbour_metrics

QUARTERED = 10
"""Cuts into quarters behind an interval of density."""
NEIGHBOURS = ("precision", "recall", "density", "coverage", "fidelity", "variety")
OF_QUARTERS = f"{in_halves()} and {QUARTERED} cuts into quarters"
"""Interval of density."""
GIVEN_TRAIN = "for these training images"


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
        """All figures of neighbours of samples in one pass, and those of real images in their place."""
        return neighbour_metrics(self.real, self.samples), neighbour_metrics(self.real, self.stand_in)

    @cached_property
    def neighbour_halves(self) -> tuple[Tensor, float]:
        """These figures of random halves of real images and samples, as `figures_of_parts` gives them."""
        return figures_of_parts(
            _neighbours, [self.real, self.samples], generator=self.generator("halves of neighbours")
        )

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
    distance: bool = False,
    draws: int = PAIRS,
) -> Estimate:
    """The figure of a metric of evaluated (else `sets.evaluated`) and sampled features, its interval by halves of
    both; `distance` as for `bootstrap`."""
    real = sets.real if real is None else real
    low, high = bootstrap(
        metric, real, sets.samples, draws=draws, distance=distance, generator=sets.generator(name)
    )
    value, reference = metric(real, sets.samples), metric(real, sets.stand_in)
    how = in_halves(draws) + (f", {MORE}" if distance else "")
    return Estimate(value, len(sets.samples), len(real), low, high, how, reference)


def with_errors(
    sets: FeatureSets,
    estimate: Callable[[Tensor, Tensor], Estimated],
) -> Estimate:
    """The figure of an estimate of real and sampled features, its interval from the standard error that it brings."""
    found, real = estimate(sets.real, sets.samples), estimate(sets.real, sets.stand_in)
    return Estimate.from_stderr(
        found.value, found.stderr, len(sets.real), samples=len(sets.samples), interval=f"{ERRORS}, {MORE}",
        floor=real.value,
    )  # fmt: skip


def neighbour_figure(sets: FeatureSets, name: str) -> Estimate:
    """Precision, recall or coverage, with the interval of a share whose images are not independent: balls of
    neighbours move with them. Too few images for halves have none."""
    found, real = sets.neighbours
    value, floor = getattr(found, name), getattr(real, name)
    images = len(sets.samples if name == "precision" else sets.real)
    plain = Estimate(value, found.n_fake, found.n_real, reference=floor)
    if not _enough(sets, 2):
        return plain
    halves, used = sets.neighbour_halves
    place = NEIGHBOURS.index(name)
    effect = design_effect(halves, round(images * used))[place].item()
    low, high = wilson(value, images / effect, student(PAIRS))
    return replace(plain, low=low, high=high, interval=WILSON_OF_HALVES)


def extreme_figure(sets: FeatureSets, name: str) -> Estimate:
    """Fidelity or variety, 1 less the largest of many differences of shares: no binomial, and 1 at most, where equal
    distributions often are. Too few images for halves have no interval."""
    found, real = sets.neighbours
    value, floor = getattr(found, name), getattr(real, name)
    plain = Estimate(value, found.n_fake, found.n_real, reference=floor)
    if not _enough(sets, 2):
        return plain
    halves, used = sets.neighbour_halves
    variance = variance_of_halves(halves)[NEIGHBOURS.index(name)].item() * used
    reach = student(PAIRS) * math.sqrt(variance)
    # at 1 all halves are 1, too: no less than the interval of a share of independent images
    least = wilson(value, len(sets.samples if name == "fidelity" else sets.real))
    low, high = max(0.0, min(least[0], value - reach)), min(1.0, max(least[1], value + reach))
    return replace(plain, low=low, high=high, interval=f"{in_halves()}, or more near 1")


def density_figure(sets: FeatureSets) -> Estimate:
    """Density, which is no share; its variance may fall more slowly than 1 / n, since a few real images in the middle
    of the data are neighbours of many samples. Too few images for quarters have no interval."""
    found, real = sets.neighbours
    plain = Estimate(found.density, found.n_fake, found.n_real, reference=real.density)
    if not _enough(sets, 4):
        return plain
    halves, used = sets.neighbour_halves
    quarters, _ = figures_of_parts(
        _neighbours, [sets.real, sets.samples], parts=4, draws=QUARTERED,
        generator=sets.generator("quarters of neighbours"),
    )  # fmt: skip
    variance = variance_by_power(halves, quarters)[NEIGHBOURS.index("density")].item() * used
    reach = student(PAIRS) * math.sqrt(variance)
    low, high = max(0.0, found.density - reach), found.density + reach
    return replace(plain, low=low, high=high, interval=OF_QUARTERS)


def _neighbours(real: Tensor, fake: Tensor) -> Tensor:
    found = neighbour_metrics(real, fake)
    return torch.tensor([getattr(found, name) for name in NEIGHBOURS], dtype=torch.float64)


def _enough(sets: FeatureSets, parts: int) -> bool:
    """Whether so many parts have the neighbours that are looked for."""
    return len(sets.real) // parts > max(K, K_DENSITY) and len(sets.samples) // parts > K


# --- metrics of more than two sets -----------------------------------------------------------------------------


def mmd_value(real: Tensor, fake: Tensor) -> float:
    """MMD^2 with the bandwidth that these real images have, whose randomness its standard error leaves out."""
    return gaussian_mmd(real, fake).value


def vendi_about_mean(real: Tensor, fake: Tensor) -> float:
    """The Vendi score of what generated features `[m, d]` have beyond the mean of real ones, which all share."""
    return vendi_score(fake - real.mean(0))


def likelihood_divergence(sets: FeatureSets) -> Estimate:
    """FLD; its reference value is that of held-out images alone, since training images would count as copies.

    No interval: its standard error is that over test images and samples, which is about two thirds of what other
    training images would add up to.
    """

    def found(fake: Tensor) -> LikelihoodDivergence:
        return feature_likelihood_divergence(sets.train, sets.real, fake, generator=sets.generator("fld"))

    own, real = found(sets.samples), sets.held[: len(sets.samples)]
    reference = found(real).value if len(real) > 1 else None
    return Estimate(
        own.value, len(sets.samples), len(sets.real), reference=reference, stderr=own.stderr,
        interval="no interval; the standard error is over test images",
    )  # fmt: skip


def authenticity_figure(sets: FeatureSets) -> Estimate:
    """The share of samples that are no copies of training images; its floor is that of evaluated images.

    Its interval is over samples and training images. One training image may be the neighbour of very many samples, so
    that the variance may fall more slowly than 1 / n.
    """
    found = authenticity(sets.train, sets.samples)
    order = torch.randperm(len(sets.real), generator=sets.generator("authenticity"))
    floor = authenticity(sets.train, sets.real[order[: len(sets.samples)]]).value
    plain = Estimate(found.value, len(sets.samples), len(sets.train), reference=floor)
    if min(len(sets.train), len(sets.samples)) < 8:
        return plain

    def parts(count: int, draws: int) -> tuple[Tensor, float]:
        return figures_of_parts(
            lambda train, fake: authenticity(train, fake).value, [sets.train, sets.samples], parts=count, draws=draws,
            generator=sets.generator(f"{count} parts of authenticity"),
        )  # fmt: skip

    (halves, used), (quarters, _) = parts(2, PAIRS), parts(4, QUARTERED)
    images = max(1, round(len(sets.samples) * used))
    effect = effect_of(variance_by_power(halves, quarters), halves.mean((0, 1)), images).item()
    low, high = wilson(found.value, len(sets.samples) / effect, student(PAIRS))
    return replace(plain, low=low, high=high, interval=WILSON_OF_HALVES)


def copying_figure(sets: FeatureSets) -> Estimate:
    """C_T; its reference value is that of held-out images."""
    found = data_copying(sets.train, sets.real, sets.samples)
    try:
        floor = data_copying(sets.train, sets.real, sets.held).value
    except GenzooError:  # too few held-out images for any cell
        floor = None
    return Estimate.from_stderr(
        found.value, found.stderr, found.n_held_out, samples=found.n_fake, interval=f"{ERRORS}, {GIVEN_TRAIN}",
        floor=floor,
    )  # fmt: skip
