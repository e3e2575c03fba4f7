"""Vectors for a text: a prior over a clip encoder's vectors, weighed by how well each goes with the text.

    p(c | t)  =  p(c) p(t | c) / p(t)                        Bayes; c the vector of an image, t a text
    p(t | c) / p(t)  ~  exp(scale cosine(c, t) + const)      what clip's objective learns: its logits

The second line is the optimum of InfoNCE (van den Oord, Li & Vinyals 2018, section 2.3), hence of CLIP's loss (Radford
et al. 2021, figure 3), and up to its bias of SigLIP's. So nothing is left to be learned: of many vectors of the prior
some are kept, with probabilities proportional to the right side (sampling-importance-resampling, Rubin 1987). It is
without replacement, as doubles would be drawn twice (Gelman et al., "Bayesian Data Analysis", section 10.4). unCLIP
(Ramesh et al. 2022) learns p(c | t) instead; its decoder is the generator here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.models.encoders.clip import ClipEncoder
from genzoo.models.prior.with_prior import WithPrior
from genzoo.objectives.contrastive import cosines

POOL = 2048
"""Vectors that are drawn at first."""
DOUBLINGS = 5
"""How often there may be twice as many, for a text that fits few of them."""
ENOUGH = 4
"""Effective vectors for each one kept: with fewer, no replacement makes the weights more equal than they are."""


@dataclass(frozen=True)
class Resampled:
    """The vectors kept `[n, d]`; how many equally weighed ones the weights are worth; and how many there were."""

    vectors: Tensor
    effective: float
    pool: int


def vectors_for_text(
    model: WithPrior,
    encoder: ClipEncoder,
    text: str,
    n: int,
    *,
    pool: int = POOL,
    weight: float = 1.0,
    generator: torch.Generator | None = None,
) -> Resampled:
    """`n` condition vectors `[n, cond_size]` of images that `text` would be said of: draws from p(c) p(t | c)^weight.

    `encoder` is the one whose vectors `model` was trained on; `pool` vectors are drawn at first, up to 32 times as
    many for a text that is rarely right. Raises `GenzooError` where too few of them fit the text, for an empty text,
    and for vectors of another encoder.
    """
    if encoder.shared_width != model.spec.cond_size:
        raise GenzooError(
            f"the model was trained on vectors of {model.spec.cond_size} numbers, those that its encoder shares with "
            f"texts have {encoder.shared_width}: train it anew with this encoder"
        )
    if not text.strip():
        raise GenzooError('the text is empty: give one such as "a sneaker"')

    def draw(count: int) -> Tensor:
        return model.prior.sample(count, generator=generator)

    def score(vectors: Tensor) -> Tensor:
        return weight * text_logits(encoder, vectors, text)

    found = resampled(draw, score, n, pool=pool, generator=generator)
    if found.effective < n:
        raise GenzooError(
            f'"{text}" fits next to none of {found.pool} vectors of the prior: they are worth '
            f"{found.effective:.0f} for {n} images; ask for fewer, or say it as the captions in training did"
        )
    return found


def text_logits(encoder: ClipEncoder, vectors: Tensor, text: str) -> Tensor:
    """log p(text | vector) up to a constant, `[n]`, of vectors `[n, shared_width]` of any length."""
    with torch.no_grad():
        cosine = cosines(vectors.to(encoder.device), encoder.embed_text([text]))[:, 0]
        return encoder.logits(cosine).to(vectors.device)


def resampled(
    draw: Callable[[int], Tensor],
    score: Callable[[Tensor], Tensor],
    n: int,
    *,
    pool: int = POOL,
    generator: torch.Generator | None = None,
) -> Resampled:
    """`n` of many vectors `draw(count)` `[count, d]`, kept with weights exp(`score(vectors)`), `[count]` in nats.

    The distribution of one of them tends to draw's times exp(score) as the pool grows. It is doubled while its
    effective size falls short.
    """
    vectors = draw(max(pool, ENOUGH * n))
    scores = score(vectors).double()
    for _ in range(DOUBLINGS):
        if effective_size(scores) >= ENOUGH * n:
            break
        more = draw(len(vectors))
        vectors, scores = torch.cat([vectors, more]), torch.cat([scores, score(more).double()])
    chosen = without_replacement(scores, n, generator)
    return Resampled(vectors[chosen], effective_size(scores), len(vectors))


def effective_size(scores: Tensor) -> float:
    """(sum w)^2 / sum w^2 of weights w = exp(scores) `[k]`, from 1 to k (Kong 1992).

    >>> round(effective_size(torch.tensor([3.0, 3.0, -100.0])), 6)
    2.0
    """
    return scores.double().softmax(0).square().sum().reciprocal().item()


def without_replacement(scores: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """`n` different places, long `[n]`, drawn one after the other with weights exp(scores) `[k]` among those left.

    By Gumbel's trick: the largest of scores + Gumbel noise (Kool, van Hoof & Welling 2019, theorem 1).
    """
    device = scores.device if generator is None else generator.device
    exponential = torch.empty(len(scores), dtype=torch.float64, device=device).exponential_(
        generator=generator
    )
    return (scores.double() - exponential.log().to(scores.device)).topk(n).indices
