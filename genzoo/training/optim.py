"""The parts of an optimisation step: budget, schedule, optimiser, weight average, precision, allocator."""

import copy
import ctypes
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.bounds import shown
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.trainable import Trainable

MOST = 1e12
"""Of a budget, whatever it counts: beyond it steps are no exact float."""
WARMUP_SHARE = 0.1  # warm-up takes at most this share of a run


@dataclass(frozen=True)
class Budget:
    """How long to train: exactly one of `minutes`, `steps` and `epochs`, each positive.

    `minutes` counts everything inside `fit` (validation and saving too). An epoch is as many whole batches
    as the training split holds.

    >>> Budget(epochs=1.5).total_steps(steps_per_epoch=10)
    15

    Raises `GenzooError` where none or several are given, or one is not positive.
    """

    minutes: float | None = None
    steps: int | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        given = [(k, v) for k, v in vars(self).items() if v is not None]
        if len(given) != 1:
            raise GenzooError(
                "give exactly one training budget: minutes=, steps= or epochs="
                + (f" (got {' and '.join(k for k, _ in given)})" if given else " (got none)")
            )
        (name, value), *_ = given
        whole = name == "steps"
        if whole and isinstance(value, float) and value.is_integer():
            value = int(value)  # as 1e6 is written
        if (
            isinstance(value, bool)
            or not isinstance(value, Integral if whole else Real)
            or not 0 < value <= MOST
        ):
            wanted = f"a positive {'whole ' if whole else ''}number up to {MOST:g}"
            raise GenzooError(f"the budget {name} must be {wanted}, got {shown(value)}")

    @property
    def kind(self) -> str:
        """ "minutes", "steps" or "epochs"."""
        return next(k for k, v in vars(self).items() if v is not None)

    @property
    def amount(self) -> float:
        """The number that goes with `kind`."""
        return getattr(self, self.kind)

    def total_steps(self, steps_per_epoch: int) -> int | None:
        """Steps of the whole run, or None where time decides."""
        if self.steps is not None:
            return int(self.steps)
        return None if self.epochs is None else max(1, round(self.epochs * steps_per_epoch))

    def fraction(self, step: int, seconds: float, steps_per_epoch: int, reserve: float = 0.0) -> float:
        """The share of the budget used after `step` steps and `seconds`; 1 and more means used up.

        `reserve` seconds of a budget in minutes are kept for what comes after the last step.
        """
        total = self.total_steps(steps_per_epoch)
        if total is not None:
            return step / total
        return seconds / max(60 * self.amount - reserve, 1e-9)


def rate_factor(step: int, fraction: float, config: TrainConfig) -> float:
    """The learning rate of step `step` (from 0) as a share of the peak: linear warm-up times linear decay.

    `fraction` is the share of the budget used before the step. Warm-up ends after `warmup_steps` steps or
    a tenth of the run, whichever is first; the decay runs over the whole budget down to `final_lr_fraction`.

    >>> [round(rate_factor(s, s / 20, TrainConfig(warmup_steps=100)), 3) for s in (0, 1, 2, 10, 20)]
    [0.01, 0.475, 0.9, 0.5, 0.0]
    """
    fraction = min(fraction, 1.0)
    warmup = max((step + 1) / max(config.warmup_steps, 1), fraction / WARMUP_SHARE)
    return min(warmup, 1.0) * (1 - (1 - config.final_lr_fraction) * fraction)


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainConfig
) -> "torch.optim.AdamW | Optimizers":
    """AdamW (Loshchilov and Hutter 2019); weight decay on weights of two and more dimensions only.

    With "muon" the kernels of hidden convolutions are left to `Muon`, where there are any.
    """
    parameters = list(parameters)
    kernels = [p for p in parameters if config.optimizer == "muon" and is_hidden_kernel(p)]
    if not kernels:
        return _adamw(parameters, config)
    chosen = {id(p) for p in kernels}
    others = _adamw([p for p in parameters if id(p) not in chosen], config)
    return Optimizers(others, Muon(kernels, config.learning_rate, config.weight_decay))


def _adamw(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.learning_rate, betas=config.betas, foreach=True
    )


