"""A fair bake-off: presets trained one after another on the same data, with the same budget and seed, then evaluated.

Each entrant trains and is evaluated in a process of its own, by the commands that a person would use, so that one that
crashes is shown as failed and the others go on. What has happened is told by the run folders and by `bakeoff.json`,
which is written anew after every stage; the same command goes on where it stopped.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from genzoo.core.bounds import check_fields
from genzoo.core.checked_json import read_json, short
from genzoo.core.errors import GenzooError, Interrupted
from genzoo.core.files import appending, write_atomically
from genzoo.core.folder_lock import LOCK, only_writer
from genzoo.core.stop_signals import STOPPING, not_ignored
from genzoo.evaluation.comparison.entries import MEANS_FLAGS, entries_of_run
from genzoo.evaluation.comparison.page import Comparison, Failure
from genzoo.evaluation.comparison.page_pictures import class_command, class_grid
from genzoo.training.checkpoint import CONFIG, first_difference, load_state

STATE = "bakeoff.json"
REFERENCE = "test-images.png"
DONE, FAILED, WAITING = "done", "failed", "waiting"
EVALUATION, OF_MEANS = "evaluation", "evaluation of means"
"""Stages after training; what has come to the second has been through the first."""
LAST_WORDS = 300
LIKELIHOOD_SECONDS = 180.0  # that likelihoods are measured for where no number of images is given


@dataclass(frozen=True)
class Terms:
    """What is the same for all entrants. `budget` is what one of --minutes, --steps and --epochs says."""

    data: str
    budget: Mapping[str, float]
    seed: int = 0
    data_root: str | None = None
    image_size: int | None = None
    skip_bad_images: bool = False
    cond: str | None = None
    size: str = "small"
    device: str | None = None

    def train_flags(self) -> list[str]:
        """For the train command of each entrant."""
        given = {
            key: value for key, value in asdict(self).items() if key not in ("budget", "skip_bad_images")
        }
        flags = [
            word
            for key, value in {**given, **self.budget}.items()
            if value is not None
            for word in (f"--{key.replace('_', '-')}", _amount(value))
        ]
        return flags + (["--skip-bad-images"] if self.skip_bad_images else [])

    def words(self) -> str:
        """The terms for people."""
        amount = ", ".join(f"{_amount(value)} {name}" for name, value in self.budget.items())
        return f"All were trained for {amount} each, with seed {self.seed} and size {self.size}."


@dataclass(frozen=True)
class Standing:
    """How an entrant stands: its status, the commands run for it, and what they took (processor time of children)."""

    status: str = WAITING
    stage: str = ""
    message: str = ""
    commands: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass
class BakeOff:
    """A bake-off in the folder `out`, with `say` for what it tells while it goes.

    With `means` the means of entrants that have an output distribution are evaluated too, which makes a second row.
    """

    out: Path
    terms: Terms
    evaluate_images: int | None = None
    say: Callable[[str], None] = print
    standings: dict[str, Standing] = field(default_factory=dict)
    means: bool = False

    @property
    def reference(self) -> Path:
        """Where a grid of real images is expected."""
        return self.out / REFERENCE

    def check(self, presets: Sequence[str]) -> None:
        """Raises `GenzooError` where `out` holds a bake-off on other terms, or something else than a bake-off."""
        if not self.out.name.strip() or self.out.name == "..":
            raise GenzooError(f"'{self.out}' names no folder of its own; name a new one with --out")
        if os.path.lexists(self.out) and not self.out.is_dir():
            raise GenzooError(f"{self.out} is a file; choose another --out")
        if self._stored() is None:
            found = {path.name for path in self.out.glob("*")} | {path.name for path in self.out.glob(".*")}
            if found and found != {LOCK}:
                raise GenzooError(f"{self.out} holds something else; choose another --out")
        self._former(presets)

    def run(self, presets: Sequence[str], begin: Callable[[], None] = lambda: None) -> Comparison:
        """Trains and evaluates what is not done yet, and returns the comparison of all entrants so far.

        `begin` is called first, when the folder is the bake-off's own.
        Raises `GenzooError` where `out` holds a bake-off on other terms or one is at work there, and `Interrupted`
        after SIGINT, SIGTERM or SIGHUP, when the entrant at work has saved.
        """
        with _alone(self.out) as lock, Children(lock) as children:
            self.standings = self._former(presets)
            self._write()
            begin()
            for preset in presets:
                self._entrant(preset, children)
        return self.comparison()

    def comparison(self) -> Comparison:
        """The entrants that have a run worth showing, and the failures."""
        entries, failures, commands = [], [], {}
        for preset, standing in self.standings.items():
            if standing.status == FAILED:
                command = standing.commands[-1] if standing.commands else ""
                failures.append(Failure(preset, standing.stage, standing.message, command))
            if standing.status == DONE or standing.stage in (EVALUATION, OF_MEANS):
                own = entries_of_run(self.out / preset)
                entries += own
                commands |= {entry.name: standing.commands for entry in own}
        minutes = sum(s.cpu_seconds for s in self.standings.values()) / 60
        notes = (self.terms.words(), f"Training and evaluation took {minutes:.1f} CPU-minutes together.")
        return Comparison(entries, failures, commands, notes, self.reference)

    # --- one entrant ---------------------------------------------------------------------------------------

    def _entrant(self, preset: str, children: "Children") -> None:
        standing, folder = self.standings[preset], self.out / preset
        if standing.status == DONE:
            self.say(f"{preset}: done before")
        elif standing.stage != OF_MEANS and not self._train_and_evaluate(preset, folder, children):
            return
        if self.means and self._lacks_means(folder):
            if not self._stage(preset, OF_MEANS, self._means_command(folder), children):
                return
            self._classes(preset, OF_MEANS, children)
        if self.standings[preset].status != DONE:
            self._set(preset, status=DONE, stage="", message="")

    def _train_and_evaluate(self, preset: str, folder: Path, children: "Children") -> bool:
        """Whether both went well; else the standing says what did not."""
        if not _has_trained(folder, self.terms.budget) and not self._stage(
            preset, "training", self._train_command(folder, preset), children
        ):
            return False
        if not _has_trained(folder, self.terms.budget):
            self._set(preset, status=FAILED, stage="training", message="it was stopped; run again to go on")
            return False
        if not self._stage(preset, EVALUATION, self._evaluate_command(folder), children):
            return False
        self._classes(preset, EVALUATION, children)  # a grid is no measure of success
        return True

    def _lacks_means(self, folder: Path) -> bool:
        draws, *means = entries_of_run(folder)
        return draws.has_decoder and not any(entry.quality for entry in means)

    def _train_command(self, folder: Path, preset: str) -> list[str]:
        resume = ["--resume"] if (folder / CONFIG).is_file() else []
        terms = self.terms.train_flags() if not resume else _budget_flags(self.terms)
        return ["train", *([] if resume else [preset]), *terms, "--out", str(folder), *resume]

    def _evaluate_command(self, folder: Path) -> list[str]:
        return self._evaluate_words(folder, ["--max-seconds", _amount(LIKELIHOOD_SECONDS)])

    def _means_command(self, folder: Path) -> list[str]:
        return self._evaluate_words(folder, [], *MEANS_FLAGS)

    def _evaluate_words(self, folder: Path, unbounded: Sequence[str], *flags: str) -> list[str]:
        """With the terms that all evaluations share; `unbounded` where no number of images is given."""
        some = self.evaluate_images
        few = unbounded if some is None else ["--max-images", str(some)]
        device = [] if self.terms.device is None else ["--device", self.terms.device]
        return ["evaluate", str(folder), *flags, "--seed", str(self.terms.seed), *few, *device]

    def _classes(self, preset: str, stage: str, children: "Children") -> None:
        """Draws the class grid where the run takes classes."""
        for entry in entries_of_run(self.out / preset):
            if entry.class_count and not class_grid(self.out / preset, entry.decode).is_file():
                self._stage(preset, stage, class_command(entry)[1:], children)

    def _stage(self, preset: str, stage: str, words: Sequence[str], children: "Children") -> bool:
        """Runs one command for an entrant; whether it went well. Raises `Interrupted` when it was to stop."""
        command = f"genzoo {shlex.join(words)}"
        self.say(f"{preset}: {command}")
        before = self.standings[preset]
        self._set(preset, status=WAITING, stage=stage, message="", commands=(*before.commands, command))
        clock, cpu = time.monotonic(), _children_cpu()
        log = self.out / "logs" / f"{preset}.log"
        code, last = children.run(words, log, lambda line: self.say(f"  {preset} | {line}"))
        took = {"seconds": time.monotonic() - clock, "cpu_seconds": _children_cpu() - cpu}
        self._set(preset, **{key: getattr(before, key) + value for key, value in took.items()})
        if children.stopped:
            raise Interrupted(children.stopped)
        if code:
            self._set(preset, status=FAILED, message=_reason(code, last))
            self.say(f"{preset}: FAILED in {stage}: {self.standings[preset].message}")
        return not code

    # --- bakeoff.json --------------------------------------------------------------------------------------

    def _former(self, presets: Sequence[str]) -> dict[str, Standing]:
        """What has happened here before, `presets` included; raises `GenzooError` where the terms were others."""
        former: dict[str, Standing] = {}
        stored = self._stored()
        if stored is not None:
            difference = first_difference(
                stored["terms"], json.loads(json.dumps(asdict(self.terms))), "terms"
            )
            if difference:
                raise GenzooError(
                    f"{self.out} holds a bake-off on other terms: {difference}; choose another --out"
                )
            former = {name: _standing(content) for name, content in stored["entrants"].items()}
        return {**former, **{p: former.get(p, Standing()) for p in presets}}

    def _stored(self) -> dict[str, Any] | None:
        path = self.out / STATE
        if not os.path.lexists(path):
            return None
        try:
            stored = read_json(path)
            if not isinstance(stored["terms"], dict) or not isinstance(stored["entrants"], dict):
                raise ValueError("terms or entrants are missing")
            for standing in stored["entrants"].values():
                check_fields(_standing(standing))
            return stored
        except (GenzooError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise GenzooError(f"{path} cannot be read ({short(error)}); choose another --out") from error

    def _set(self, preset: str, **changes: Any) -> None:
        self.standings[preset] = replace(self.standings[preset], **changes)
        self._write()

    def _write(self) -> None:
        content = {
            "terms": asdict(self.terms),
            "entrants": {name: asdict(standing) for name, standing in self.standings.items()},
        }
        write_atomically(self.out / STATE, (json.dumps(content, indent=2) + "\n").encode(), inside=self.out)


def _standing(content: Mapping[str, Any]) -> Standing:
    known = {key: value for key, value in content.items() if key in Standing.__dataclass_fields__}
    return Standing(**{**known, "commands": tuple(known.get("commands", ()))})


def _budget_flags(terms: Terms) -> list[str]:
    flags = [word for name, amount in terms.budget.items() for word in (f"--{name}", _amount(amount))]
    return flags + ([] if terms.device is None else ["--device", terms.device])


def _amount(value: Any) -> str:
    """As a command line takes it, whole numbers without a point.

    >>> _amount(10.0), _amount(1234567), _amount("cpu")
    ('10', '1234567', 'cpu')
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _has_trained(folder: Path, budget: Mapping[str, float]) -> bool:
    """Whether the run in `folder` has used up this budget."""
    if not (folder / CONFIG).is_file():
        return False
    try:
        done = load_state(folder).get("done") or {}
    except GenzooError:  # the train command will say what is wrong with it
        return False
    return any(done.get(kind, 0) >= amount for kind, amount in budget.items())


