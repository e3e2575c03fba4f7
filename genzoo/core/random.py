"""Seeds and generators: every random number is derived from a seed and what it is for."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def mix_seed(*parts: int | str) -> int:
    """A seed in 0 .. 2**63 - 1 that depends on every part; the same on all platforms.

    >>> mix_seed(0, 1) == mix_seed(0, 1), mix_seed(0, 1) == mix_seed(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """A generator on `device` seeded by `mix_seed(*parts)`."""
    return torch.Generator(device).manual_seed(mix_seed(*parts))


@contextmanager
def private_rng(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside from torch's global generators leaves them as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
