"""Codes as an objective: how evenly they are used, and the likelihood of an image by the codes near its own.

    P(x) = sum_z P(z) P(x|z)  >=  sum_{z in S} P(z) P(x|z)  >=  P(z*) P(x|z*)

for every set S of distinct codes that holds z*: a sum of non-negative terms is at least any part of it. With z*
the encoder's code the last is the two-part code; S adds those that differ from z* in a single position.
"""

import torch
from torch import Tensor


def code_shares(indices: Tensor, codebook_size: int) -> Tensor:
    """The share of each code per position, averaged over the batch: long `[b, h, w]` to `[h, w, codebook_size]`."""
    b, h, w = indices.shape
    cells = torch.arange(h * w, device=indices.device).view(h, w) * codebook_size + indices
    return torch.bincount(cells.flatten(), minlength=h * w * codebook_size).view(h, w, codebook_size) / b


def perplexity(shares: Tensor) -> Tensor:
    """exp of the entropy of shares `[codes]`: the number of codes in effective use, a scalar.

    >>> round(perplexity(torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0])).item(), 4)
    4.0
    """
    return torch.exp(torch.special.entr(shares).sum())


def usage(shares: Tensor) -> Tensor:
    """The share of codes that occur at all, a scalar.

    >>> usage(torch.tensor([0.9, 0.1, 0.0, 0.0]))
    tensor(0.5000)
    """
    return (shares > 0).float().mean()


def nearby_codes(distances: Tensor, count: int) -> Tensor:
    """The nearest codes `[b, h, w, k]` -> long `[b, 1 + count, h, w]`: all nearest first, then single changes.

    The changes are the `count` pairs (position, other code) that lie farther than the nearest code by least;
    all pairs where there are no more than `count`. No two of the results are equal.
    """
    b, h, w, k = distances.shape
    nearest = distances.argmin(-1)
    extra = distances - distances.amin(-1, keepdim=True)
    extra = extra.scatter(-1, nearest[..., None], torch.inf).flatten(1)  # [b, h * w * k]
    count = min(count, h * w * (k - 1))
    changed = extra.topk(count, largest=False).indices  # [b, count]
    sets = nearest.flatten(1)[:, None].repeat(1, 1 + count, 1)
    sets[:, 1:].scatter_(2, (changed // k)[..., None], (changed % k)[..., None])
    return sets.view(b, 1 + count, h, w)


def sum_over_codes(log_prior: Tensor, log_prob: Tensor) -> Tensor:
    """log sum_z P(z) P(x|z) over distinct codes: log P(z) and log P(x|z) `[b, s]` to `[b]` in nats."""
    return (log_prior + log_prob).logsumexp(1)
