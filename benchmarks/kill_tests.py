"""Does a killed run end as if nothing had happened? `python -m benchmarks.kill_tests [--kills 60] [--only PRESET ...]`.

Trainings of all presets and encoders in turn, tiny ones on the digits, are killed by SIGKILL at random moments of three
stages:

    training     in a random step
    checkpoint   while a state or weights are being written
    closing      after the last step: validation, the last checkpoint, the loss curve, the bill

and resumed. What comes of it is compared with a training that nobody interrupted: the file of the weights byte for
byte, the rows of `metrics.jsonl` one by one apart from clocks. One line per kill, and "60 of 60 bit-equal" in the end.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # one thread adds in one order

STEPS, SAVE_EVERY = 10, 3
STAGES = ("training", "checkpoint", "closing")
CLOCKS = {"seconds", "images_per_second", "cpu_seconds", "peak_memory_mib"}
ATTEMPTS = 10  # at hitting a stage that is over in no time
LOOK_SECONDS = 0.0005
MOST_SECONDS = 600
CONDITIONS = {"image-to-image": "mask", "image-to-image-l1": "mask"}
"""Presets that take nothing but input images."""


def train(preset: str, out: Path, resume: bool) -> None:
    """One whole training, in a process of its own."""
    import torch

    from genzoo.data.sources import load_data
    from genzoo.models.names import encoder_rows, model_rows
    from genzoo.models.preset import build
    from genzoo.training.trainer import Budget, RunOptions, Trainer

    torch.set_num_threads(1)
    data = load_data("digits", cond=CONDITIONS.get(preset))
    recipe = (model_rows() | encoder_rows())[preset].recipe()
    config, data = recipe.config("tiny", data.spec).adapted(data)
    training = replace(config.training, batch_size=16, validations=3, validation_images=48)
    model = build(replace(config, training=training), data.spec, seed=0)  # pyright: ignore[reportArgumentType]
    options = RunOptions(save_every=SAVE_EVERY, resume=resume, device="cpu")
    trainer = Trainer(model, Budget(steps=STEPS), out=out, progress=False, options=options)
    trainer.fit(data.train, data.val)


class Trainings:
    """Starts trainings quickly: their processes are forked from one that has imported everything."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["accelerate", "genzoo.models.registry", "genzoo.training.trainer"]
        )

    def started(self, preset: str, out: Path) -> ForkServerProcess:
        """A new training, or the one in `out` taken up again."""
        process = self._context.Process(target=train, args=(preset, out, (out / "config.json").exists()))
        process.start()
        return process

    def finished(self, preset: str, out: Path) -> None:
        """As `started`, to the end. Raises `RuntimeError` where it fails."""
        process = self.started(preset, out)
        process.join(MOST_SECONDS)
        if process.exitcode != 0:
            process.kill()
            raise RuntimeError(f"{preset} in {out} ended with {process.exitcode}")


# --- what is compared ------------------------------------------------------------------------------------------


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The whole rows of metrics."""
    try:
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def without_clocks(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as they are the same in each training."""
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]


def weights_of(out: Path) -> bytes:
    """The file that holds the weights chosen and the last ones."""
    return (out / "model.safetensors").read_bytes()


# --- when it is killed -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """When to kill: `delay` seconds after `come` is true of the run folder."""

    come: Callable[[Path], bool]
    delay: float


