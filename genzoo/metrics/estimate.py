"""Figures of sample quality: a value, what it was measured on, how sure it is, and what real images would get.

A metric here is a function of two matrices of features, `metric(real, fake) -> float`, rows images. Two further
numbers make its value readable. The interval says how far it would move with other images. The reference value is the
metric between real images and real images: what no generator can be expected to beat, and not 0 for a biased metric.

How intervals are made stands in `genzoo.metrics.intervals`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, final

import msgspec
import torch
from torch import Tensor
from typing_extensions import Self

from genzoo.core.errors import GenzooError
from genzoo.core.spec import check_dense

Count = Annotated[int, msgspec.Meta(ge=0)]
"""A number of images, steps or classes, as reports are checked for it."""

Metric = Callable[[Tensor, Tensor], float]
"""Of real features `[n, d]` and generated ones `[m, d]`."""

Direction = Literal["lower", "higher", "nearest real", "nearest 0", "neither"]
"""Which figures are best: low ones, high ones, those nearest to what real images get, nearest to 0, or none are."""

REACH = 1.96
"""Standard errors on either side of a 95% interval."""
ERRORS = "95%: 1.96 standard errors over images"
"""How intervals are made of a standard error."""
NAMES: Mapping[str, str] = {
    "frechet_inception": "Fréchet, Inception-v3", "frechet_dinov2": "Fréchet, DINOv2",
    "frechet": "Fréchet", "frechet_train": "Fréchet to train", "frechet_infinity": "Fréchet, n to infinity",
    "kid": "KID", "mmd": "MMD", "vendi": "Vendi", "fld": "FLD", "ct": "C_T", "ct_standardised": "C_T, standardised",
    "sliced_wasserstein": "sliced Wasserstein", "accuracy_score": "classification accuracy score",
}  # fmt: skip
"""Figures whose names in reports are not what people call them."""


def display_name(name: str) -> str:
    """A figure's name for people.

    >>> display_name("kid"), display_name("precision"), display_name("mode_share")
    ('KID', 'precision', 'mode share')
    """
    return NAMES.get(name, name.replace("_", " "))


@final
@dataclass(frozen=True)
class Estimate:
    """A measured value with its numbers of images, 95% interval and reference value.

    `interval` says in words how `low` and `high` were made; `reference` is the same figure between real images and real
    images. Raises `GenzooError` for a value or limit that is not finite and for an interval with one end.
    """

    value: float
    samples: Count
    """Generated images; 0 for what needs none, such as a likelihood."""
    references: Count
    """Real images."""
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    reference: float | None = None
    higher_is_better: bool | None = False
    """None where neither end is better."""
    stderr: float | None = None
    """The standard error that the interval was made of, where it was."""
    best: float | None = None
    """The figure that is best, where that is neither end: both directions away from it are worse."""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "reference", "stderr", "best"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise GenzooError(
                    f"a figure's {name} is {number}: there is nothing to report, look at the features"
                )
        if (self.low is None) != (self.high is None):
            raise GenzooError("an interval has two ends: give both low and high, or neither")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise GenzooError(f"an interval ends above its begin, got low {self.low} and high {self.high}")

    @classmethod
    def from_stderr(
        cls,
        value: float,
        stderr: float | None,
        references: int,
        *,
        samples: int = 0,
        interval: str = ERRORS,
        floor: float | None = None,
        higher_is_better: bool | None = False,
        reach: float = REACH,
    ) -> Self:
        """With the interval of `reach` standard errors on either side; without one where `stderr` is None."""
        low, high = (None, None) if stderr is None else (value - reach * stderr, value + reach * stderr)
        how = None if stderr is None else interval
        return cls(value, samples, references, low, high, how, floor, higher_is_better, stderr)

    @property
    def direction(self) -> Direction:
        """Which figures are best; of a figure by itself."""
        if self.best is not None:
            return "nearest 0" if self.best == 0 else "nearest real"
        return {True: "higher", False: "lower", None: "neither"}[self.higher_is_better]  # pyright: ignore

    def directed(self, direction: Direction) -> "Estimate":
        """The same figure with this direction; without a reference value nothing is nearest to it."""
        best = {"nearest real": self.reference, "nearest 0": 0.0}.get(direction)
        better = {"higher": True, "lower": False}.get(direction)
        return replace(self, higher_is_better=better, best=best)

    def __str__(self) -> str:
        """For a cell of a table: the value, its interval, and the reference value.

        >>> print(Estimate(12.34567, 1000, 1000, low=11.9, high=12.81, reference=0.52))
        12.35 [11.9, 12.81] (real 0.52)
        """
        text = f"{self.value:.4g}"
        if self.low is not None:
            text += f" [{self.low:.4g}, {self.high:.4g}]"
        return text if self.reference is None else f"{text} (real {self.reference:.3g})"


def check_features(real: Tensor, fake: Tensor, metric: str) -> None:
    """Refuses features that `metric` (its name, for the message) can say nothing of.

    Raises `GenzooError` unless both are matrices of real numbers, of one width and two or more rows each, all finite.
    """
    for name, rows in (("real", real), ("generated", fake)):
        if not isinstance(rows, Tensor):
            raise GenzooError(
                f"{metric} takes features as torch tensors, the {name} ones are a {type(rows).__name__}: give "
                "torch.as_tensor(...) of them"
            )
        check_dense(rows, f"the {name} features are")
        if rows.is_complex():
            raise GenzooError(f"{metric} takes real numbers, the {name} features are complex")
        if rows.ndim != 2 or rows.shape[-1] == 0:
            raise GenzooError(
                f"{metric} takes matrices of features, a row for an image: the {name} ones have the shape "
                f"{list(rows.shape)}"
            )
        if len(rows) < 2:
            raise GenzooError(f"{metric} needs two or more {name} images, got {len(rows)}")
    if real.shape[1] != fake.shape[1]:
        raise GenzooError(
            f"{metric} compares features of one width, got {real.shape[1]} of real and {fake.shape[1]} of generated "
            "images: take both from the same network"
        )
    for name, rows in (("real", real), ("generated", fake)):
        if not bool(rows.isfinite().all()):
            raise GenzooError(f"{metric} has no value: the {name} features hold NaN or infinite values")


def check_dispersion(rows: Tensor, metric: str, name: str = "real") -> None:
    """Refuses features `[n, d]` that do not vary at all: whatever made them saw nothing of the images.

    Generated ones may well be equal, where a generator draws one image only. Raises `GenzooError`.
    """
    if bool((rows == rows[0]).all()):
        raise GenzooError(f"all {name} features are equal: {metric} tells nothing, take other features")


def reference_value(
    metric: Metric, real: Tensor, n: int, generator: torch.Generator | None = None, *, draws: int = 1
) -> float:
    """`metric` between two disjoint random parts of `real` `[m, d]`, the mean over `draws` splits.

    One part of `n` rows stands in for `n` generated images, all other rows for the real ones. Where there are fewer
    than 2 n real images, both parts are halves: the reference of a biased metric is then higher than that of `n`
    images, which is how it must be read. Raises `GenzooError` for fewer than four real rows, two samples or one draw.
    """
    check_features(real, real, "a reference value")
    if len(real) < 4 or n < 2 or draws < 1:
        raise GenzooError(
            "a reference value needs four or more real images, two or more samples and a draw, "
            f"got {len(real)}, {n} and {draws}"
        )
    size = min(n, len(real) // 2)
    found = []
    for _ in range(draws):
        order = torch.randperm(len(real), generator=generator).to(real.device)
        found.append(metric(real[order[size:]], real[order[:size]]))
    return math.fsum(found) / draws
