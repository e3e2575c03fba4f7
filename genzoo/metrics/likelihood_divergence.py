"""Feature likelihood divergence (FLD): how likely samples, taken for a density, find images nobody was trained on.

Jiralerspong et al. 2023 put an isotropic Gaussian on each generated image in feature space, fit every Gaussian's
variance to the training images and ask for the likelihood of test images:

    p(x) = 1 / m sum_j N(x; y_j, s_j I),    s = argmax of log-likelihood of the training images
    FLD  = 100 (NLL(test; y) - NLL(test; real)) / d,    lower is better

Samples that are far from the data or miss some of it score badly, and so do copies of training images, on which
variances shrink to nothing. The second term makes 0 of what real images get: one half of the training images in place
of the samples, fitted to the other half. So give at most half as many samples as there are training images: of more,
the mixture is finer than the one it is compared with. Samples that vary a little less than the data score below 0.

Constants and procedure are those of the authors' code, since they are part of the definition: features standardised on
the test images; variances that start at the best one for the nearest training image; 50 steps of Adam at a rate of 0.5,
short of convergence; and while fitting, one more Gaussian at the mean of the training images, a little nearer to each
of them than it is, so that no image is impossible and samples far from all need not stretch.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.metrics.estimate import check_dispersion, check_features
from genzoo.metrics.kernels import squared_distances

NAME = "the feature likelihood divergence"
STEPS = 50
RATE = 0.5
NEAREST = 1e-3
"""Added to squared distances to the nearest training image, so that copies have a variance to start from."""
ORIGIN_SCALE = (1 - 0.1) ** 2
"""Of squared distances to the mean of the training images."""
LOG_VARIANCES = (-40.0, 20.0)
MOST = 10_000
"""Rows of each set beyond which a random part is taken: distances of all pairs are kept."""
CHUNK = 64
"""Training images at once: bounds memory."""


class LikelihoodDivergence(NamedTuple):
    """FLD, its standard error over test images, and what it was made of.

    `gap` is 100 times the training images' negative log-likelihood per feature less the test images': below 0 where
    samples know the training images better, far below for copies (numbers may then be astronomical). `nll` and
    `baseline` are nats per feature of test images under samples and under real images.
    """

    value: float
    stderr: float
    gap: float
    nll: float
    baseline: float


def feature_likelihood_divergence(
    train: Tensor, test: Tensor, fake: Tensor, *, generator: torch.Generator | None = None, most: int = MOST
) -> LikelihoodDivergence:
    """FLD of `fake` `[m, d]` given features of the model's training images `[n, d]` and of test images `[k, d]`.

    Takes at most `most` rows of each set, and 4 n m bytes for their distances. `generator` (on the CPU) splits the
    training images and chooses rows. Features that are the same for all images are left out. Raises `GenzooError`
    unless the matrices have one width, are finite and have two rows or more (four for training), and where all
    training or all test features are equal.
    """
    check_features(train, fake, NAME)
    check_features(test, fake, NAME)
    check_dispersion(train, NAME, "training")
    check_dispersion(test, NAME, "test")
    if len(train) < 4:
        raise GenzooError(f"{NAME} needs four or more training images, got {len(train)}")
    train, test, fake = (_at_most(most, rows, generator) for rows in (train, test, fake))
    train, test, fake = _standardised(train, test, fake)
    variances = _fitted(fake, train)
    losses, own = _losses(test, fake, variances), _losses(train, fake, variances)
    shuffled = train[torch.randperm(len(train), generator=generator).to(train.device)]
    size = min(len(fake), len(train) // 2)
    half, other = shuffled[:size], shuffled[size:]
    baseline = _losses(test, half, _fitted(half, other))
    divergence = 100 * (losses - baseline)
    return LikelihoodDivergence(
        value=divergence.mean().item(),
        stderr=(divergence.var() / len(divergence)).sqrt().item(),
        gap=100 * (own.mean() - losses.mean()).item(),
        nll=losses.mean().item(),
        baseline=baseline.mean().item(),
    )


def _at_most(most: int, rows: Tensor, generator: torch.Generator | None) -> Tensor:
    rows = rows.detach()
    if len(rows) > most:
        rows = rows[torch.randperm(len(rows), generator=generator)[:most].to(rows.device)]
    return rows.double()


def _standardised(train: Tensor, test: Tensor, fake: Tensor) -> list[Tensor]:
    """Mean 0 and deviation 1 on the test images; where those do not vary, on all, and where these do not, left out."""
    pooled = torch.cat([train, test, fake])
    varies = (pooled != pooled[0]).any(0)
    mean, deviation = test.mean(0), test.std(0)
    deviation = torch.where((test != test[0]).any(0), deviation, pooled.std(0))
    return [((rows - mean) / deviation)[:, varies] for rows in (train, test, fake)]


def _fitted(centres: Tensor, train: Tensor) -> Tensor:
    """Logarithms of the variances `[m]` of Gaussians at `centres` `[m, d]`, fitted to `train` `[n, d]`."""
    d = train.shape[1]
    distances = _distances(centres, train)
    log_s = torch.zeros(len(centres) + 1, dtype=torch.float64, device=train.device)
    log_s[:-1] = ((distances[:, :-1].amin(0).double() + NEAREST) / d).log()
    adam = torch.optim.Adam([log_s], lr=RATE)
    for _ in range(STEPS):
        log_s.grad = _gradient(distances, log_s, d)
        adam.step()
        log_s[:-1].clamp_(*LOG_VARIANCES)
    return log_s[:-1]


def _distances(centres: Tensor, train: Tensor) -> Tensor:
    """Squared distances to all centres and, reduced, to the mean, `[n, m + 1]`, exact but rounded to float32."""
    found = torch.empty(len(train), len(centres) + 1, device=train.device)
    for rows, part in zip(train.split(CHUNK), found.split(CHUNK), strict=True):
        part[:, :-1] = squared_distances(rows, centres)
    found[:, -1] = ORIGIN_SCALE * (train - train.mean(0)).square().sum(1)
    return found


def _gradient(distances: Tensor, log_s: Tensor, d: int) -> Tensor:
    """That of the mean negative log-likelihood per feature: of responsibilities r, mean r (1 - distance / (s d)) / 2.

    By hand, for which a part of the rows at a time will do.
    """
    precisions, offsets = (-log_s).exp(), -d / 2 * log_s
    offsets[:-1] -= math.log(len(log_s) - 1)
    slopes, heights = (-0.5 * precisions).float(), offsets.float()
    totals = torch.zeros(2, len(log_s), dtype=torch.float64, device=log_s.device)
    for part in distances.split(CHUNK):
        shares = torch.addcmul(heights, part, slopes).softmax(1)
        ones = shares.new_ones(len(part))
        totals[0] += ones @ shares
        totals[1] += ones @ shares.mul_(part)
    return (totals[0] - totals[1] * precisions / d) / (2 * len(distances))


def _losses(rows: Tensor, centres: Tensor, log_s: Tensor) -> Tensor:
    """Negative log-likelihoods of `rows` `[k, d]`, nats per feature, `[k]`."""
    d = rows.shape[1]
    offsets = -d / 2 * (log_s + math.log(2 * math.pi)) - math.log(len(centres))
    found = []
    for part in rows.split(CHUNK):
        exponents = squared_distances(part, centres).mul_(-0.5).mul_((-log_s).exp()).add_(offsets)
        found.append(-exponents.logsumexp(1) / d)
    return torch.cat(found)
