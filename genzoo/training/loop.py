"""One run of the trainer: the loop, and what happens in it now and then."""

import math
import time
from typing import Any, NamedTuple

import torch

from genzoo.core.attempts import Attempts
from genzoo.core.errors import GenzooError
from genzoo.core.random import mix_seed, seeded
from genzoo.core.trainable import Monitor, RunContext
from genzoo.data.split import Split
from genzoo.training.machine import machine, peak_memory_mib, usage_at
from genzoo.training.memory import memory_line
from genzoo.training.optim import WeightAverage, copy_buffers, rate_factor
from genzoo.training.options import RunPlan
from genzoo.training.processes import BatchOrder, Feed, Processes, StopSignals
from genzoo.training.progress import Meter, Reporter, clock_text
from genzoo.training.run_folder import RunFolder, TrainingState
from genzoo.training.step import Stepper, StepResult
from genzoo.training.validation import Validator
from genzoo.training.watching import watchers

MOST_SKIPPED = 10  # non-finite steps in a row that stop a run
LOG_ROWS = 500  # training rows of metrics.jsonl over a whole run
OPTIONAL_SHARE = 0.05  # of a budget in minutes, what optional monitors may take together
VALIDATION_SHARE = 0.1  # of a budget in minutes, all validations together
MOST_RESERVED = 0.2  # of a budget in minutes, for what comes after the last step
TRACKED = "genzoo"  # what trackers call the project, and their folder in that of a run
CLOSING_SECONDS = 1.0  # for drawing the loss curve


class Start(NamedTuple):
    """When a run began, by `time.monotonic` and by `time.process_time` (CPU-seconds of this process)."""

    wall: float
    cpu: float


