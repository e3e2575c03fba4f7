"""The trainer: any model of the contract, until its budget is used up, on whatever Accelerate finds.

`accelerate launch` (GPUs) or `torchrun` (also CPUs) starts the same program in several processes; a step's
global batch is the same then, and each process takes its share of it.
"""

import importlib.util
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genzoo.contract import GenzooError, Trainable
from genzoo.optim import Budget, check_training, keep_freed_memory
from genzoo.run import Run, Start
from genzoo.runtime import Processes, StopSignals, private_rng

if TYPE_CHECKING:
    from genzoo.data.split import Split

__all__ = ["Budget", "RunOptions", "Trainer"]


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
        if self.save_every is not None and self.save_every < 1:
            raise GenzooError(f"save_every must be at least 1 step, got {self.save_every}")
        if self.tracker not in (None, "tensorboard", "wandb"):
            raise GenzooError(f'tracker must be "tensorboard" or "wandb", got {self.tracker!r}')


class Trainer:
    """Trains `model` in place by its `config.training`. Use one trainer for one `fit`.

    `out` is the run folder (None writes nothing). After `fit`, `stopped_by` names the signal that ended the
    run early (None if none did), `step` is the last step and `best_loss` the lowest validation loss.
    """

    def __init__(
        self,
        model: Trainable,
        budget: Budget,
        *,
        seed: int = 0,
        out: str | Path | None = None,
        progress: bool = True,
        options: RunOptions | None = None,
    ) -> None:
        self.model, self.budget, self.seed = model, budget, seed
        self.out = None if out is None else Path(out)
        self.progress, self.options = progress, options or RunOptions()
        self.stopped_by: str | None = None
        self.step = 0
        self.best_loss: float | None = None
        check_training(model.config.training)
        if self.out is None and (self.options.resume or self.options.tracker):
            raise GenzooError("resume and tracker need a run folder; give out= (--out)")

    def fit(
        self,
        data: "Split | Tensor | tuple[Tensor, Tensor]",
        val: "Split | Tensor | tuple[Tensor, Tensor] | None" = None,
    ) -> None:
        """Trains until the budget is used up or SIGINT or SIGTERM arrives.

        The model is in evaluation mode then and holds the averaged weights: of a model with one turn and
        with `val` those that did best on it, else the last ones. Raises `GenzooError` for data that does not
        fit the model, for a run folder that cannot be used, and after ten non-finite steps in a row.
        """
        from genzoo.data.split import as_split, validate

        start = Start(time.monotonic(), time.process_time())
        train = as_split(data)
        held_out = None if val is None else as_split(val)
        for split in (train, held_out):
            if split is not None:
                validate(split, self.model.spec)
        processes = self._processes()
        if processes.device.type == "cpu":
            keep_freed_memory()
        self.model.to(processes.device)
        with private_rng(processes.device), StopSignals() as signals:
            Run(self, train, held_out, processes, start).train(signals)

    def _processes(self) -> Processes:
        from accelerate import Accelerator, DistributedDataParallelKwargs  # late: slow to import

        tracker = self.options.tracker
        if tracker and importlib.util.find_spec(tracker) is None:
            raise GenzooError(f"the tracker {tracker} is not installed; pip install {tracker}")
        # precision is set around each forward, see Stepper
        # parameters may go unused in a step (an embedding of classes, say)
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        accelerator = Accelerator(
            cpu=self._joins_on_cpu(),
            mixed_precision="no",
            log_with=tracker,
            project_dir=self.out,
            kwargs_handlers=[unused],
        )
        device = torch.device(self.options.device or accelerator.device)
        if tracker:
            accelerator.init_trackers("genzoo")
        return Processes(accelerator, device)

    def _joins_on_cpu(self) -> bool:
        """Whether this is one of several processes without GPUs, which Accelerate must be told (gloo)."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return False
        return self.options.device == "cpu" or not torch.accelerator.is_available()
