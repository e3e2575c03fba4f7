"""What a training run is told beside its data: budget, seed, folder and options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genzoo.core.bounds import Range, check_number
from genzoo.core.devices import device_of
from genzoo.core.errors import GenzooError
from genzoo.core.trainable import Trainable
from genzoo.training.optim import Budget


@dataclass(frozen=True)
class RunOptions:
    """What a run can be told beyond its budget."""

    save_every: int | None = None
    """Steps between checkpoints; None saves about every minute. The end of a run is always saved."""
    resume: bool = False
    """Continue the run that `out` holds."""
    tracker: str | None = None
    """Also log to "tensorboard" or "wandb"."""
    device: str | None = None
    """Such as "cpu" or "cuda"; None takes the fastest that Accelerate finds."""
    preset: str | None = None
    """The preset's name, written into config.json."""
    protocol: dict[str, Any] | None = None
    """How the data came to be (source, split seed ...), JSON-able, written into config.json."""

    def __post_init__(self) -> None:
        if self.save_every is not None:
            check_number("save_every", self.save_every, Range(1, 2**53), whole=True)
        device_of(self.device)
        if self.tracker not in (None, "tensorboard", "wandb"):
            raise GenzooError(f'tracker must be "tensorboard" or "wandb", got {self.tracker!r}')


@dataclass(frozen=True)
class RunPlan:
    """Which model is trained in place, how long, from which seed and into which folder (None: nothing is written)."""

    model: Trainable
    budget: Budget
    seed: int
    out: Path | None
    progress: bool
    options: RunOptions
