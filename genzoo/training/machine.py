"""The machine that a run uses: processor, cores, versions, peak memory."""

import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

MEBIBYTE = 2**20


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What computes here: processor, cores that this process may use, threads, device and versions; JSON-able."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "device": name,
        "system": platform.system(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), "") or platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Cores that this process may run on; all of the machine's where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_mib(device: torch.device | str = "cpu") -> float:
    """The most memory that this process has held since it began, in MiB: the GPU's on a GPU, else resident memory.

    NaN where the system does not tell (Windows).
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    try:
        import resource  # not on Windows
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MEBIBYTE if sys.platform == "darwin" else peak / 1024  # bytes there, KiB elsewhere


def usage_at(rows: Sequence[Mapping[str, Any]], step: int, seconds: float) -> tuple[float, float]:
    """CPU-seconds and peak memory (MiB) of a run at the checkpoint of `step`, `seconds` after its start.

    `rows` are those of its `metrics.jsonl`. Between the last row and the checkpoint CPU-seconds are taken to go on
    as before. CPU-seconds are NaN where the rows do not tell.

    >>> usage_at([{"step": 1, "seconds": 2.0, "cpu_seconds": 4.0, "peak_memory_mib": 300.0}], 5, 10.0)
    (20.0, 300.0)
    """
    told = [r for r in rows if None not in (r.get("cpu_seconds"), r.get("seconds"), r.get("step"))]
    told = [r for r in told if r["step"] <= step]
    if not told:
        return (math.nan if step else 0.0), 0.0
    last = told[-1]
    share = seconds / last["seconds"] if last["seconds"] > 0 else 1.0
    return last["cpu_seconds"] * share, max(r.get("peak_memory_mib") or 0.0 for r in told)
