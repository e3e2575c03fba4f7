"""What encoders remember from step to step: former embeddings, a slow copy of a network, a mean of scores.

All of it is buffers: checkpoints hold it, an exact resume continues with it, no optimiser touches it. In evaluation
mode nothing changes, so a validation loss leaves no trace. With several processes each feeds its own share of the
batch, and the first one's buffers are kept.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import GenzooError


class Queue(nn.Module):
    """The last `size` embeddings of width `width`, first in, first out (He et al. 2020, "MoCo", section 3.2)."""

    stored: Tensor
    seen: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size < 1 or width < 1:
            raise GenzooError(f"a queue needs room for 1 or more embeddings, got {size} of width {width}")
        self.register_buffer("stored", torch.zeros(size, width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return min(int(self.seen), len(self.stored))

    def __bool__(self) -> bool:
        return True  # an empty queue is one

    def rows(self) -> Tensor:
        """A copy `[m, width]` of what it holds, oldest first: it stays as it is when the queue moves on."""
        start = int(self.seen) if len(self) == len(self.stored) else 0
        return self.stored[self._places(start, len(self))]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Takes in `[n, width]`, the oldest make room; n may be larger than the queue. Only in training mode.

        Raises `GenzooError` for rows of another shape.
        """
        if rows.ndim != 2 or rows.shape[1] != self.stored.shape[1]:
            raise GenzooError(f"the queue holds rows [n, {self.stored.shape[1]}], got {list(rows.shape)}")
        if not self.training:
            return
        kept = rows.detach()[-len(self.stored) :].to(self.stored)
        start = int(self.seen) + len(rows) - len(kept)
        self.stored[self._places(start, len(kept))] = kept
        self.seen += len(rows)

    def _places(self, start: int, count: int) -> Tensor:
        return torch.arange(start, start + count, device=self.stored.device) % len(self.stored)


class MomentumCopy(nn.Module):
    """A copy of a network whose weights follow it slowly; it gives no gradients.

    theta_copy <- m theta_copy + (1 - m) theta (He et al. 2020, equation 2). The weights of the copy are buffers. Other
    buffers (running statistics) are its own, from its own passes; it is in training mode when its owner is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        for module in self.network.modules():
            for name, weight in list(module.named_parameters(recurse=False, remove_duplicate=False)):
                delattr(module, name)
                module.register_buffer(name, weight.detach().clone())

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """What the copy makes of the inputs."""
        return self.network(*inputs)

    @torch.no_grad()
    def update(self, network: nn.Module, momentum: float) -> None:
        """One step towards `network`, of the same make as the one copied. Only in training mode.

        Raises `GenzooError` for a momentum outside of 0 .. 1 (0: equal to the network, 1: stays as it is).
        """
        if not 0 <= momentum <= 1:
            raise GenzooError(f"momentum must lie in 0 .. 1, got {momentum}")
        if not self.training:
            return
        theirs = dict(network.named_parameters(remove_duplicate=False))
        buffers = dict(self.network.named_buffers(remove_duplicate=False))
        mine = [buffers[name] for name in theirs]
        torch._foreach_lerp_(mine, [p.detach() for p in theirs.values()], 1 - momentum)  # pyright: ignore


class Centre(nn.Module):
    """The running mean of a teacher's scores (Caron et al. 2021, "DINO", equation 4), from 0 on."""

    value: Tensor

    def __init__(self, width: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise GenzooError(f"the centre's momentum must lie in 0 .. 1, got {momentum}")
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(width))

    @torch.no_grad()
    def update(self, scores: Tensor) -> None:
        """value <- m value + (1 - m) mean of `scores` `[..., width]`, after the loss. Only in training mode.

        Raises `GenzooError` for scores of another width.
        """
        if scores.shape[-1] != len(self.value):
            raise GenzooError(f"the centre is {len(self.value)} wide, got scores {list(scores.shape)}")
        if self.training:
            mean = scores.detach().to(self.value).flatten(0, -2).mean(0)
            self.value.lerp_(mean, 1 - self.momentum)


def momentum_at(progress: float, start: float = 0.996) -> float:
    """1 - (1 - start) (cos(pi progress) + 1) / 2: from `start` to 1 over a run, `progress` 0 .. 1.

    Grill et al. 2020 ("BYOL"), section 3.3; DINO's too.

    >>> momentum_at(0.0), round(momentum_at(0.5), 6), momentum_at(1.0)
    (0.996, 0.998, 1.0)
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