class Run:
    """One `fit` while it lasts."""

    def __init__(
        self, plan: RunPlan, train: Split, val: Split | None, processes: Processes, start: Start
    ) -> None:
        self.plan, self.model, self.budget = plan, plan.model, plan.budget
        self.config, self.seed, self.options = self.model.config.training, plan.seed, plan.options
        self.stopped_by: str | None = None
        self.best_loss: float | None = None
        self.processes, self.start, self.former_peak = processes, start, 0.0
        self.feed = Feed(train, self.model, processes)
        self.order = BatchOrder(len(train), self.config.batch_size, self.seed)
        self._check_batch()
        self.memory = memory_line(self.model, self.feed, self.order, processes)
        self.folder = RunFolder(
            plan.out, self.model, self._facts(), resume=self.options.resume, writes=processes.is_main
        )
        self.stepper = Stepper(self.model, self.config, processes)  # gives all processes the same weights
        average = WeightAverage(self.model, self.config.ema_fraction)
        self.validator = None if val is None else self._validator(val)
        self.state = TrainingState(self.model, average, self.stepper, self.validator)
        self.reporter = Reporter(show=plan.progress and processes.is_main)
        self.meter = Meter(self.model.watched)
        context = RunContext(train, val, self.seed, self.folder.samples)
        self.monitors = watchers(self.model, context) if processes.is_main else []
        self.step_seconds, self.rate, self.marks, self.rows = 0.0, 0.0, 0, 0
        self.validation_seconds, self.picture_seconds, self.save_seconds = 0.0, 0.0, 0.0
        self.began, self.opened = 0.0, 0.0

    def _check_batch(self) -> None:
        shares = self.processes.count * self.config.accumulate
        if self.order.batch_size < shares:
            raise GenzooError(
                f"a batch of {self.order.batch_size} images is too small for {self.processes.count} process(es) "
                f"with accumulate={self.config.accumulate}: it needs at least {shares}"
            )

    def _facts(self) -> dict[str, Any]:
        facts = {
            "preset": self.options.preset,
            "seed": self.seed,
            "budget": {self.budget.kind: self.budget.amount},
            "train_images": self.order.n,
            "data": self.options.protocol,
        }
        return {k: v for k, v in facts.items() if v is not None}

    def _validator(self, val: Split) -> Validator:
        return Validator(
            Feed(val, self.model, self.processes),
            len(val),
            images=self.config.validation_images,
            batch_size=self.order.batch_size,
            seed=self.seed,
            allowed_seconds=self._share_of_time(VALIDATION_SHARE / max(self.config.validations, 1)),
        )

    def _share_of_time(self, share: float) -> float | None:
        return None if self.budget.minutes is None else 60 * self.budget.minutes * share

    # --- the loop ----------------------------------------------------------

    def train(self, signals: StopSignals) -> None:
        """From the first step, or the one after the checkpoint, to the end."""
        if self.options.resume:
            self.folder.load(self.state)
            self._take_up_clocks()
            if self._finished_before():
                self._end_after_kill()
                self._install()
                return
            if self.state.meter is not None:
                self.meter.restore(self.state.meter, self.processes.device)
        try:
            with self.stepper.training():
                self._open()
                self._loop(signals)
                self._finish()
        finally:
            self.model.progress = 1.0
            self.reporter.stop()
            for tracker in self.processes.accelerator.trackers:
                tracker.finish()

    def _take_up_clocks(self) -> None:
        """Goes on counting time, CPU-seconds and peak memory where the checkpoint stopped."""
        seconds, cpu = self.state.seconds, 0.0
        if self.processes.is_main:  # its figures are those of all processes before
            cpu, self.former_peak = usage_at(self.folder.log.rows(), self.state.step, seconds)
        self.start = Start(self.start.wall - seconds, self.start.cpu - cpu)

    def _finished_before(self) -> bool:
        done = self.state.done
        finished = bool(done) and (
            self._fraction() >= 1 or self.budget.amount <= done.get(self.budget.kind, 0)
        )
        if finished:
            self.reporter.say(
                f"{self.plan.out} used up its budget at step {self.state.step}; a larger one continues it"
            )
        if not finished:
            self.state.done = {}
        return finished

    def _end_after_kill(self) -> None:
        """What a kill after the last checkpoint left out."""
        (lacks,) = self.processes.sum([float(self.folder.lacks_end(self.state))])
        if lacks:
            self.folder.log.start(self.state.step, self.state.rows)
            self._write_bill()
            self._draw_curve()

    def _draw_curve(self) -> None:
        attempts = Attempts()
        attempts("loss curve", self.folder.close)
        for name, reason in attempts.missing.items():
            self.reporter.say(f"{name}: none: {reason}")

    def _open(self) -> None:
        self.reporter.start()
        if self.memory is not None:
            self.reporter.say(self.memory)
        self.marks = math.floor(self._fraction() * self.config.validations)
        self.rows = math.floor(self._fraction() * LOG_ROWS)
        self._tick()
        before = self.state.seconds
        self.folder.open(self.state)
        if self.options.tracker:  # not before the folder is known to be this run's
            self.folder.make(TRACKED)
            self.processes.accelerator.init_trackers(TRACKED)
        self._tick()
        self.save_seconds = self.state.seconds - before
        self.validation_seconds = (self.validator and self.validator.allowed_seconds) or 0.0
        self.began, self.opened = self._fraction(), time.monotonic()

    def _loop(self, signals: StopSignals) -> None:
        self._tick(signals)
        while not self._out_of_budget() and self.stopped_by is None:
            before = self.state.seconds
            result = self._one_step()
            self._tick(signals)
            self.step_seconds = self.state.seconds - before
            self._account(result)
            self._milestone_if_due()
            if self.folder.save_due(self.state, self.options.save_every):
                self._save()
            self._tick(signals)

    def _save(self) -> None:
        self.state.meter = self.meter.dump(self.processes)
        self.folder.save(self.state)

    def _tick(self, signals: StopSignals | None = None) -> None:
        """Reads the main process's clock and learns of signals in any process, so that all decide alike."""
        stop = signals is not None and signals.name is not None
        now = time.monotonic() - self.start.wall if self.processes.is_main else 0.0
        self.state.seconds, stops = self.processes.sum([now, float(stop)])
        if stops and signals is not None:
            self.stopped_by = signals.name or "a signal to another process"

    def _fraction(self, ahead: float = 0.0) -> float:
        """The share of the budget used, or used `ahead` seconds from now.

        What comes after the last step (validation, samples, files) is taken off a budget in minutes.
        """
        closing = CLOSING_SECONDS if self.plan.out else 0.0
        pictures = self.picture_seconds if self._draws_last() else 0.0
        reserve = self.validation_seconds + pictures + self.save_seconds + closing
        reserve = min(reserve, self._share_of_time(MOST_RESERVED) or 0.0)
        seconds = self.state.seconds + ahead
        return self.budget.fraction(self.state.step, seconds, self.order.steps_per_epoch, reserve)

    def _out_of_budget(self) -> bool:
        """Whether another step, as long as the last one, would overrun the budget."""
        ahead = self._fraction(self.step_seconds)
        return ahead >= 1 if self.budget.minutes is None else ahead > 1

    def _one_step(self) -> StepResult:
        step, rank, device = self.state.step, self.processes.rank, self.processes.device
        self.model.progress = min(self._fraction(), 1.0)
        self.state.average.count(self.model)
        self.rate = self.config.learning_rate * rate_factor(step, self.model.progress, self.config)
        torch.manual_seed(mix_seed("global", self.seed, step, rank))  # dropout; `private_rng` undoes it
        generator = seeded(device, "loss", self.seed, step, rank)
        batch = self.feed.batch(self.order.indices(step), seeded("cpu", "images", self.seed, step))
        result = self.stepper.step(batch, self.order.batch_size, self.rate, generator)
        self.state.step = step + 1
        return result

    def _account(self, result: StepResult) -> None:
        """Average, counters and log after a step. Raises `GenzooError` after too many skipped steps."""
        if result.culprit is None:
            self.state.skipped_in_row = 0
            self.state.average.update(self.model)
            self.meter.add(result, self.step_seconds)
        else:
            self._skip(result.culprit)
        fraction = self._fraction()
        if self.state.step == 1 or math.floor(fraction * LOG_ROWS) > self.rows:
            self._log_row()
        self.reporter.update(self.state.step, fraction, self.meter, self._speed(), self._seconds_left())

    def _skip(self, culprit: str) -> None:
        state = self.state
        state.skipped, state.skipped_in_row = state.skipped + 1, state.skipped_in_row + 1
        copy_buffers(state.average.model, self.model)  # those of the last good step
        self.folder.write_row({"step": state.step, "skipped_step": culprit, "skipped": state.skipped})
        if state.skipped_in_row >= MOST_SKIPPED:
            raise GenzooError(
                f"stopped at step {state.step}: {culprit} was not finite in {MOST_SKIPPED} steps in a row; "
                f"lower the learning rate (now {self.config.learning_rate:g})"
            )

    # --- what happens now and then ----------------------------------------------------------

    def _milestone_if_due(self) -> None:
        due = math.floor(self._fraction() * self.config.validations)
        if due > self.marks and self._fraction() < 1:
            self.marks = due
            self._milestone()

    def _milestone(self, *, last: bool = False) -> None:
        """Validation, and what the monitors see; remembers what they cost."""
        self._tick()
        before = self.state.seconds
        self._validate()
        for monitor in self.monitors:
            if not monitor.optional:
                self._observe(monitor)
        self._tick()
        self.validation_seconds = self.state.seconds - before
        middle = self.state.seconds
        for monitor in self.monitors:
            if monitor.optional and (self._draws_last() if last else monitor.affordable(middle)):
                self._observe(monitor)
        self._tick()
        self.picture_seconds = max(self.picture_seconds, self.state.seconds - middle)

    def _draws_last(self) -> bool:
        """Whether optional monitors look at the end: always, unless they take much of a budget in minutes."""
        allowed = self._share_of_time(OPTIONAL_SHARE)
        return allowed is None or self.picture_seconds <= allowed

    def _validate(self) -> None:
        if self.validator is None:
            return
        state, model = self.state, self.state.average.model
        score = self.validator.measure(model, bf16=self.stepper.bf16)
        row = {"step": state.step, "seconds": state.seconds, "val_loss": score.loss, "val_parts": score.parts}
        bits = score.bits_per_dim(self.model)
        if bits is not None:
            row["val_bits_per_dim"] = bits
        if len(self.model.turns) == 1 and self.model.comparable_losses:
            state.best.offer(score.loss, state.step, model)
        self._write(row)
        shown = f"{score.loss:.4g}" + ("" if bits is None else f" ({bits:.3f} bits/dim)")
        self.reporter.say(f"step {state.step}: validation loss {shown}")

    def _observe(self, monitor: Monitor) -> None:
        """What a monitor sees of the averaged weights."""
        seen = monitor.at_validation(self.state.average.model, self.state.step)
        if seen.row is not None:
            self._write({"step": self.state.step, "seconds": self.state.seconds, **seen.row})
        if seen.note is not None:
            self.reporter.note = seen.note
        if seen.message is not None:
            self.reporter.say(f"step {self.state.step}: {seen.message}")

    def _log_row(self) -> None:
        """One row of training metrics: means since the last one, over all processes."""
        self.rows = math.floor(self._fraction() * LOG_ROWS)
        if not self.meter.steps:
            return
        means = self.meter.means(self.processes)
        self._write(
            {
                "step": self.state.step,
                "images": self.state.step * self.order.batch_size,
                "seconds": self.state.seconds,
                "loss": means.pop("loss"),
                "parts": means,
                "lr": self.rate,
                "grad_norm": self.meter.norm / self.meter.steps,
                "images_per_second": self._speed(),
                "skipped": self.state.skipped,
                **self._usage(),
            }
        )
        self.meter.clear(self._speed())

    def _usage(self) -> dict[str, float]:
        """What the run has cost so far, summed over the processes; every process must call it."""
        cpu = time.process_time() - self.start.cpu
        cpu, peak = self.processes.sum([cpu, peak_memory_mib(self.processes.device)])
        return {"cpu_seconds": cpu, "peak_memory_mib": max(peak, self.former_peak)}

    def _write_bill(self) -> None:
        """The last row of metrics: what all of the run has cost, and on what machine."""
        self._tick()
        images = self.state.step * self.order.batch_size
        row = {"step": self.state.step, "images": images, "seconds": self.state.seconds, **self._usage()}
        self._write({**row, "processes": self.processes.count, "machine": machine(self.processes.device)})

    def _write(self, row: dict[str, Any]) -> None:
        self.folder.write_row(row)
        if self.processes.accelerator.trackers:
            flat = {k: v for k, v in row.items() if not isinstance(v, dict)}
            for name in ("parts", "val_parts"):
                flat |= {f"{name}/{k}": v for k, v in row.get(name, {}).items()}
            self.processes.accelerator.log(flat, step=self.state.step)

    def _speed(self) -> float:
        return self.meter.speed(self.order.batch_size)

    def _seconds_left(self) -> float:
        total = self._share_of_time(1.0)
        if total is not None:
            return total - self.state.seconds
        used = self._fraction() - self.began
        here = time.monotonic() - self.opened
        return here * (1 - self._fraction()) / used if used > 0 else math.inf

    def _finish(self) -> None:
        if self.stopped_by is None:
            self._milestone(last=True)
            self.state.done = {self.budget.kind: self.budget.amount}
            self._log_row()  # else a resumed run ends the row that it belongs to
        self._save()
        self._draw_curve()
        self._write_bill()
        how = f"stopped by {self.stopped_by}" if self.stopped_by else "trained"
        skipped = f", {self.state.skipped} steps skipped" if self.state.skipped else ""
        self.reporter.say(f"step {self.state.step}: {how} in {clock_text(self.state.seconds)}{skipped}")
        self._install()

    def _install(self) -> None:
        """Gives the model the weights that the run was for."""
        best = self.state.best
        self.best_loss = None if best.weights is None else best.loss
        self.model.load_state_dict(self.state.chosen())
        self.model.eval()
