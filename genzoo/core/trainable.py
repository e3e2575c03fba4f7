"""What the trainer takes, a run folder holds and `load` gives back; and what looks at it while it trains."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from genzoo.core.config import Configurable, TrainConfig
from genzoo.core.spec import Batch, DataSpec, Images


class Loss(NamedTuple):
    """`total` `[b]` is what the trainer minimises the mean of; `parts`, each `[b]`, are logged only."""

    total: Tensor
    parts: dict[str, Tensor]


class Trainable(nn.Module, ABC):
    """What the trainer takes, a run folder holds and `load` gives back: generative models and encoders.

    `spec` and `config` rebuild it (`config.build(spec)`); `turns` lists the players that the trainer steps one after
    the other, each with its own parameters and loss.
    """

    spec: DataSpec
    config: "TrainableConfig"
    turns: tuple[str, ...] = ("model",)
    watched: tuple[str, ...] = ()
    """Parts of the losses that a progress bar is to show, by their names in `metrics.jsonl`."""
    comparable_losses: bool = True
    """Whether a lower loss on held-out images means a better model. Not where the loss is against something that moves,
    such as a momentum copy or a queue: there the last weights are kept, not those of the lowest loss."""
    loss_unit: str = ""
    """Of the losses, where they have one: "nats" for a negative log-likelihood of an image, or a bound on it."""
    takes_labels: bool = True
    """Whether batches hold the labels of the data although `spec.cond` is None: encoders may learn from them."""
    progress: float = 1.0
    """The share of the training budget used, set by the trainer before each step for schedules inside a loss
    (KL warm-up, say). Outside of training it is 1, so that losses are those of the end of a run."""

    # --- what a family defines ---------------------------------------------------------------------------

    @abstractmethod
    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The objective of one turn, `[b]` and differentiable in that turn's parameters."""

    def parameters_of(self, turn: str) -> Iterator[nn.Parameter]:
        """The parameters that `turn` trains; over all turns they partition the model's parameters."""
        if turn not in self.turns:
            raise ValueError(f"unknown turn {turn!r}, this model has {self.turns}")
        return self.parameters()

    def span_of(self, turn: str) -> tuple[float, float]:
        """The part of the training budget, as shares from and to, in which the trainer steps `turn`.

        Outside of it nothing touches the turn's parameters, and the learning rate's schedule is laid over it. At
        any time some turn must play.
        """
        self.parameters_of(turn)
        return 0.0, 1.0

    # --- what they all share -------------------------------------------------------------------------------

    @final
    def progress_of(self, turn: str) -> float | None:
        """The share of `turn`'s span that is used at this `progress`, 0 to 1; None where it does not play."""
        start, end = self.span_of(turn)
        plays = start <= self.progress < end or self.progress >= 1.0 == end
        return (self.progress - start) / (end - start) if plays else None

    @final
    def forward(self, batch: Batch, turn: str = "model", generator: torch.Generator | None = None) -> Loss:
        """`loss`, so that hooks, compilation and distributed wrappers see it."""
        return self.loss(batch, turn, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def monitors(self, run: "RunContext") -> "list[Monitor]":
        """What looks at the model at each validation of a training run, beside its losses; made once per run."""
        del run
        return []


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; the module's training mode is as before afterwards."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


class TrainableConfig(Configurable, ABC):
    """Base of every configuration that something trainable is built from: a frozen dataclass with `training`."""

    training: TrainConfig

    def adapted(self, data: Any) -> "tuple[TrainableConfig, Any]":
        """The configuration and the `ImageData` of a run that starts from these: each may need what the other knows.

        Most families need nothing. Raises `GenzooError` where the data lack what the family learns from.
        """
        return self, data

    @abstractmethod
    def build(self, spec: DataSpec) -> Trainable:
        """Random weights for data of this spec. Raises `GenzooError` where it cannot be built."""


# --- what looks at a model while it trains ---------------------------------------------------------------------


@dataclass(frozen=True)
class RunContext:
    """What a monitor may know of a run: its data, its seed, and where pictures go (None: nowhere)."""

    train: Images
    val: Images | None
    seed: int
    samples: Path | None


@dataclass(frozen=True)
class Observation:
    """What a monitor saw: `row` joins `metrics.jsonl`, `note` stays on the progress bar, `message` is printed."""

    row: Mapping[str, Any] | None = None
    note: str | None = None
    message: str | None = None


class Monitor(ABC):
    """Looks at a model at each validation of a run, in the main process alone."""

    what: str = "monitor"
    """What it shows, for messages."""
    optional: bool = False
    """Whether it is left out where it would take much of a budget in minutes."""

    @abstractmethod
    def at_validation(self, model: Trainable, step: int) -> Observation:
        """What there is to tell of `model`, in evaluation mode, after `step` steps."""

    def affordable(self, seconds: float) -> bool:
        """Whether an optional monitor may look once more, `seconds` into the run."""
        del seconds
        return True
