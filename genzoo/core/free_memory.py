"""The memory that this process could still get."""

from pathlib import Path

import torch


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Bytes that this process could still get: of the GPU, or of the machine within the limits of its control group.

    None where the system does not tell.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    known = [free for free in (_free_in_system(), _free_in_group()) if free is not None]
    return min(known, default=None)


def _free_in_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        try:
            import psutil
        except ImportError:
            return None
        return psutil.virtual_memory().available
    found = [line.split() for line in lines if line.startswith(("MemAvailable:", "SwapFree:"))]
    return sum(int(words[1]) * 1024 for words in found) if found else None


def _free_in_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the limits of Linux's control groups leave, of version 2 or 1; None without limits."""
    free = []
    for folder, most, used, reclaimable in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit, current = ((folder / name).read_text(encoding="ascii").strip() for name in (most, used))
            stats = dict(
                line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
            )
            if limit != "max":
                free.append(max(int(limit) - int(current) + int(stats.get(reclaimable, 0)), 0))
        except (OSError, ValueError):
            continue
    return min(free, default=None)
