"""Devices by their names."""

import torch

from genzoo.core.bounds import shown
from genzoo.core.errors import InvalidValue


def device_of(name: str | torch.device | None) -> torch.device | None:
    """The device called `name`, such as "cpu", "cuda" or "cuda:1"; None stands for itself.

    Raises `InvalidValue` where there is no such device, or this machine has none.
    """
    if name is None:
        return None
    if not isinstance(name, (str, torch.device)):
        raise InvalidValue(f"a device is a text such as 'cpu' or 'cuda', got {shown(name)}")
    try:
        device = torch.device(name)
        numbered_processor = device.type == "cpu" and (device.index or 0) > 0  # PyTorch takes any number
        if device.type != "meta" and not numbered_processor:
            torch.zeros(1, device=device)
            return device
    except (RuntimeError, AssertionError, ImportError, ValueError, OverflowError):  # by the kind of device
        pass
    raise InvalidValue(f"there is no device {shown(str(name))} here: choose {' or '.join(devices())}")


def devices() -> list[str]:
    """The names of what computes here, the processor first."""
    found = ["cpu"]
    if torch.accelerator.is_available():
        kind, count = torch.accelerator.current_accelerator(), torch.accelerator.device_count()
        found += (
            [] if kind is None else [kind.type] if count == 1 else [f"{kind.type}:{i}" for i in range(count)]
        )
    return found
