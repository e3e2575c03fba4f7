"""Which noise goes with which image of a batch.

    independent           (x, eps) ~ p(x) N(eps; 0, 1): diffusion, and the likelihood bound of any model
    optimal transport     the permutation of the batch's noise that minimises sum_i |x_i - eps_i|^2

Both leave the noise of the whole batch as it was, so a flow still carries N(0, 1) to the data; transport makes its
paths straighter and the regression less noisy (Pooladian et al. 2023, "Multisample Flow Matching"; Tong et al.
2024, "Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport").
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from typing_extensions import override

from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError


class Coupling(Configurable, ABC):
    """Rearranges a batch's noise."""

    @abstractmethod
    def pair(self, x: Tensor, eps: Tensor, labels: Tensor | None = None) -> Tensor:
        """`eps` `[b, ...]` with its rows permuted, row i for data `x[i]`; `labels` long `[b]` are the classes."""


@dataclass(frozen=True)
class Independent(Coupling):
    """As drawn."""

    @override
    def pair(self, x: Tensor, eps: Tensor, labels: Tensor | None = None) -> Tensor:
        return eps


@dataclass(frozen=True)
class OptimalTransport(Coupling):
    """Exact assignment over the whole batch: for models without a condition.

    With a condition it is biased: a class takes the noise that lies near its images, so p(eps | class) is not
    N(0, 1) any more, while sampling starts every class from N(0, 1) (Cheng & Schwing 2025, "The Curse of
    Conditions").
    """

    def pair(self, x: Tensor, eps: Tensor, labels: Tensor | None = None) -> Tensor:
        """`eps` permuted; `labels` play no part."""
        return eps[_assignment(x, eps)]


@dataclass(frozen=True)
class ClassAwareOptimalTransport(Coupling):
    """Exact assignment within each class of the batch.

    Noise and classes were drawn independently and noise never changes its class, so p(eps | class) stays N(0, 1):
    the paths become straighter and the conditional model remains right.
    """

    def pair(self, x: Tensor, eps: Tensor, labels: Tensor | None = None) -> Tensor:
        """`eps` permuted within classes; raises `GenzooError` where `labels` are no classes."""
        if labels is None or labels.shape != x.shape[:1] or labels.is_floating_point():
            raise GenzooError(
                "pairing noise within classes needs one class per image: use OptimalTransport for a model without a "
                "condition, Independent for one with vectors"
            )
        order = torch.arange(len(x), device=eps.device)
        labels = labels.to(eps.device)
        for label in labels.unique():
            (rows,) = torch.where(labels == label)
            order[rows] = rows[_assignment(x[rows.to(x.device)], eps[rows])]
        return eps[order]


def _assignment(x: Tensor, eps: Tensor) -> Tensor:
    """For each row of `x` its row of `eps`, long `[b]` on the device of `eps`.

    |x_i - eps_j|^2 = |x_i|^2 + |eps_j|^2 - 2 <x_i, eps_j>, of which only the last term depends on who goes with
    whom. Autocast is kept out: in bf16 many costs would tie.
    """
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        affinity = x.flatten(1).float() @ eps.to(x.device).flatten(1).float().T
    _, columns = linear_sum_assignment(affinity.cpu().numpy(), maximize=True)
    return torch.from_numpy(columns).to(eps.device)
