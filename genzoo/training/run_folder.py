"""The run folder while a run goes: who owns it, what is saved when, and how a run is taken up again."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from genzoo.core.errors import GenzooError
from genzoo.core.files import explained_errors, make_folder, remove_leftovers
from genzoo.core.trainable import Trainable
from genzoo.training import checkpoint
from genzoo.training.loss_curve import save_curve
from genzoo.training.optim import WeightAverage
from genzoo.training.progress import MetricsLog, is_bill
from genzoo.training.saved_state import check_state, load_moments
from genzoo.training.step import Stepper
from genzoo.training.validation import Best, Validator

SAVE_SECONDS = 60.0


class TrainingState:
    """Everything that an exact resume needs. The rest is derived from the seed and the step.

    `step` counts steps, the skipped ones among them `skipped`; `seconds` is the time used, `rows` counts those of
    `metrics.jsonl`, `meter` holds what the next one will be made of (None for both: an earlier version did not say).
    """

    def __init__(
        self, model: nn.Module, average: WeightAverage, stepper: Stepper, validator: Validator | None
    ) -> None:
        self.model, self.average, self.stepper, self.validator = model, average, stepper, validator
        self.best = Best()
        self.step, self.skipped, self.skipped_in_row = 0, 0, 0
        self.seconds = 0.0
        self.done: dict[str, float] = {}
        self.rows: int | None = None
        self.meter: dict[str, Any] | None = None

    def chosen(self) -> Mapping[str, Tensor]:
        """The weights that the model shall hold in the end: the best on validation, else the average."""
        return self.best.weights or self.average.model.state_dict()

    def dump(self) -> dict[str, Any]:
        """For `checkpoint.save_state`."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row,
            "seconds": self.seconds,
            "done": self.done,
            "rows": self.rows,
            "meter": self.meter,
            "val_images": None if self.validator is None else self.validator.images,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "turn_steps": self.average.steps,
            "best": self.best.state(),
            "optimizers": {turn.name: turn.optimizer.state_dict() for turn in self.stepper.turns},
        }

    def restore(self, state: Mapping[str, Any], source: Path) -> None:
        """The inverse of `dump`. Raises `GenzooError` for a state that does not fit this model."""
        try:
            check_state(state, self.model, source)
            self.step, self.seconds = state["step"], float(state["seconds"])
            self.skipped, self.skipped_in_row = state["skipped"], state["skipped_in_row"]
            self.done, self.rows, self.meter = dict(state["done"]), state.get("rows"), state.get("meter")
            checkpoint.fit_weights(self.model, state["model"], source)
            checkpoint.fit_weights(self.average.model, state["average"], source)
            # former runs counted all steps for every turn
            turn_steps = state.get("turn_steps", {})
            self.average.steps = {turn: int(turn_steps.get(turn, self.step)) for turn in self.average.steps}
            self.best.restore(state["best"])
            for turn in self.stepper.turns:
                load_moments(turn.optimizer, state["optimizers"][turn.name], source)
            if self.validator is not None:
                self.validator.images = state["val_images"]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise GenzooError(f"{source} is not a state of this run ({error!r})") from error


class RunFolder:
    """Writes a run to `path`; with `path` None, or in a process that `writes` not, it does nothing.

    Making one checks that the folder may be used. Raises `GenzooError` where it holds another run, or where
    there is none to resume.
    """

    def __init__(
        self,
        path: Path | None,
        model: Trainable,
        facts: Mapping[str, Any],
        *,
        resume: bool,
        writes: bool,
    ) -> None:
        if path is not None and resume:
            checkpoint.check_same_run(path, model, facts)
        elif path is not None and writes:
            checkpoint.claim_folder(path)
        if path is not None and writes:
            checkpoint.check_rebuilds(model)
        self.source, self.path = path, path if writes else None
        self.model, self.facts, self.resumes = model, facts, resume
        self.log = MetricsLog(None if self.path is None else self.path / checkpoint.METRICS)
        self.saved_at = 0.0
        self._identity: os.stat_result | None = None

    @property
    def samples(self) -> Path | None:
        """Where sample grids go."""
        return None if self.path is None else self.path / checkpoint.SAMPLES

    def load(self, state: TrainingState) -> None:
        """Takes up what was saved last."""
        assert self.source is not None
        state.restore(checkpoint.load_state(self.source), self.source / checkpoint.STATE)
        self.saved_at = state.seconds

    def open(self, state: TrainingState) -> None:
        """Makes the folder whole before the first step.

        `config.json`, which makes it a run, comes last: a kill leaves either no run or one that loads.
        """
        if self.path is None:
            return
        former = checkpoint.read_config(self.path) if self.resumes else {}
        with explained_errors(self.path):
            make_folder(self.path)
            self._identity = self.path.stat()
        self._tidy()
        self.log.start(state.step, state.rows)
        self.save(state)
        checkpoint.save_config(self.model, self.path, {**former, **self.facts})

    def _tidy(self) -> None:
        """Removes files that a kill left half-written."""
        assert self.path is not None
        for place in (
            checkpoint.CONFIG,
            checkpoint.WEIGHTS,
            checkpoint.STATE,
            checkpoint.METRICS,
            checkpoint.CURVE,
            f"{checkpoint.SAMPLES}/step_*",
        ):
            file = self.path / place
            if not file.parent.is_symlink():
                remove_leftovers(file.parent, [file.name])

    def make(self, name: str) -> None:
        """Makes a folder in that of the run. Raises `GenzooError` where a link stands in its place."""
        if self.path is not None:
            with explained_errors(self.path):
                make_folder(self.path / name, inside=self.path)

    def check_there(self) -> None:
        """Raises `GenzooError` where the folder of this run was moved or deleted since `open`."""
        if self.path is None or self._identity is None:
            return
        try:
            same = os.path.samestat(self.path.stat(), self._identity)
        except OSError:
            same = False
        if not same:
            raise GenzooError(
                f"{self.path} was moved or deleted during training; it stopped and wrote nothing there. "
                "If it was moved, continue with --resume --out and its new place"
            )

    def write_row(self, row: dict[str, Any]) -> None:
        """One row of `metrics.jsonl`."""
        self.check_there()
        self.log.write(row)

    def save(self, state: TrainingState) -> None:
        """Weights, then the state, each atomically.

        In this order: a state that says that the run is finished is never beside weights of an earlier checkpoint,
        which nothing would write again. Weights beside a state from before them are written again when it is taken up.
        """
        self.saved_at, state.rows = state.seconds, self.log.count
        if self.path is not None:
            self.check_there()
            checkpoint.save_weights(state.chosen(), self.path, raw=state.model.state_dict())
            checkpoint.save_state(state.dump(), self.path)

    def save_due(self, state: TrainingState, every: int | None) -> bool:
        """Whether a checkpoint is due: each `every` steps, or each minute where that is None."""
        if every is not None:
            return state.step % every == 0
        return state.seconds - self.saved_at >= SAVE_SECONDS

    def close(self) -> None:
        """The loss curve."""
        if self.path is not None:
            self.check_there()
            save_curve(self.log.rows(), self.path / checkpoint.CURVE, self.model.loss_unit)

    def lacks_end(self, state: TrainingState) -> bool:
        """Whether a kill left a finished run without its last row or its loss curve."""
        if self.path is None:
            return False
        rows = self.log.rows()
        billed = state.rows is None or any(map(is_bill, rows[state.rows :]))
        return not billed or not (self.path / checkpoint.CURVE).is_file()
