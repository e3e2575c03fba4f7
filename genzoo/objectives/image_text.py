"""Images and captions, each with an encoder of its own: which caption goes with which image?

With logits l_ij = scale * cosine(image_i, caption_j) + bias:

    CLIP      half of -log softmax_j(l_i)_i, half of the same over images       Radford et al. 2021, figure 3
    SigLIP    sum_j softplus(-y_ij l_ij), y = 1 for pairs and -1 for others     Zhai et al. 2023, algorithm 1

Captions made of class names repeat within a batch: with `labels`, all pairs of one class are right. CLIP's target
is then uniform over them (Yang et al. 2022, "UniCL", equations 2 and 3), SigLIP's y is 1 for all of them.
Scale and bias are learned (`LearnedLogits`). Everything is computed in float32 or better, under autocast too.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.objectives.contrastive import check_pairs, cosines, full, require_positive


class LearnedLogits(nn.Module):
    """Cosines to logits: scale * cosine + bias, both learned.

    The scale is put back to `largest` where a step has passed it (Radford et al. 2021, section 2.5): a bound inside of
    the formula would have no gradient beyond, and never let go.
    """

    def __init__(self, scale: float, bias: float | None = None, largest: float = 100.0) -> None:
        super().__init__()
        self.largest = largest
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    def forward(self, cosine: Tensor) -> Tensor:
        """Cosines of any shape to logits."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(self.largest))
        logits = self.log_scale.exp() * cosine
        return logits if self.bias is None else logits + self.bias


class TwoTowers(Configurable, ABC):
    """What the embeddings of pairs from two encoders minimise."""

    @final
    def __call__(self, a: Tensor, b: Tensor, logits: LearnedLogits, labels: Tensor | None = None) -> Tensor:
        """Of embeddings `[n, d]` and `[n, d]`, `[n]` per pair in float32 or better.

        Pairs of equal `labels` (whole numbers `[n]`) are right whichever way they are combined. Raises `GenzooError`
        where these do not go together.
        """
        check_pairs(a, b, type(self).__name__)
        if labels is not None and (labels.shape != a.shape[:1] or labels.is_floating_point()):
            raise GenzooError(
                f"labels must be {len(a)} whole numbers, got {labels.dtype} {list(labels.shape)}"
            )
        labels = torch.arange(len(a), device=a.device) if labels is None else labels
        with torch.autocast(a.device.type, enabled=False):
            return self.of_logits(logits(cosines(full(a), full(b))), labels[:, None] == labels)

    @abstractmethod
    def logits(self) -> LearnedLogits:
        """A new module with the values that training starts from."""

    @abstractmethod
    def of_logits(self, logits: Tensor, right: Tensor) -> Tensor:
        """`[n]` of logits `[n, n]` and the combinations that are right, bool `[n, n]`, the diagonal among them."""


@dataclass(frozen=True)
class Clip(TwoTowers):
    """Softmax over the captions, and over the images; chance level log n."""

    temperature: float = 0.07
    """At the start."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    def logits(self) -> LearnedLogits:
        """Without a bias, which a softmax does not feel."""
        return LearnedLogits(1 / self.temperature)

    def of_logits(self, logits: Tensor, right: Tensor) -> Tensor:
        """The mean of both directions."""
        target = right.to(logits) / right.sum(1, keepdim=True)  # `right` is symmetric
        both = logits.log_softmax(1) + logits.T.log_softmax(1)
        return -0.5 * (target * both).sum(1)


@dataclass(frozen=True)
class SigLIP(TwoTowers):
    """Each combination by itself; needs no large batch. Sum over captions, mean over images, as published.

    The bias makes "no" the answer at the start, as most combinations are wrong: -log(n - 1) would say so of a batch of
    n, the published -10 of 22000. Its sign is that of the algorithm: added to the logits.
    """

    temperature: float = 0.1
    """At the start."""
    bias: float = -10.0
    """At the start."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    @override
    def logits(self) -> LearnedLogits:
        return LearnedLogits(1 / self.temperature, self.bias)

    def of_logits(self, logits: Tensor, right: Tensor) -> Tensor:
        """The sum over captions of each image."""
        return F.softplus(torch.where(right, -logits, logits)).sum(1)
