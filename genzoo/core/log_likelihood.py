"""Log-likelihoods: their kind, nats, bits/dim and standard errors."""

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from genzoo.core.spec import DataSpec


class LikelihoodKind(IntEnum):
    """How a reported log-likelihood relates to the true log P(x). Kinds of parts compose by `min`."""

    NONE = 0
    """No probability is defined; `log_likelihood` raises `NoLikelihood`."""
    ESTIMATE = 1
    """Numerical or Monte-Carlo, with no guaranteed direction."""
    LOWER_BOUND = 2
    """Its expectation is at most log P(x)."""
    EXACT = 3
    """log P(x) up to rounding."""

    def __str__(self) -> str:
        return self.name

    @property
    def symbol(self) -> str:
        """The relation printed between "bits/dim" and its figure: `=`, `<=` or `~`.

        >>> Likelihood.LOWER_BOUND.symbol
        '<='
        """
        return {0: "-", 1: "~", 2: "<=", 3: "="}[int(self)]


Likelihood = LikelihoodKind
"""The public name."""


def bits_per_dim(nats: Tensor, spec: DataSpec) -> Tensor:
    """-nats / (D ln 2): the one place where nats of an image become bits per sub-pixel. `[b]` -> `[b]`.

    >>> uniform = torch.tensor([-64 * math.log(17)], dtype=torch.float64)
    >>> round(bits_per_dim(uniform, DataSpec((1, 8, 8), levels=17)).item(), 6), round(math.log2(17), 6)
    (4.087463, 4.087463)
    """
    return -nats.double() / (spec.dims * math.log(2))


@dataclass(frozen=True)
class LogLikelihood:
    """log P(x) of each image as given, in nats, with its kind and how it was come by.

    `nats` is float64 `[n]`; `stderr` `[n]` is the Monte-Carlo standard error of `nats`, None where nothing
    random was used; `details` holds the protocol (K, solver, tolerance, dequantisation ...).
    """

    nats: Tensor
    kind: LikelihoodKind
    spec: DataSpec
    stderr: Tensor | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def bits_per_dim(self) -> Tensor:
        """-nats / (D ln 2) `[n]`, with D the unpadded number of sub-pixels."""
        return bits_per_dim(self.nats, self.spec)

    @classmethod
    def cat(cls, parts: "list[LogLikelihood]") -> "LogLikelihood":
        """One answer from those to successive parts of the images: the kind is the worst of them.

        Details that are floats (or lists of them) become means over images, all else is protocol and kept.
        """
        errors = [part.stderr for part in parts if part.stderr is not None]
        return cls(
            torch.cat([part.nats.double().cpu() for part in parts]),
            min(part.kind for part in parts),
            parts[0].spec,
            torch.cat(errors).cpu() if len(errors) == len(parts) else None,
            {key: _mean_detail(key, parts) for key in parts[0].details},
        )


def _mean_detail(key: str, parts: list[LogLikelihood]) -> Any:
    values = [part.details[key] for part in parts]
    numbers = torch.tensor(values[0]) if isinstance(values[0], (float, list, tuple)) else None
    if numbers is None or not numbers.is_floating_point():
        return values[0]
    counts = torch.tensor([float(len(part.nats)) for part in parts], dtype=torch.float64)
    stacked = torch.tensor(values, dtype=torch.float64)  # [parts] or [parts, k]
    return (torch.tensordot(counts, stacked, dims=1) / counts.sum().clamp(min=1)).tolist()
