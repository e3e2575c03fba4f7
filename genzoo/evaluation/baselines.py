"""Classical baselines of likelihood: what a model must beat to have learnt anything, on the same images.

    codec                -log2 P(x) <= 8 * bytes of the file: a lossless code of Kraft sum at most 1
    independent pixels   P(x) = prod_i (count_i(x_i) + 1) / (n + levels), exact
    probabilistic PCA    log P(x) >= E_u log N(x + u; mu, C), u uniform on [0, 1)^D (Tipping & Bishop 1999)
    Gaussian mixture     the same bound, with draws of u

The bounds by uniform dequantisation are those of Theis et al. 2016; bins have width one, so that the density needs
no further constant. All are fitted on training images, their sizes chosen on validation images.
"""

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self, override

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import DataSpec, check_images
from genzoo.evaluation.likelihood import LikelihoodReport, summarise
from genzoo.metrics.codecs import CODECS, Codec

_CHUNK = 1000  # images in double precision at once
UNIFORM_VARIANCE = 1 / 12  # of a uniform number on [0, 1)
PPCA_DIMS = 3072  # dimensions, at most, that a covariance is decomposed in: its time grows with their cube
MIXTURE_DIMS = 1024  # dimensions, at most, that a mixture is fitted in
MIXTURE_IMAGES = 3000  # training images, at most, that it is fitted on
CHOICE_IMAGES = 500  # validation images, at most, that its size is chosen on


class Baseline(ABC):
    """A probability of integer images that is no model of the zoo: it is fitted at once and has no samples."""

    name: str

    @abstractmethod
    def log_likelihood(self, images: Tensor) -> LogLikelihood:
        """log P of integer images `[n, c, h, w]` in nats, with its kind and protocol."""

    @final
    def report(self, images: Tensor) -> LikelihoodReport:
        """Mean and standard error over `images`. Raises `GenzooError` where there are none."""
        if len(images) == 0:
            raise GenzooError(f"there are no images to evaluate the baseline {self.name} on")
        start = time.perf_counter()
        answer = self.log_likelihood(images)
        return summarise([answer], time.perf_counter() - start)


# --- codecs --------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class CodecBaseline(Baseline):
    """A file per image. The normalised P(x) behind a code gives each image at least 2^-length: a lower bound."""

    codec: Codec
    spec: DataSpec

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The codec's."""
        return self.codec.name

    def log_likelihood(self, images: Tensor) -> LogLikelihood:
        """-8 log 2 times the bytes of each file, container included."""
        levels = self.spec.levels
        if levels is None or not self.codec.fits(self.spec):
            raise GenzooError(f"{self.name} holds integer images of at most 256 levels, not {self.spec}")
        arrays = check_images(images, self.spec).cpu().numpy()
        sizes = torch.tensor([len(self.codec.encode(a, levels)) for a in arrays], dtype=torch.float64)
        details = {
            "bytes_per_image": sizes.mean().item() if len(sizes) else 0.0,
            "options": dict(self.codec.options),
            "counted": "whole files, one per image",
        }
        return LogLikelihood(-8 * math.log(2) * sizes, LikelihoodKind.LOWER_BOUND, self.spec, details=details)


# --- independent pixels --------------------------------------------------------------------------------------


@final
class IndependentPixels(Baseline):
    """A histogram of each sub-pixel, one added to every count (Laplace's rule): exact, and it sums to 1."""

    name = "independent pixels"

    def __init__(self, counts: Tensor, spec: DataSpec) -> None:
        self.spec, self.images = spec, int(counts[0].sum())
        self.log_probs = ((counts.double() + 1) / (counts.sum(1, keepdim=True) + counts.shape[1])).log()

    @classmethod
    def fit(cls, images: Tensor, spec: DataSpec) -> Self:
        """Counts of training images `[n, c, h, w]`. Raises `GenzooError` for real-valued data."""
        if spec.levels is None:
            raise GenzooError("real-valued data have no histograms of levels: only integer images do")
        check_images(images, spec)
        counts = torch.zeros(spec.dims * spec.levels, dtype=torch.long)
        places = torch.arange(spec.dims) * spec.levels
        for part in images.split(_CHUNK):
            counts += torch.bincount((part.flatten(1).long().cpu() + places).flatten(), minlength=len(counts))
        return cls(counts.view(spec.dims, spec.levels), spec)

    def log_likelihood(self, images: Tensor) -> LogLikelihood:
        """The sum of log P over sub-pixels."""
        places = torch.arange(self.spec.dims)
        parts = check_images(images, self.spec).cpu().flatten(1).split(_CHUNK)
        nats = torch.cat([self.log_probs[places, part.long()].sum(1) for part in parts])
        details = {"fitted_on": self.images, "smoothing": 1}
        return LogLikelihood(nats, LikelihoodKind.EXACT, self.spec, details=details)


