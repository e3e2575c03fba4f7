"""How fast each preset trains, samples and scores on this machine: `python -m benchmarks.speed`.

Every row runs in a process of its own, so that its peak memory is its own. The share of peak is the floating-
point operations that a training step executes, per second, over those of a 1024^3 matrix product in the
precision that training uses, measured in the same process. Prints a table and, last, one line of JSON.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import count

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain_sampling import sample_plainly
from genzoo import DataSpec, create, list_models
from genzoo.core.config import TrainConfig
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.passes import runs_in_bf16
from genzoo.core.spec import Batch
from genzoo.models.autoregressive.pixel_models import AutoregressiveModel
from genzoo.models.base import GenerativeModel
from genzoo.models.registry import get_preset
from genzoo.training.optim import keep_freed_memory, make_optimizer

SPECS = {
    "digits": DataSpec((1, 8, 8), 17),
    "mnist-binary": DataSpec((1, 28, 28), 2),
    "fashion-mnist": DataSpec((1, 28, 28), 256),
    "cifar10": DataSpec((3, 32, 32), 256),
}


@dataclass(frozen=True)
class Row:
    """Figures of one preset on one kind of data; images per second unless a name says otherwise."""

    preset: str
    data: str
    size: str
    parameters: int
    precision: str
    training: float
    share_of_peak: float | None
    """None for two players: the counter of operations cannot follow penalties on gradients."""
    sampling: float
    likelihood: float | None
    """None for a family without."""
    peak_memory_mib: float
    sampling_speedup: float | None
    """Cached sampling over the plain loop that runs the whole network per pixel, where there is such a loop."""


def seconds_per_call(call: Callable[[], object], at_least: float) -> float:
    """The median duration of `call`, over at least three calls and `at_least` seconds, after one warm-up."""
    call()
    durations: list[float] = []
    while len(durations) < 3 or sum(durations) < at_least:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return sorted(durations)[len(durations) // 2]


def measure(preset: str, data: str, size: str, seconds: float) -> Row:
    """One row; random images stand in for the data, which changes no figure."""
    keep_freed_memory()
    spec = get_preset(preset).suited(SPECS[data])
    model = create(preset, spec, size)
    config: TrainConfig = model.config.training
    bf16 = runs_in_bf16(config.precision, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(spec.levels or 2, (config.batch_size, *spec.shape), generator=generator)
    images = images.to(torch.uint8)
    cond = torch.zeros(len(images), spec.cond_size) if spec.cond else None  # an input image
    step = training_step(model, Batch(images, cond), bf16=bf16)
    counter = FlopCounterMode(display=False)
    with counter if len(model.turns) == 1 else nullcontext():
        step()
    step_seconds = seconds_per_call(step, seconds)
    flops = counter.get_total_flops() / step_seconds
    model.eval()
    scores = model.likelihood is not LikelihoodKind.NONE
    likelihood = seconds_per_call(lambda: model.log_likelihood(images, cond), seconds) if scores else None
    inputs = None if cond is None else cond[:1].expand(64, -1)
    sampling = seconds_per_call(lambda: model.sample(64, inputs, generator=generator), seconds)
    return Row(
        preset=preset,
        data=data,
        size=size,
        parameters=sum(p.numel() for p in model.parameters()),
        precision="bf16" if bf16 else "fp32",
        training=len(images) / step_seconds,
        share_of_peak=flops / peak_flops(bf16=bf16) if flops else None,
        sampling=64 / sampling,
        likelihood=None if likelihood is None else len(images) / likelihood,
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        sampling_speedup=plain_seconds(model) / sampling if isinstance(model, AutoregressiveModel) else None,
    )


def training_step(model: GenerativeModel, batch: Batch, *, bf16: bool) -> Callable[[], None]:
    """What the trainer does with a batch, without its bookkeeping."""
    optimizers = {t: make_optimizer(model.parameters_of(t), model.config.training) for t in model.turns}
    steps = count()

    def step() -> None:
        generator = torch.Generator().manual_seed(next(steps))
        for turn, optimizer in optimizers.items():
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(batch, turn, generator).total.mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def plain_seconds(model: AutoregressiveModel, n: int = 64, pixels: int = 3) -> float:
    """Seconds that the plain loop takes for `n` images, from its first `pixels` sub-pixels: all cost the same."""
    generator = torch.Generator().manual_seed(0)
    seconds = seconds_per_call(lambda: sample_plainly(model, n, generator=generator, pixels=pixels), 0)
    return seconds * model.spec.dims / pixels


def peak_flops(*, bf16: bool) -> float:
    """Floating-point operations per second of a 1024^3 matrix product."""
    a = torch.randn(1024, 1024, dtype=torch.bfloat16 if bf16 else torch.float32)
    return 2 * 1024**3 / seconds_per_call(lambda: a @ a, 0.5)


def table(rows: list[Row]) -> Table:
    """The rows for people."""
    result = Table(title="images per second; memory is the process's peak")
    columns = ["preset", "data", "size", "parameters", "training", "of peak", "sampling", "likelihood"]
    for name in [*columns, "memory", "cached / plain sampling"]:
        result.add_column(name, justify="left" if name in columns[:3] else "right")
    for r in rows:
        result.add_row(
            r.preset,
            r.data,
            r.size,
            f"{r.parameters / 1e6:.2f} M",
            f"{r.training:.0f} ({r.precision})",
            "-" if r.share_of_peak is None else f"{r.share_of_peak:.0%}",
            f"{r.sampling:.1f}",
            "-" if r.likelihood is None else f"{r.likelihood:.0f}",
            f"{r.peak_memory_mib:.0f} MiB",
            "-" if r.sampling_speedup is None else f"{r.sampling_speedup:.0f} x",
        )
    return result


def main() -> None:
    """Measures the presets and data asked for, by default all presets on digits and 28x28 data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("presets", nargs="*", help="preset names; all of them by default")
    parser.add_argument(
        "--data", nargs="+", choices=SPECS, default=["digits", "mnist-binary", "fashion-mnist"]
    )
    parser.add_argument("--size", default="small")
    parser.add_argument("--seconds", type=float, default=3.0, help="at least so long per figure")
    args = parser.parse_args()
    rows = []
    for preset in args.presets or list_models():
        for data in args.data:
            # a fresh process per row: peak memory never falls again within one
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure, (preset, data, args.size, args.seconds)))
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows))
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    print(json.dumps({**machine, "torch": torch.__version__, "rows": [asdict(r) for r in rows]}))


if __name__ == "__main__":
    main()
