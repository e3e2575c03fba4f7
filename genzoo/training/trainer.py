"""The trainer: any model of the contract, until its budget is used up, on whatever Accelerate finds.

`accelerate launch` (GPUs) or `torchrun` (also CPUs) starts the same program in several processes; a step's
global batch is the same then, and each process takes its share of it.
"""

import importlib.util
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.bounds import check_seed
from genzoo.core.errors import GenzooError, Interrupted, reason_of
from genzoo.core.folder_lock import only_writer
from genzoo.core.launch import world_size
from genzoo.core.path_arguments import path_of
from genzoo.core.random import private_rng
from genzoo.core.surroundings import check_weights, in_plain_surroundings
from genzoo.core.trainable import Trainable
from genzoo.data.split import LazyImages, Split, as_split, validate
from genzoo.training.checkpoint import claim_folder, read_config
from genzoo.training.loop import Run, Start
from genzoo.training.optim import Budget, keep_freed_memory
from genzoo.training.options import RunOptions, RunPlan
from genzoo.training.processes import Processes, StopSignals, own_accelerate_state

__all__ = ["Budget", "RunOptions", "Trainer"]


def check_finite(split: Split, model: Trainable) -> None:
    """Raises `GenzooError` where the condition vectors of a split, as far as they are in memory, are not finite."""
    vectors = split.labels if model.takes_labels and not isinstance(split.images, LazyImages) else None
    if vectors is not None and vectors.is_floating_point() and not bool(vectors.isfinite().all()):
        raise GenzooError(
            "the condition vectors hold NaN or infinite values: remove these images, or mend the vectors"
        )


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
        self.out = None if out is None else path_of(out, "out")
        self.progress, self.options = progress, options or RunOptions()
        self.stopped_by: str | None = None
        self.step = 0
        self.best_loss: float | None = None
        check_seed(seed)
        if self.out is None and (self.options.resume or self.options.tracker):
            raise GenzooError("resume and tracker need a run folder; give out= (--out)")

    @in_plain_surroundings
    def fit(
        self,
        data: Split | Tensor | tuple[Tensor, Tensor],
        val: Split | Tensor | tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Trains until the budget is used up.

        The model is in evaluation mode then and holds the averaged weights: of a model with one turn and
        with `val` those that did best on it, else the last ones. Raises `GenzooError` for data that does not
        fit the model, for a run folder that cannot be used or that another process trains in, and after ten non-finite
        steps in a row. Raises `Interrupted` where SIGINT, SIGTERM or SIGHUP ended it early, when it has saved.
        """
        start = Start(time.monotonic(), time.process_time())
        check_weights(self.model)
        with torch.enable_grad(), own_accelerate_state():
            self._fit(data, val, start)

    def _fit(self, data: Any, val: Any, start: Start) -> None:
        train = as_split(data)
        held_out = None if val is None else as_split(val)
        for split in (train, held_out):
            if split is not None:
                validate(split, self.model.spec)
                check_finite(split, self.model)
        processes = self._processes()
        if processes.device.type == "cpu":
            keep_freed_memory()
        self.model.to(processes.device)
        with private_rng(processes.device), StopSignals() as signals, self._alone(processes):
            plan = RunPlan(self.model, self.budget, self.seed, self.out, self.progress, self.options)
            run = Run(plan, train, held_out, processes, start)
            try:
                run.train(signals)
            finally:
                self.stopped_by, self.step, self.best_loss = run.stopped_by, run.state.step, run.best_loss
        if self.stopped_by is not None:
            raise Interrupted(self.stopped_by)

    def _alone(self, processes: Processes) -> AbstractContextManager[Any]:
        """The lock of the run folder; the main process holds it for all that train together."""
        if self.out is None or not processes.is_main:
            return nullcontext()
        if self.options.resume:
            read_config(self.out)  # a run that is not there is not to be made
        else:
            claim_folder(self.out)
        busy = f"another process trains in {self.out}; wait for it, or choose another --out"
        return only_writer(self.out, busy)

    def _processes(self) -> Processes:
        from accelerate import Accelerator, DistributedDataParallelKwargs  # late: slow to import

        tracker = self.options.tracker
        if tracker and importlib.util.find_spec(tracker) is None:
            raise GenzooError(f"the tracker {tracker} is not installed; pip install {tracker}")
        # precision is set around each forward, see Stepper
        # parameters may go unused in a step (an embedding of classes, say)
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        try:
            accelerator = Accelerator(
                cpu=self._joins_on_cpu(),
                mixed_precision="no",
                log_with=tracker,
                project_dir=self.out,
                kwargs_handlers=[unused],
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise GenzooError(
                f"several processes cannot be joined ({reason_of(error)}): start them with accelerate launch or "
                "torchrun, or clear RANK, LOCAL_RANK and WORLD_SIZE of the environment"
            ) from error
        device = torch.device(self.options.device or accelerator.device)
        return Processes(accelerator, device)

    def _joins_on_cpu(self) -> bool:
        """Whether this is one of several processes without GPUs, which Accelerate must be told (gloo)."""
        if world_size() == 1:
            return False
        return self.options.device == "cpu" or not torch.accelerator.is_available()
