"""What an encoder's vectors are worth: pure functions of feature matrices and labels.

Do equal classes lie together (nearest neighbours, average similarity to a few examples, a linear probe), do the vectors
use their space (effective rank, dispersion, uniformity). Similarity is the cosine throughout. Nothing is chosen by the
labels that an accuracy is measured on. `genzoo.evaluation.fine_tuning` trains the network on instead of freezing it.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.core.errors import GenzooError

NEIGHBOURS = 20
TEMPERATURE = 0.07  # of the neighbours' weights, as in DINO's evaluation
STRENGTHS = (1e-3, 1e-2, 0.1, 1.0)  # of the linear probe's regularisation, C of scikit-learn
MOST_ITERATIONS = 100  # per strength, each going on from the one before
MOST_AT_ONCE = 2**24  # similarities in memory
LEAST_RANK, LEAST_DISPERSION = 2.0, 0.005  # below either an encoder has collapsed
ROUNDING = 1e-6  # of the vectors' lengths: variation below it is none


@final
@dataclass(frozen=True)
class Labelled:
    """Vectors float `[n, d]` and their classes long `[n]`, on one device.

    Raises `GenzooError` where the two do not go together or there are none.
    """

    vectors: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.labels.shape != self.vectors.shape[:1]:
            raise GenzooError(
                f"vectors [n, d] need a class each, got {list(self.vectors.shape)} and {list(self.labels.shape)}"
            )
        if len(self) == 0:
            raise GenzooError("there are no vectors to probe: the split is empty or --max-images is below 1")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """One more than the largest class."""
        return int(self.labels.max()) + 1

    def __getitem__(self, chosen: Tensor) -> "Labelled":
        return Labelled(self.vectors[chosen], self.labels[chosen])


class Share(NamedTuple):
    """An accuracy, 0 to 1, and its standard error."""

    value: float
    stderr: float


def accuracy(predicted: Tensor, labels: Tensor) -> Share:
    """The share of `predicted` `[n]` that equals `labels` `[n]`; the error is that of n independent images."""
    value = (predicted == labels).double().mean().item()
    return Share(value, math.sqrt(value * (1 - value) / len(labels)))


def unit(vectors: Tensor) -> Tensor:
    """Vectors `[n, d]` scaled to length 1, float32; zeros stay zeros."""
    return F.normalize(vectors.float(), dim=1)


# --- nearest neighbours ----------------------------------------------------------------------------------------


def nearest_classes(
    bank: Labelled, queries: Tensor, *, k: int = NEIGHBOURS, temperature: float | None = TEMPERATURE
) -> Tensor:
    """The class of each query `[n, d]` by its `k` most similar vectors of `bank` (all, where it has fewer): long `[n]`.

    Each neighbour has exp(similarity / temperature) votes (Wu et al. 2018, section 3.4; Caron et al. 2021, "DINO"), or
    one without a temperature; a draw goes to the lowest class. Memory is bounded. Raises `GenzooError` for k below 1.
    """
    if k < 1:
        raise GenzooError(f"k-nearest neighbours need k of at least 1, got {k}")
    keys, asked = unit(bank.vectors), unit(queries)
    found = [
        _vote(part @ keys.T, bank.labels, bank.classes, min(k, len(bank)), temperature)
        for part in asked.split(max(1, MOST_AT_ONCE // len(bank)))
    ]
    return torch.cat(found) if found else bank.labels[:0]


def _vote(
    similarity: Tensor, labels: Tensor, classes: int, k: int, temperature: float | None
) -> Tensor:  # [b, bank] -> [b]
    nearest, places = similarity.topk(k, dim=1)
    # minus 1, the most there is, so that no temperature overflows
    votes = torch.ones_like(nearest) if temperature is None else ((nearest - 1) / temperature).exp()
    counts = votes.new_zeros(len(votes), classes).scatter_add_(1, labels[places], votes)
    return counts.argmax(1)


def knn_accuracy(
    bank: Labelled, queries: Labelled, *, k: int = NEIGHBOURS, temperature: float | None = TEMPERATURE
) -> Share:
    """The share of `queries` whose class `nearest_classes` finds."""
    return accuracy(nearest_classes(bank, queries.vectors, k=k, temperature=temperature), queries.labels)


# --- average similarity to a few examples ----------------------------------------------------------------------


def most_similar_classes(examples: Labelled, queries: Tensor) -> Tensor:
    """The class whose examples have the highest average similarity to each query `[n, d]`: long `[n]`.

    The mean of cosines is the cosine's numerator with the mean of the unit vectors.
    """
    rows = unit(examples.vectors)
    sums = rows.new_zeros(examples.classes, rows.shape[1]).index_add_(0, examples.labels, rows)
    counts = torch.bincount(examples.labels, minlength=examples.classes)
    scores = unit(queries) @ (sums / counts.clamp(min=1)[:, None]).T
    return scores.masked_fill(counts == 0, -math.inf).argmax(1)


def draw_examples(pool: Labelled, examples: int, generator: torch.Generator | None = None) -> Labelled:
    """`examples` random members of every class of `pool`.

    Raises `GenzooError` where a class has fewer.
    """
    counts = torch.bincount(pool.labels)
    present = counts.nonzero().flatten()
    fewest = int(counts[present].min())
    if not 1 <= examples <= fewest:
        raise GenzooError(
            f"{examples} examples per class cannot be drawn: the smallest class holds {fewest} held-out images"
        )
    order = torch.randperm(len(pool), generator=generator).to(pool.labels.device)
    shuffled = pool.labels[order]
    chosen = [order[(shuffled == label).nonzero().flatten()[:examples]] for label in present]
    return pool[torch.cat(chosen)]


def few_shot_accuracy(
    pool: Labelled,
    queries: Labelled,
    *,
    examples: int = 10,
    draws: int = 20,
    generator: torch.Generator | None = None,
) -> Share:
    """The share of `queries` given to their class by average similarity, with `examples` per class out of `pool`.

    `pool` must hold none of the queries. The mean is over `draws` random choices of the examples; the standard error is
    that over these and over queries together. Raises `GenzooError` where a class has too few.
    """
    right = torch.stack([
        most_similar_classes(draw_examples(pool, examples, generator), queries.vectors) == queries.labels
        for _ in range(draws)
    ]).double()  # fmt: skip
    of_draws, of_queries = (
        part.var(correction=min(1, len(part) - 1)) / len(part) for part in (right.mean(1), right.mean(0))
    )
    return Share(right.mean().item(), math.sqrt((of_draws + of_queries).item()))


# --- linear probe ----------------------------------------------------------------------------------------------


class LinearProbe(NamedTuple):
    """Accuracy of a linear classifier of frozen vectors, and its C with the validation accuracy that chose it."""

    share: Share
    strength: float
    validation: float


def linear_probe(
    train: Labelled, val: Labelled, test: Labelled, *, strengths: Sequence[float] = STRENGTHS
) -> LinearProbe:
    """Logistic regression on `train`, standardised by its statistics; C is the one that does best on `val`.

    A draw goes to the stronger regularisation. Raises `GenzooError` where `train` has one class only.
    """
    from sklearn.exceptions import ConvergenceWarning  # late: slow to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(train.labels.unique()) < 2:
        raise GenzooError("a linear probe needs two classes or more: the training labels are all the same")
    scaler = StandardScaler()
    rows, *others = (
        step(part.vectors.double().cpu().numpy())
        for step, part in ((scaler.fit_transform, train), (scaler.transform, val), (scaler.transform, test))
    )
    model = LogisticRegression(max_iter=MOST_ITERATIONS, warm_start=True)
    best = LinearProbe(Share(0.0, 0.0), 0.0, -1.0)
    for strength in sorted(strengths):
        model.set_params(C=strength)
        with warnings.catch_warnings():
            # validation decides what is good enough
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows, train.labels.cpu().numpy())
        on_val, on_test = (torch.from_numpy(model.predict(part)) for part in others)
        validation = accuracy(on_val, val.labels.cpu()).value
        if validation > best.validation:
            best = LinearProbe(accuracy(on_test, test.labels.cpu()), strength, validation)
    return best


# --- how the space is used -------------------------------------------------------------------------------------


def alignment(first: Tensor, second: Tensor) -> float:
    """E |f(x) - f(x')|^2 of positive pairs, rows of `first` and `second` `[n, d]`, as unit vectors: 0 is best.

    Wang & Isola 2020, equation 1 with alpha = 2.
    """
    return (unit(first) - unit(second)).double().square().sum(1).mean().item()


def uniformity(vectors: Tensor, t: float = 2.0) -> float:
    """log E exp(-t |f(x) - f(y)|^2) over pairs of different rows of `vectors` `[n, d]`, as unit vectors.

    0 for a single point; -2 t is about the best of many dimensions. Wang & Isola 2020, equation 2. Memory is bounded.
    Raises `GenzooError` for fewer than two vectors.
    """
    n = len(vectors)
    if n < 2:
        raise GenzooError(f"uniformity needs two vectors or more, got {n}")
    rows = unit(vectors).double()
    total = sum(
        (2 * t * (part @ rows.T - 1)).exp().sum().item() for part in rows.split(max(1, MOST_AT_ONCE // n))
    )
    own = (2 * t * (rows.square().sum(1) - 1)).exp().sum().item()  # of each row with itself
    return math.log((total - own) / (n * (n - 1)))


def effective_rank(vectors: Tensor) -> float:
    """exp of the entropy of the singular values' shares, of `[n, d]` less its mean: how many dimensions are used.

    Roy & Vetterli 2007, equations 1 to 4. d where the covariance is a multiple of the identity, 1 on a line, 0 in one
    point (up to rounding).
    """
    rows = vectors.double()
    values = torch.linalg.svdvals(rows - rows.mean(0))
    values = values[values > ROUNDING * rows.norm()]
    if len(values) == 0:
        return 0.0
    shares = values / values.sum()
    return math.exp(torch.special.entr(shares).sum().item())


@dataclass(frozen=True)
class Collapse:
    """Whether vectors `[n, width]` use their space."""

    width: int
    effective_rank: float
    std: float
    """Standard deviation of a dimension, the mean over dimensions; in the units of the vectors."""
    least_std: float
    """That of the dimension that varies least."""
    dispersion: float
    """1 - |mean of the unit vectors|^2: 0 where all point the same way, 1 where directions balance out."""

    @classmethod
    def of(cls, vectors: Tensor) -> "Collapse":
        """The figures of `[n, width]`."""
        stds = vectors.double().std(0, correction=0)
        mean = unit(vectors).double().mean(0)
        dispersion = max(0.0, 1 - mean.square().sum().item())
        width = vectors.shape[1]
        return cls(width, effective_rank(vectors), stds.mean().item(), stds.min().item(), dispersion)

    @property
    def collapsed(self) -> bool:
        """Whether nearly all vectors lie in one point or on one line: an effective rank below `LEAST_RANK` (in two or
        three dimensions below half of these), or an average cosine of two images above 1 - `LEAST_SPREAD`."""
        return self.effective_rank < min(LEAST_RANK, self.width / 2) or self.dispersion < LEAST_DISPERSION
