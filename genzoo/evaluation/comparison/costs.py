"""What a run has cost, from the `cost` section of its report, whatever of it was measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cost:
    """Seconds, MiB, images and network calls; None for what was not measured.

    `machine` names where the times of drawing and scoring were measured, `versions` with what; `train_machine` where
    the run was trained, if that is told.
    """

    train_images: float | None = None
    train_seconds: float | None = None
    train_cpu_seconds: float | None = None
    peak_memory_mib: float | None = None
    calls_per_sample: float | None = None
    sampling_images_per_second: float | None = None
    likelihood_images_per_second: float | None = None
    machine: str = ""
    train_machine: str = ""
    versions: str = ""

    @staticmethod
    def of(content: Mapping[str, Any]) -> "Cost":
        """From a report's section, as `genzoo.evaluation.cost` writes it."""
        numbers = {name: _find(content, path) for name, path in PATHS.items()}
        machine, training = content.get("machine"), content.get("training")
        before = machine_text(training.get("machine")) if isinstance(training, Mapping) else ""
        return Cost(
            machine=machine_text(machine), train_machine=before, versions=versions_text(machine), **numbers
        )


PATHS = {
    "train_images": "training.images_seen",
    "train_seconds": "training.seconds",
    "train_cpu_seconds": "training.cpu_seconds",
    "peak_memory_mib": "training.peak_memory_mib",
    "calls_per_sample": "network_calls.most",
    "sampling_images_per_second": "sampling_images_per_second",
    "likelihood_images_per_second": "likelihood_images_per_second",
}
"""Field of `Cost` to where a report holds it."""


def _find(content: Mapping[str, Any], path: str) -> float | None:
    value: Any = content
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if finite else None


def machine_text(machine: Any) -> str:
    """A machine in words, without versions; "" where it is not told.

    >>> machine_text({"processor": "Xeon", "cores": 2, "threads": 1, "device": "cpu", "torch": "2.9"})
    'Xeon, 2 cores, 1 threads, cpu'
    """
    if not isinstance(machine, Mapping):
        return machine if isinstance(machine, str) else ""
    words = [str(machine[key]) for key in ("processor",) if machine.get(key)]
    words += [f"{machine[key]} {key}" for key in ("cores", "threads") if machine.get(key)]
    return ", ".join(words + [str(machine[key]) for key in ("device",) if machine.get(key)])


def versions_text(machine: Any) -> str:
    """Versions that a machine's description holds.

    >>> versions_text({"python": "3.11", "torch": "2.9"})
    'python 3.11, torch 2.9'
    """
    if not isinstance(machine, Mapping):
        return ""
    return ", ".join(f"{key} {machine[key]}" for key in ("python", "torch", "genzoo") if machine.get(key))
