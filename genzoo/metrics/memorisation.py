"""Does a model copy its training images? Distances of samples to the training set, against what fresh images show.

    authenticity   share of samples that lie farther from their nearest training point than that one from its own
                   nearest other one                                             (Alaa et al. 2022, section 4.3)
    C_T            z-score of the Mann-Whitney test of whether samples lie farther from the training points than
                   held-out real images do; the mean over cells, as copies in one mode can hide behind noise in
                   another one, weighted by held-out points
                                                                                 (Meehan et al. 2020, section 4)

Copies have authenticity 0 and C_T far below 0, samples worse than real images high values of both. Perfect samples have
an authenticity of 1 less the chance that two points are each other's nearest, over 2 or so: 1/3 in one dimension, 0.378
in two, rising to 1/2; so read it beside that of held-out images. No test split is needed: any images will do that
neither the model nor its choice has seen.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.metrics.estimate import check_dispersion, check_features
from genzoo.metrics.neighbours import BLOCK_MIB, SURFACE, Nearest, nearest, nearest_others
from genzoo.metrics.roc import auroc, auroc_stderr

CELLS = 3

COMPONENTS = 64

FEWEST = 20
"""Samples that a cell must hold for its z-score to count; as in the authors' code."""


class Authenticity(NamedTuple):
    """`value` is the share of authentic samples with its standard error; `authentic` tells it of each, bool `[n]`."""

    value: float
    stderr: float
    authentic: Tensor


class DataCopying(NamedTuple):
    """C_T over the cells that hold enough points.

    `value` is the mean of the cells' z-scores weighted by their held-out points: far below 0 is copying, far above
    samples that stray. `stderr` is its standard error over samples and held-out points, for these training points and
    cells. `cells` holds the z-score of each cell, NaN for those left out.
    """

    value: float
    stderr: float
    weights: tuple[int, ...]
    cells: tuple[float, ...]
    n_train: int
    n_held_out: int
    n_fake: int

    @property
    def z(self) -> float:
        """`value` over its standard deviation where samples and held-out points have one distribution: standard normal
        there. That deviation is 1 of a single cell, and 3^(-1/2) of three cells with as many points each."""
        spread = math.sqrt(math.fsum(w * w for w in self.weights))
        return self.value * sum(self.weights) / spread


class Suspects(NamedTuple):
    """Samples from the most suspicious on, long `[n]`: the training point nearest to each, its distance, the ratio.

    The ratio is that distance over the training point's to its nearest other one: far below 1 is a near copy.
    """

    samples: Tensor
    train: Tensor
    distances: Tensor
    ratios: Tensor


def authenticity(train: Tensor, fake: Tensor, *, block_mib: float = BLOCK_MIB) -> Authenticity:
    """The share of `fake` `[m, d]` that is authentic with respect to `train` `[n, d]`, both features.

    Samples at just the distance of the training point's neighbour are not. Raises `GenzooError` for features that
    are no matrices of one width or not finite, for fewer than two, and for training features that are all equal.
    """
    _check(train, fake, "authenticity")
    found, own = _to_train(train, fake, block_mib)
    authentic = found.distances[:, 0] > own * (1 + SURFACE)
    value = authentic.double().mean().item()
    return Authenticity(value, math.sqrt(value * (1 - value) / len(fake)), authentic)


def data_copying(
    train: Tensor,
    held_out: Tensor,
    fake: Tensor,
    *,
    cells: int = CELLS,
    components: int | None = COMPONENTS,
    seed: int = 0,
    block_mib: float = BLOCK_MIB,
) -> DataCopying:
    """C_T of `fake` `[m, d]` against `held_out` `[n, d]`, given the training features `train` `[t, d]`.

    Features are first projected onto that many principal `components` of the training features (None: left alone), in
    which k-means with `seed` makes the `cells`. Within a cell only its own training points count. A cell
    without 20 samples and 20 held-out points is left out. Raises `GenzooError` as `authenticity` does, and where
    no cell has enough of both.
    """
    _check(train, held_out, "C_T")
    _check(train, fake, "C_T")
    if cells < 1 or (components is not None and components < 1):
        raise GenzooError(f"C_T needs a cell and a component at least, got {cells} and {components}")
    sets = _projected([rows.detach().cpu().double() for rows in (train, held_out, fake)], components)
    members = _cells(*sets, cells=cells, seed=seed)
    scores, errors, weights = [], [], []
    for cell in range(cells):
        points, real, drawn = (rows[of == cell] for rows, of in zip(sets, members, strict=True))
        enough = min(len(real), len(drawn)) >= FEWEST and len(points) > 1
        near = [
            nearest(rows, points, block_mib=block_mib).distances[:, 0] for rows in (real, drawn) if enough
        ]
        scores.append(mann_whitney_z(near[1], near[0]) if enough else math.nan)
        errors.append(_stderr_of_z(near[1], near[0]) if enough else 0.0)
        weights.append(len(real) if enough else 0)
    return _combined(scores, errors, weights, [len(rows) for rows in sets])