def moment(stage: str, whole: Path, dice: random.Random) -> Moment:
    """A random moment of a stage, as long as that took in the run `whole`."""
    rows = [row for row in rows_of(whole) if "lr" in row]
    if stage == "training":
        wanted = dice.randint(1, STEPS - 1)
        lasted = (rows[-1]["seconds"] - rows[0]["seconds"]) / len(rows)
        return Moment(lambda out: sum("lr" in row for row in rows_of(out)) >= wanted, dice.uniform(0, lasted))
    if stage == "checkpoint":
        seen, wanted = set[str](), dice.randint(1, 2 * (STEPS // SAVE_EVERY))
        return Moment(
            lambda out: len(seen.update(half_written(out)) or seen) >= wanted, dice.uniform(0, 0.003)
        )
    lasted = rows_of(whole)[-1]["seconds"] - rows[-1]["seconds"]
    return Moment(lambda out: any(row.get("step") == STEPS for row in rows_of(out)), dice.uniform(0, lasted))


def half_written(out: Path) -> Iterator[str]:
    """Names of files that are being written."""
    for folder in (out, out / "state"):
        yield from (path.name for path in folder.glob(".*.tmp"))


def killed(trainings: Trainings, preset: str, stage: str, whole: Path, out: Path, dice: random.Random) -> str:
    """Kills a training in `out` and tells where it stood; raises `RuntimeError` where it was never in time."""
    for _ in range(ATTEMPTS):
        shutil.rmtree(out, ignore_errors=True)
        when, process = moment(stage, whole, dice), trainings.started(preset, out)
        while process.is_alive() and not when.come(out):
            time.sleep(LOOK_SECONDS)
        time.sleep(when.delay)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            last = max((row["step"] for row in rows_of(out)), default=0)
            writing = ", ".join(sorted({name.split(".")[1] for name in half_written(out)}))
            return f"step {last}" + (f" writing {writing}" if writing else "")
    raise RuntimeError(f"{preset} was always through with {stage} before it could be killed")


# --- all of it -------------------------------------------------------------------------------------------------


def all_presets() -> list[str]:
    """Names of presets and encoders."""
    from genzoo.models.names import encoder_rows, model_rows

    return [*model_rows(), *encoder_rows()]


def cases(presets: Sequence[str], kills: int, dice: random.Random) -> list[tuple[str, str]]:
    """Presets with stages: each preset as often as the next, stages in turn, in an order of the dice."""
    order = dice.sample(list(presets), len(presets))
    return [
        (order[i % len(order)], STAGES[(i // len(order) + i % len(order)) % len(STAGES)])
        for i in range(kills)
    ]


def one(
    trainings: Trainings, preset: str, stage: str, folder: Path, number: int, dice: random.Random
) -> tuple[str, bool, bool]:
    """One kill: where it struck, and whether weights and rows came out the same."""
    whole, out = folder / preset, folder / f"{preset}-{number}"
    if not whole.exists():
        trainings.finished(preset, whole)
    where = killed(trainings, preset, stage, whole, out, dice)
    trainings.finished(preset, out)
    same = (
        weights_of(whole) == weights_of(out),
        without_clocks(rows_of(whole)) == without_clocks(rows_of(out)),
    )
    if all(same):  # else it is worth a look
        shutil.rmtree(out)
    return where, *same


def main() -> int:
    """Returns 0 where all are equal, else 1; the folders of those that are not are kept and named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60, help="how many trainings are killed")
    parser.add_argument("--only", nargs="+", metavar="PRESET", help="only these presets")
    parser.add_argument("--seed", type=int, default=0, help="decides presets, stages and moments")
    args = parser.parse_args()
    dice, trainings, equal = random.Random(args.seed), Trainings(), 0
    folder = Path(tempfile.mkdtemp(prefix="kill-tests-"))
    print(f"{'preset':20} {'stage':11} {'killed at':32} {'weights':8} rows")
    for number, (preset, stage) in enumerate(cases(args.only or all_presets(), args.kills, dice), 1):
        try:
            where, weights, rows = one(trainings, preset, stage, folder, number, dice)
        except RuntimeError as error:
            where, weights, rows = str(error), False, False
        equal += weights and rows
        words = ["differ", "equal"]
        print(f"{preset:20} {stage:11} {where:32} {words[weights]:8} {words[rows]}", flush=True)
    if equal == args.kills:
        shutil.rmtree(folder)
    else:
        print(f"the run folders are in {folder}")
    print(f"{equal} of {args.kills} bit-equal")
    return 0 if equal == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