# --- probabilistic PCA ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectrum:
    """Mean `[d]` and covariance of points: eigenvalues `[d]`, largest first, and eigenvectors `[d, d]` in columns."""

    mean: Tensor
    values: Tensor
    vectors: Tensor
    points: int

    @classmethod
    def of(cls, points: Tensor, *, dequantised: bool = False) -> Self:
        """Of points `[n, d]`, with n - 1 in the denominator; `dequantised` adds the moments of uniform noise.

        Raises `GenzooError` for fewer than two points.
        """
        n, d = points.shape
        if n < 2:
            raise GenzooError(f"a covariance needs at least two images, got {n}")
        mean = torch.stack([part.double().sum(0) for part in points.split(_CHUNK)]).sum(0) / n
        covariance = torch.zeros(d, d, dtype=torch.float64)
        for part in points.split(_CHUNK):
            centred = part.double() - mean
            covariance.addmm_(centred.T, centred)
        values, vectors = torch.linalg.eigh(covariance / (n - 1))
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        if dequantised:
            return cls(mean + 0.5, values + UNIFORM_VARIANCE, vectors, n)
        return cls(mean, values, vectors, n)


@dataclass(frozen=True)
class PPCA:
    """N(mu, W W^T + s^2 I) of `components` latents at its maximum likelihood (Tipping & Bishop 1999, eqs. 7 and 8).

    The covariance keeps the largest eigenvalues of the data's and gives all other directions their mean, s^2.
    """

    spectrum: Spectrum
    components: int

    @property
    def values(self) -> Tensor:
        """Eigenvalues `[d]` of the model's covariance. Raises `GenzooError` where the noise would be zero."""
        kept, rest = self.spectrum.values[: self.components], self.spectrum.values[self.components :]
        if len(rest) == 0 or float(rest.mean()) <= 0:
            raise GenzooError(f"{self.components} components leave no noise: choose fewer")
        return torch.cat([kept, rest.mean().expand(len(rest))])

    def log_prob(self, points: Tensor) -> Tensor:
        """log density of `points` `[n, d]` in nats, float64 `[n]`."""
        values = self.values
        constant = len(values) * math.log(2 * math.pi) + values.log().sum()
        projected = (points.double() - self.spectrum.mean) @ self.spectrum.vectors
        return -0.5 * (constant + (projected.square() / values).sum(1))

    def bound(self, levels: Tensor) -> Tensor:
        """E_u log N(x + u) of integer `levels` `[n, d]`, u uniform on [0, 1)^d: at most log P(x), `[n]` in nats.

        In closed form: that of the bin's centre, less tr(C^-1) / 24.
        """
        return self.log_prob(levels.double() + 0.5) - 0.5 * UNIFORM_VARIANCE * (1 / self.values).sum()


@final
class PPCABaseline(Baseline):
    """Probabilistic PCA of uniformly dequantised images; the expectation over the noise is exact."""

    name = "probabilistic PCA"

    def __init__(self, model: PPCA, spec: DataSpec) -> None:
        self.model, self.spec = model, spec

    @classmethod
    def choose(
        cls, train: Tensor, val: Tensor, spec: DataSpec, candidates: Iterable[int] | None = None
    ) -> Self:
        """Fitted on integer images `train`, with as many components as do best on `val`."""
        if spec.levels is None:
            raise GenzooError("real-valued data are not dequantised: this baseline is for integer images")
        spectrum = Spectrum.of(check_images(train, spec).cpu().flatten(1), dequantised=True)
        points = check_images(val, spec).cpu().flatten(1)
        numbers = component_numbers(spec.dims) if candidates is None else list(candidates)
        models = [PPCA(spectrum, k) for k in numbers]
        return cls(max(models, key=lambda model: float(model.bound(points).mean())), spec)

    @override
    def log_likelihood(self, images: Tensor) -> LogLikelihood:
        parts = check_images(images, self.spec).cpu().flatten(1).split(_CHUNK)
        nats = torch.cat([self.model.bound(part) for part in parts])
        details = {
            "components": self.model.components,
            "chosen_on": "val",
            "fitted_on": self.model.spectrum.points,
            "dequantisation": "uniform, expectation in closed form",
        }
        return LogLikelihood(nats, LikelihoodKind.LOWER_BOUND, self.spec, details=details)


