"""What a model costs: to train, by what its run folder tells, and to draw and to score with, measured here.

    training      images seen, wall-clock and CPU-seconds, peak memory, machine: from `metrics.jsonl`
    sampling      network calls per image, images per second
    likelihood    images per second

Seconds depend on the machine, which is named beside them; network calls do not.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import GenzooError
from genzoo.core.trainable import Trainable
from genzoo.models.base import GenerativeModel

if TYPE_CHECKING:
    from genzoo.evaluation.likelihood import LikelihoodReport
from genzoo.training.machine import machine, peak_memory_mib

COUNTED_IMAGES = 4  # images that network calls are counted on


@dataclass(frozen=True)
class TrainingCost:
    """What a run has cost; None where its folder does not tell.

    `images_seen` counts an image each time it is trained on, `epochs` is that per training image. `peak_memory_mib`
    is that of the training processes since they began, summed over them. `machine` is as `machine()` gives it,
    known of runs that came to an end.
    """

    steps: int | None = None
    images_seen: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_mib: float | None = None
    processes: int | None = None
    machine: dict[str, Any] | None = None


def training_cost(run: Path) -> TrainingCost:
    """From `metrics.jsonl` and `config.json` of the run folder `run`.

    Raises `GenzooError` where `run` is no run folder.
    """
    from genzoo.training.checkpoint import read_config
    from genzoo.training.progress import MetricsLog

    config, rows = read_config(run), MetricsLog(run / "metrics.jsonl").rows()

    def last(key: str) -> Any:
        """Of the last row if it tells, so that no figure is older than another; steps and times all rows tell."""
        return next((row[key] for row in reversed(rows) if row.get(key) is not None), None)

    images, dataset = last("images"), config.get("train_images")
    return TrainingCost(
        steps=last("step"),
        images_seen=images,
        epochs=images / dataset if images is not None and dataset else None,
        seconds=last("seconds"),
        cpu_seconds=last("cpu_seconds"),
        peak_memory_mib=last("peak_memory_mib"),
        processes=last("processes"),
        machine=last("machine"),
    )


class _Counter:
    """Rows that went through each module's `forward`, by the module."""

    def __init__(self, images: int) -> None:
        self.images, self.rows = images, dict[nn.Module, int]()

    def note(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A forward hook."""
        sizes = (len(x) for x in inputs if isinstance(x, Tensor) and x.ndim)
        self.rows[module] = self.rows.get(module, 0) + next(sizes, self.images)

    def calls(self, module: nn.Module) -> float:
        """Passes of one image: of the module itself, or, where only its parts were run, of the busiest part."""
        if module in self.rows:
            return self.rows[module] / self.images
        return max((self.calls(part) for part in module.children()), default=0.0)


@contextmanager
def counted(model: nn.Module, images: int) -> Iterator[_Counter]:
    """Counts what goes through the modules of `model` while `images` images are drawn."""
    counter = _Counter(images)
    hooks = [part.register_forward_pre_hook(counter.note) for part in model.modules()]
    try:
        yield counter
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class NetworkCalls:
    """Passes per drawn image. `by_part` has the model's parts that were run at all; `most` is the busiest one's.

    A pass is one image through a part, whatever the size of the batch: guidance that runs the network on a
    batch twice as large counts twice. Of a family that draws value after value with cached activations the busiest
    part is its head, run once per value; the passes of its network are then much smaller than whole ones.
    """

    most: float
    by_part: dict[str, float]


def network_calls(
    model: GenerativeModel,
    images: int = 4,
    cond: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> NetworkCalls:
    """Counted by hooks while `images` images are drawn, given `cond` `[images, ...]` where the model needs it."""
    if images < 1:
        raise GenzooError(f"network calls are counted on at least one image, got {images}")
    with counted(model, images) as counter:
        model.sample(images, cond, generator=generator)
    parts = {name: counter.calls(part) for name, part in _parts(model)}
    ran = {name: calls for name, calls in parts.items() if calls}
    return NetworkCalls(max(ran.values(), default=0.0), ran)


def _parts(model: nn.Module, before: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The networks of a model by name; those of a model within it (a prior, an autoencoder) one by one."""
    for name, part in model.named_children():
        if isinstance(part, Trainable):
            yield from _parts(part, f"{before}{name}.")
        elif any(map(_multiplies, part.modules())):
            yield f"{before}{name}", part


def _multiplies(module: nn.Module) -> bool:
    """Whether a layer has a weight that inputs are multiplied by: looking vectors up in a table is no network."""
    return not isinstance(module, nn.Embedding) and any(p.ndim > 1 for p in module.parameters(recurse=False))


@dataclass(frozen=True)
class Cost:
    """The cost of a model, with the machine that sampling and likelihood were measured on.

    Images per second by the clock, with whatever else the machine was doing; None for what was not measured or
    does not exist. `peak_memory_mib` is that of the measuring process.
    """

    parameters: int
    training: TrainingCost | None
    network_calls: NetworkCalls
    sampling_images_per_second: float
    sampled_images: int
    likelihood_images_per_second: float | None
    likelihood_images: int | None
    peak_memory_mib: float | None
    machine: dict[str, Any]


def machine_text(machine: Mapping[str, Any] | None) -> str:
    """A machine in words, without versions; "" where it is not told.

    >>> machine_text({"processor": "Xeon", "cores": 2, "threads": 1, "device": "cpu", "torch": "2.9"})
    'Xeon, 2 cores, 1 threads, cpu'
    """
    machine = machine or {}
    words = [str(machine[key]) for key in ("processor",) if machine.get(key)]
    words += [f"{machine[key]} {key}" for key in ("cores", "threads") if machine.get(key)]
    return ", ".join(words + [str(machine[key]) for key in ("device",) if machine.get(key)])


def versions_text(machine: Mapping[str, Any]) -> str:
    """Versions that a machine's description holds.

    >>> versions_text({"python": "3.11", "torch": "2.9"})
    'python 3.11, torch 2.9'
    """
    return ", ".join(f"{key} {machine[key]}" for key in ("python", "torch", "genzoo") if machine.get(key))


def measure_cost(
    model: GenerativeModel,
    run: Path | None,
    *,
    images: int = 64,
    cond: Tensor | None = None,
    likelihood: "LikelihoodReport | None" = None,
    generator: torch.Generator | None = None,
) -> Cost:
    """The cost of `model`, trained in the folder `run` (None: not told).

    Speed is that of drawing `images` images in one call, given `cond` `[images, ...]` where the model needs it; the
    draw that counts network calls warms up before. `likelihood` is a measured one of this model, on this machine.
    Raises `GenzooError` where `run` is no run folder or `images` is below 1.
    """
    training = None if run is None else training_cost(run)
    few = min(COUNTED_IMAGES, images)
    calls = network_calls(model, few, None if cond is None else cond[:few], generator=generator)
    speed = sampling_speed(model, images, cond, generator=generator)
    peak = peak_memory_mib(model.device)
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        training=training,
        network_calls=calls,
        sampling_images_per_second=speed,
        sampled_images=images,
        likelihood_images_per_second=None if likelihood is None else likelihood.images_per_second,
        likelihood_images=None if likelihood is None else likelihood.images,
        peak_memory_mib=None if math.isnan(peak) else peak,
        machine=machine(model.device),
    )


def sampling_speed(
    model: GenerativeModel,
    images: int,
    cond: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> float:
    """Images per second of drawing `images` images in one call; draw a few before, to warm up."""
    start = time.perf_counter()
    model.sample(images, cond, generator=generator).cpu()  # waits for a GPU
    return images / max(time.perf_counter() - start, 1e-9)
