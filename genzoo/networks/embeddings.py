"""Ways into a network: conditions and pixel groups as vectors."""

import torch
from torch import Tensor, nn

from genzoo.contract import DataSpec, GenzooError


class ConditionEmbedding(nn.Module):
    """Classes (long `[b]`) or vectors (float `[b, cond_size]`) to `[b, width]`."""

    def __init__(self, spec: DataSpec, width: int) -> None:
        super().__init__()
        is_class = spec.cond == "class"
        self.embed = nn.Embedding(spec.cond_size, width) if is_class else nn.Linear(spec.cond_size, width)

    def forward(self, cond: Tensor) -> Tensor:
        """Raises `IndexError` for a class that does not exist: see `check_condition`."""
        return self.embed(cond)


def check_condition(cond: Tensor | None, spec: DataSpec, n: int) -> Tensor | None:
    """`cond` if it is what a model of `spec` takes for `n` images; raises `GenzooError` otherwise."""
    kind, size = spec.cond, spec.cond_size
    if cond is None and kind is None:
        return None
    if cond is None:
        raise GenzooError(f"this model is conditioned on a {kind}: give cond")
    if kind is None:
        raise GenzooError("this model is unconditional: leave cond out, or train it with --cond")
    if len(cond) != n:
        raise GenzooError(f"cond must be as long as the images: got {len(cond)} for {n}")
    if kind == "vector":
        if cond.ndim != 2 or cond.shape[1] != size or not cond.is_floating_point():
            raise GenzooError(f"cond must be float vectors [n, {size}], got {_kind_of(cond)}")
        return cond
    if cond.ndim != 1 or cond.is_floating_point() or cond.is_complex() or cond.dtype == torch.bool:
        raise GenzooError(f"cond must be integer classes [n], got {_kind_of(cond)}")
    if cond.numel() and (int(cond.min()) < 0 or int(cond.max()) >= size):
        raise GenzooError(
            f"class {int(cond.max())} is out of range: the model has {size} classes (0..{size - 1})"
        )
    return cond


def draw_classes(spec: DataSpec, n: int, generator: torch.Generator | None) -> Tensor:
    """Uniformly drawn classes, long `[n]`: what a class-conditional model samples where it is told none."""
    device = None if generator is None else generator.device
    return torch.randint(spec.cond_size, (n,), generator=generator, device=device)


def _kind_of(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"


class CodeFeatures(nn.Module):
    """Codes without an order, integers `[...]`, to learned features `[..., size]`."""

    def __init__(self, levels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.embed = nn.Embedding(levels, size)

    def forward(self, x: Tensor) -> Tensor:
        """Codes 0 .. levels-1 to float."""
        return self.embed(x.long())


class ValueFeatures(nn.Module):
    """Integers `[...]` to features `[..., size]`: the scaled value and, for many levels, soft indicators of it.

    The indicators are Gaussian bumps evenly spaced over the range: with them a first layer can tell values
    apart that differ by little, which a scaled value alone makes it learn with huge weights.
    """

    def __init__(self, levels: int, bumps: int) -> None:
        super().__init__()
        self.levels = levels
        self.size = 1 + bumps
        self.register_buffer("centres", torch.linspace(-1, 1, bumps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Integers 0 .. levels-1 to float in [-1, 1] (and bumps in [0, 1])."""
        scaled = (x.to(self.centres.dtype) * (2 / (self.levels - 1)) - 1)[..., None]  # pyright: ignore
        if self.size == 1:
            return scaled
        spacing = 2 / max(1, self.size - 2)
        return torch.cat([scaled, torch.exp(-(((scaled - self.centres) / spacing) ** 2))], -1)