def mann_whitney_z(first: Tensor, second: Tensor) -> float:
    """How much greater the values `first` `[m]` are than `second` `[n]`, standard normal for equal distributions.

        z = (U - m n / 2) / s,   s^2 = m n / 12 ((m + n + 1) - sum_ties (t^3 - t) / ((m + n) (m + n - 1)))

    where U counts the pairs in which the first value is the greater one, ties half (Mann & Whitney 1947). No
    correction for continuity; 0 where all values are equal. Raises `GenzooError` where one has no values.
    """
    m, n = len(first), len(second)
    if min(m, n) < 1:
        raise GenzooError(f"ranks are compared between two sets with values, got {m} and {n}")
    deviation = _deviation_of_u(first, second)
    return 0.0 if not deviation else m * n * (auroc(second, first) - 0.5) / deviation


def _deviation_of_u(first: Tensor, second: Tensor) -> float:
    """s of `mann_whitney_z`; 0 where all values are equal."""
    m, n = len(first), len(second)
    ties = torch.unique(torch.cat([first, second]), return_counts=True)[1].double()
    tied = (ties**3 - ties).sum().item() / ((m + n) * (m + n - 1))
    variance = m * n / 12 * (m + n + 1 - tied)
    return 0.0 if variance <= 1e-9 * m * n else math.sqrt(variance)


def _stderr_of_z(first: Tensor, second: Tensor) -> float:
    """The standard error of `mann_whitney_z` whatever the distributions: that of U / (m n), an area under the ROC curve
    (DeLong et al. 1988), in units of s. 1 or so for equal distributions, smaller where samples are copies."""
    deviation, error = _deviation_of_u(first, second), auroc_stderr(second, first)
    return 0.0 if not deviation or error is None else error * len(first) * len(second) / deviation


def suspects(train: Tensor, fake: Tensor, *, block_mib: float = BLOCK_MIB) -> Suspects:
    """All samples, features `fake` `[m, d]`, by how much nearer they are to a training point than that to others.

    Raises `GenzooError` as `authenticity` does.
    """
    _check(train, fake, "the search for copies")
    found, own = _to_train(train, fake, block_mib)
    distances, indices = found.distances[:, 0], found.indices[:, 0]
    # of a training image that is there twice any other sample is infinitely far, but a third copy is one
    ratios = torch.where(distances == 0, 0.0, distances / own)
    order = ratios.argsort(stable=True)
    return Suspects(order, indices[order], distances[order], ratios[order])


def _to_train(train: Tensor, fake: Tensor, block_mib: float) -> tuple[Nearest, Tensor]:
    """The training point nearest to each sample, and how far its nearest other one is from it `[m]`."""
    found = nearest(fake, train, block_mib=block_mib)
    used, places = found.indices[:, 0].unique(return_inverse=True)
    return found, nearest_others(train, only=used, block_mib=block_mib).distances[:, 0][places]


def _check(train: Tensor, other: Tensor, what: str) -> None:
    check_features(train, other, what)
    check_dispersion(train, what, "training")


def _projected(sets: list[Tensor], components: int | None) -> list[Tensor]:
    """Rows of all sets on the principal components of the first, centred on its mean."""
    mean = sets[0].mean(0)
    sets = [rows - mean for rows in sets]
    if components is None or sets[0].shape[1] <= components:
        return sets
    _, axes = torch.linalg.eigh(sets[0].T @ sets[0])  # eigenvalues ascend
    return [rows @ axes[:, -components:] for rows in sets]


def _cells(train: Tensor, *others: Tensor, cells: int, seed: int) -> list[Tensor]:
    """The k-means cluster of the training rows that each row is in, long `[n]` for each set."""
    from sklearn.cluster import KMeans

    different = len(train.unique(dim=0))
    if different < cells:
        raise GenzooError(f"{different} different training features make no {cells} cells: ask for fewer")
    found = KMeans(cells, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    found.fit(train.numpy())
    return [torch.from_numpy(found.predict(rows.numpy())).long() for rows in (train, *others)]


def _combined(scores: list[float], errors: list[float], weights: list[int], sizes: list[int]) -> DataCopying:
    """sum P_n(cell) Z(cell) / sum P_n(cell), P_n shares of held-out points (Meehan et al. 2020, section 4)."""
    total = sum(weights)
    if not total:
        raise GenzooError(
            f"no cell holds {FEWEST} samples and {FEWEST} held-out images: give more of them, or ask for fewer cells"
        )
    value = math.fsum(w * z for w, z in zip(weights, scores, strict=True) if w) / total
    stderr = math.sqrt(math.fsum((w * e) ** 2 for w, e in zip(weights, errors, strict=True))) / total
    return DataCopying(value, stderr, tuple(weights), tuple(scores), *sizes)
