"""One optimisation step: for every turn forward, backward, clipping and update."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from genzoo.core.config import TrainConfig
from genzoo.core.passes import runs_in_bf16
from genzoo.core.spec import Batch
from genzoo.core.trainable import Loss, Trainable
from genzoo.training.optim import clip_gradients, make_optimizer, rate_factor, set_rate
from genzoo.training.processes import Processes


@dataclass
class StepResult:
    """What one step did. `culprit` names the non-finite loss term, or "gradient"; None for a good step.

    `loss` is the mean of the last turn's total over the images, `parts` such means by name (a turn's total
    and parts are named after it where there are several turns); with several processes their mean is that
    over the global batch. `norm` is the largest gradient norm before clipping.
    """

    loss: float = math.nan
    norm: float = 0.0
    parts: dict[str, Tensor] = field(default_factory=dict)
    culprit: str | None = None


class Turn:
    """One player: its parameters, its optimiser, and the model wrapped to synchronise just these."""

    def __init__(
        self, name: str, model: Trainable, parameters: list[nn.Parameter], config: TrainConfig
    ) -> None:
        self.name, self.model, self.parameters = name, model, parameters
        self.optimizer = make_optimizer(parameters, config)
        self.wrapped: nn.Module = model

    def wrap(self, processes: Processes) -> None:
        """Prepares the wrapper; only this turn's parameters may require gradients while it does."""
        self.wrapped = processes.accelerator.prepare_model(self.model, device_placement=False)


class Stepper:
    """Trains `model` in place, turn after turn. Use it inside `training()`."""

    def __init__(self, model: Trainable, config: TrainConfig, processes: Processes) -> None:
        self.model, self.config, self.processes = model, config, processes
        self.bf16 = runs_in_bf16(config.precision, processes.device)
        self.turns = [
            Turn(name, model, [p for p in model.parameters_of(name) if p.requires_grad], config)
            for name in model.turns
        ]
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        for turn in self.turns:
            self._select(turn)
            turn.wrap(processes)
        self._release()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Training mode inside; afterwards evaluation mode, no gradients, and the former `requires_grad`."""
        self.model.train()
        try:
            yield
        finally:
            self._release()
            self.model.eval()

    def _release(self) -> None:
        for p in self._trainable:
            p.requires_grad_(True)
            p.grad = None

    def _select(self, turn: Turn) -> None:
        """Gradients for this turn's parameters and no others."""
        for p in self._trainable:
            p.requires_grad_(False)
        for p in turn.parameters:
            p.requires_grad_(True)

    def step(self, batch: Batch, n: int, rate: float, generator: torch.Generator) -> StepResult:
        """The turns that play now, on this process's share `batch` of a global batch of `n` images.

        `rate` is the learning rate of a turn that plays all the time. A turn whose loss or gradient is not
        finite leaves its parameters and its optimiser as they were.
        """
        result = StepResult()
        for turn in self.turns:
            if self.model.progress_of(turn.name) is None:
                continue
            if len(self.turns) > 1:
                self._select(turn)
            self._play(turn, batch, n, self._rate_of(turn, rate), generator, result)
        return result

    def _rate_of(self, turn: Turn, rate: float) -> float:
        """The schedule over the turn's own span; its warm-up goes by shares, as it starts at no known step."""
        if self.model.span_of(turn.name) == (0.0, 1.0):
            return rate
        progress = self.model.progress_of(turn.name) or 0.0
        return self.config.learning_rate * rate_factor(0, progress, self.config)

    def _play(
        self, turn: Turn, batch: Batch, n: int, rate: float, generator: torch.Generator, result: StepResult
    ) -> None:
        total, parts = self._backward(turn, batch, n, generator)
        norm = clip_gradients(turn.parameters, self.config.clip_norm)
        loss_value, norm_value = torch.stack([total, norm.to(total)]).tolist()
        culprit = _culprit(loss_value, norm_value, parts)
        (bad,) = self.processes.sum([float(culprit is not None)])
        if bad:
            result.culprit = culprit or "a loss term in another process"
        else:
            set_rate(turn.optimizer, rate)
            turn.optimizer.step()
        turn.optimizer.zero_grad(set_to_none=True)
        result.loss, result.norm = loss_value, max(result.norm, norm_value)
        result.parts |= self._named(turn, total, norm, parts)

    def _backward(
        self, turn: Turn, batch: Batch, n: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds up the gradients of the mean loss; returns the means of the total and of each part."""
        scale = self.processes.count / n  # processes average what each sums up over its own images
        chunks = list(_chunks(batch, self.config.accumulate))
        total, parts = torch.zeros((), device=batch.images.device), {}
        for i, chunk in enumerate(chunks):
            last = i == len(chunks) - 1
            with nullcontext() if last else self.processes.accelerator.no_sync(turn.wrapped):
                loss = self._forward(turn, chunk, generator)
                value = loss.total.float().sum() * scale
                self.processes.accelerator.backward(value)
            total += value.detach()
            for name, part in loss.parts.items():
                parts[name] = parts.get(name, 0.0) + part.detach().float().sum() * scale
        return total, parts

    def _forward(self, turn: Turn, batch: Batch, generator: torch.Generator) -> Loss:
        # Autocast is entered here and not by Accelerate, which fixes one precision for the whole program
        # and replaces `forward` of the model: a notebook trains many models.
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.bf16):
            return turn.wrapped(batch, turn.name, generator)

    def _named(self, turn: Turn, total: Tensor, norm: Tensor, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """With several turns what each did is told by its name, the norm of its gradient included."""
        if len(self.turns) == 1:
            return parts
        return {turn.name: total} | {f"{turn.name}/{k}": v for k, v in {**parts, "grad_norm": norm}.items()}


def _chunks(batch: Batch, count: int) -> Iterator[Batch]:
    """At most `count` micro-batches of nearly equal size."""
    sizes = [len(t) for t in torch.arange(len(batch.images)).tensor_split(count) if len(t)]
    conds = [None] * len(sizes) if batch.cond is None else batch.cond.split(sizes)
    return map(Batch, batch.images.split(sizes), conds)


def _culprit(loss: float, norm: float, parts: dict[str, Tensor]) -> str | None:
    """The first non-finite loss term, "total" or "gradient" where all terms are finite, else None."""
    if math.isfinite(loss) and math.isfinite(norm):
        return None
    for name, part in parts.items():
        if not torch.isfinite(part):
            return name
    return "gradient" if math.isfinite(loss) else "total"