class Optimizers:
    """Several optimisers of different parameters that step as one."""

    def __init__(self, *each: torch.optim.Optimizer) -> None:
        self.each = each

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all, as they are now: loading a state puts others in their place."""
        return [group for optimizer in self.each for group in optimizer.param_groups]

    def step(self) -> None:
        """One step of each."""
        for optimizer in self.each:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients."""
        for optimizer in self.each:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {"each": [optimizer.state_dict() for optimizer in self.each]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for optimizer, own in zip(self.each, state["each"], strict=True):
            optimizer.load_state_dict(own)


def is_hidden_kernel(p: nn.Parameter) -> bool:
    """Whether `p` is a convolution's kernel with many channels on both sides: a matrix worth orthogonalising."""
    return p.ndim == 4 and min(p.shape[0], p[0].numel()) >= 16


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix `[out, rest]` is replaced by the nearest orthogonal one (Jordan et al. 2024).

    w <- (1 - rate * decay) w - rate * 0.2 sqrt(max(out, rest)) * orthogonal(momentum): the scale of Liu et al.
    2025, section 2.2, gives the step the size that AdamW's has, so that both share a learning rate. Torch's own
    takes matrices only.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Nesterov momentum, orthogonalised."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("momentum", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - momentum)
                matrix = p.grad.lerp(average, momentum).flatten(1)
                scale = 0.2 * max(matrix.shape) ** 0.5
                p.mul_(1 - rate * group["weight_decay"])
                p.add_(orthogonal(matrix).view_as(p), alpha=-rate * scale)


MOMENTS = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}, Muon: {"momentum"}}
"""What each optimiser remembers of a parameter."""


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """U V^T, roughly, of a matrix U S V^T: singular values end up between about 0.7 and 1.2.

    Newton-Schulz iteration of degree five in bfloat16 with the coefficients of Jordan et al. 2024, which are
    chosen for speed and not for precision.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrix.dtype)


def set_rate(optimizer: torch.optim.Optimizer | Optimizers, rate: float) -> None:
    """The learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class WeightAverage:
    """A moving average of a model's parameters whose horizon grows with the run; buffers are copied.

    After t steps of its turn the decay of a parameter is 1 - 1 / (1 + share * t), so the horizon is `share` of the
    steps so far: the power-function average of Karras et al. 2024 (EDM2, section 3.1) up to a constant. `share` 0
    follows the weights exactly. `model` is a copy in evaluation mode that never needs gradients; `steps` counts each
    turn's own.
    """

    def __init__(self, model: Trainable, share: float) -> None:
        self.share, self.steps = share, dict.fromkeys(model.turns, 0)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        turn_of = {id(p): turn for turn in model.turns for p in model.parameters_of(turn)}
        # what no turn trains (a momentum copy, say) goes with the last
        self._turns = [turn_of.get(id(p), model.turns[-1]) for p in model.parameters()]

    def count(self, model: Trainable) -> None:
        """Counts a step of the turns that play at the model's `progress`."""
        for turn in model.turns:
            self.steps[turn] += model.progress_of(turn) is not None

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights that `model` has after the steps counted; those of a turn yet to play are followed."""
        now, averages = [p.detach() for p in model.parameters()], list(self.model.parameters())
        for turn, steps in self.steps.items():
            own = [i for i, of in enumerate(self._turns) if of == turn]
            if own:
                weight = 1 / (1 + self.share * steps)
                torch._foreach_lerp_([averages[i] for i in own], [now[i] for i in own], weight)  # pyright: ignore
        copy_buffers(model, self.model)


@torch.no_grad()
def copy_buffers(source: nn.Module, target: nn.Module) -> None:
    """Copies every buffer of `source` into its counterpart in `target`."""
    for theirs, mine in zip(source.buffers(), target.buffers(), strict=True):
        mine.copy_(theirs)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scales the gradients down to the global norm `max_norm`; returns the norm before, a scalar."""
    return nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed activations for the next step; returns whether it could be told.

    By default every large tensor is mapped from and returned to the system, and the page faults of doing so
    were measured at 15 to 25% of a training step on CPU. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):  # musl and others
        return False
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2  # names of malloc.h
    settings = ((mmap_threshold, 1 << 30), (trim_threshold, 2**31 - 1), (top_pad, 1 << 28))
    told = [mallopt(name, value) == 1 for name, value in settings]
    return all(told)