def component_numbers(dims: int) -> list[int]:
    """Candidates: 0, and powers of two and their threefold halves below `dims`, and `dims` - 1 (nearly all free).

    >>> component_numbers(9)
    [0, 1, 2, 3, 4, 6, 8]
    """
    powers = [2**k for k in range(dims.bit_length())]
    numbers = {0, dims - 1, *powers, *(3 * p // 2 for p in powers)}
    return sorted(k for k in numbers if 0 <= k < dims)


# --- Gaussian mixtures ---------------------------------------------------------------------------------------


def dequantised(images: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """`draws` copies of integer images `[n, d]`, one after the other, with noise on [0, 1): `[draws * n, d]`."""
    rng = np.random.default_rng(seed)
    return np.concatenate([images + rng.random(images.shape) for _ in range(draws)])


def mixture_bound(mixture: Any, images: np.ndarray, *, draws: int = 10, seed: int = 0) -> np.ndarray:
    """Mean over `draws` of log p(x + u) of scikit-learn's `mixture`, nats `[n]`: in expectation at most log P(x)."""
    scores = mixture.score_samples(dequantised(images, draws, seed))
    return scores.reshape(draws, len(images)).mean(0)


def bits_per_dim_of(mixture: Any, images: np.ndarray, *, draws: int = 10, seed: int = 0) -> float:
    """Upper bound on the mean bits/dim of integer images `[n, d]`."""
    nats = mixture_bound(mixture, images, draws=draws, seed=seed).mean()
    return float(-nats / (images.shape[1] * math.log(2)))


def best_mixture(
    train: np.ndarray,
    val: np.ndarray,
    *,
    covariances: Sequence[str] = ("diag",),
    components: Sequence[int] = (10, 40, 80),
    regularisation: Sequence[float] = (1e-1,),
    most_full: int = 20,
) -> tuple[float, Any]:
    """The fewest bits/dim on integer images `val` `[n, d]`, and scikit-learn's mixture of dequantised `train` behind.

    Full covariances of more than `most_full` components are left out (they have more parameters than a small
    data set has numbers), and so are more components than images. Raises `GenzooError` where nothing is left.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    best: tuple[float, Any] | None = None
    for covariance, k, floor in product(covariances, components, regularisation):
        if (covariance == "full" and k > most_full) or k > len(train):
            continue
        mixture = GaussianMixture(k, covariance_type=covariance, reg_covar=floor, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 100 iterations do at three decimals
            mixture.fit(dequantised(train, 3, seed=1))
        score = bits_per_dim_of(mixture, val, seed=2)
        if best is None or score < best[0]:
            best = score, mixture
    if best is None:
        raise GenzooError(
            f"no mixture to fit: {len(train)} images are fewer than {min(components)} components"
        )
    return best


@final
class MixtureBaseline(Baseline):
    """A Gaussian mixture of uniformly dequantised images, the expectation over the noise by draws."""

    name = "Gaussian mixture"

    def __init__(self, mixture: Any, spec: DataSpec, *, draws: int = 10) -> None:
        self.mixture, self.spec, self.draws = mixture, spec, draws

    @classmethod
    def choose(cls, train: Tensor, val: Tensor, spec: DataSpec) -> Self:
        """Diagonal, fitted on integer images `train` (the first few thousand), its size chosen on `val`."""
        few = (check_images(train, spec)[:MIXTURE_IMAGES], check_images(val, spec)[:CHOICE_IMAGES])
        arrays = [images.cpu().flatten(1).numpy().astype(float) for images in few]
        sizes = [k for k in (1, 20, 80) if k <= len(train)]
        # the more dimensions, the less is left of the noise in their sum
        draws = 10 if spec.dims <= 100 else 2
        return cls(best_mixture(*arrays, components=sizes)[1], spec, draws=draws)

    def log_likelihood(self, images: Tensor) -> LogLikelihood:
        """The bound, with fixed draws."""
        points = check_images(images, self.spec).cpu().flatten(1).numpy().astype(float)
        nats = torch.from_numpy(mixture_bound(self.mixture, points, draws=self.draws, seed=3))
        details = {
            "components": self.mixture.n_components,
            "covariance": self.mixture.covariance_type,
            "chosen_on": "val",
            "fitted_on": f"at most {MIXTURE_IMAGES} training images",
            "dequantisation": f"uniform, {self.draws} draws",
        }
        return LogLikelihood(nats, LikelihoodKind.LOWER_BOUND, self.spec, details=details)


# --- all of them ---------------------------------------------------------------------------------------------


def fitted_baselines(train: Tensor, val: Tensor, spec: DataSpec) -> list[Baseline]:
    """Every baseline that suits integer images of `spec`; PCA and mixtures where there are not too many dimensions."""
    found: list[Baseline] = [IndependentPixels.fit(train, spec)]
    if min(len(train), len(val)) < 2:
        return found
    if spec.dims <= PPCA_DIMS:
        found.append(PPCABaseline.choose(train, val, spec))
    if spec.dims <= MIXTURE_DIMS:
        found.append(MixtureBaseline.choose(train, val, spec))
    return found


def codec_baselines(spec: DataSpec, codecs: Sequence[Codec] = CODECS) -> list[CodecBaseline]:
    """The codecs that are available here and can hold images of `spec`."""
    return [CodecBaseline(codec, spec) for codec in codecs if codec.available and codec.fits(spec)]