def _reason(code: int, last: str) -> str:
    """Why a command failed, in one line: its own last words, or the signal that killed it."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    if code - 128 in set(STOPPING):
        return "it was stopped; run again to go on"
    return last.removeprefix("genzoo: error: ")[-LAST_WORDS:] or f"ended with exit code {code}"


def _children_cpu() -> float:
    """Processor seconds of all processes that were waited for; 0 where the system does not tell (Windows)."""
    times = os.times()
    return times.children_user + times.children_system


# --- processes -------------------------------------------------------------------------------------------------


class Children:
    """Runs commands one after another; within it signals that stop go to the one at work, and `stopped` names them.

    A child is no part of the terminal's group, so that Ctrl-C reaches it once: twice would not let it save. It
    inherits the file descriptor `lock`, so that whoever outlives the other holds the lock.
    """

    def __init__(self, lock: int | None = None) -> None:
        self.stopped: str | None = None
        self._lock = lock
        self._process: subprocess.Popen[str] | None = None
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Children":
        for number in not_ignored():
            self._former[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = signal.Signals(number).name
        if self._process is None or self._process.poll() is not None:
            raise Interrupted(self.stopped)
        if os.name != "nt":  # where the console tells the child itself
            self._process.send_signal(number)

    def run(self, words: Sequence[str], log: Path, echo: Callable[[str], None]) -> tuple[int, str]:
        """`genzoo WORDS`: its exit code and its last line. All lines go to `log` and `echo`."""
        last = ""
        locks = () if self._lock is None else (self._lock,)
        with appending(log) as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "genzoo", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", start_new_session=True,
                pass_fds=locks,
            )  # fmt: skip
            assert self._process.stdout is not None
            for line in self._process.stdout:
                file.write(line)
                file.flush()
                last = line.strip() or last
                echo(line.rstrip())
            return self._process.wait(), last


def _alone(out: Path) -> AbstractContextManager[int | None]:
    """Holds the lock of the folder; None where the system has no such locks.

    Raises `GenzooError` where another bake-off, or an entrant that outlived one, holds it.
    """
    busy = (
        f"a bake-off, or an entrant of one, is still at work in {out}; wait for it, or choose another --out"
    )
    return only_writer(out, busy, keep=True)  # an entrant may go on holding it
