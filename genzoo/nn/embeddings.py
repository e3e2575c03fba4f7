"""Ways into a network: conditions and pixel groups as vectors."""

import torch
from torch import Tensor, nn

from genzoo.core.conditions import as_condition
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec

COND_WIDTH = 64
"""Width of the vector that a class or a condition vector is turned into."""


def condition_width(spec: DataSpec) -> int:
    """Width of what `Condition` gives to the networks of a model of `spec`: 0 for an unconditional one."""
    return COND_WIDTH if spec.cond else 0


class Condition(nn.Module):
    """A model's condition: checked against its `spec`, drawn where a sampler is told none, and embedded.

    That of an unconditional model has no parameters and takes None only.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed: nn.Module | None = None
        if spec.cond is not None:
            kind = nn.Embedding if spec.cond == "class" else nn.Linear
            self.embed = kind(spec.cond_size, COND_WIDTH)

    def forward(self, cond: Tensor | None, n: int) -> Tensor | None:
        """Classes (long `[n]`) or vectors (float `[n, cond_size]`) to `[n, COND_WIDTH]`; None stays None.

        Raises `GenzooError` where `cond` is not what the model takes for `n` images.
        """
        cond = check_condition(cond, self.spec, n)
        if cond is None or self.embed is None:
            return None
        weight = next(self.embed.parameters())
        return self.embed(cond.to(weight if cond.is_floating_point() else weight.device))

    def or_drawn(self, cond: Tensor | None, n: int, generator: torch.Generator | None) -> Tensor | None:
        """`cond`, or uniformly drawn classes, long `[n]`, where a class-conditional model is told none."""
        if cond is not None or self.spec.cond != "class":
            return cond
        device = None if generator is None else generator.device
        return torch.randint(self.spec.cond_size, (n,), generator=generator, device=device)


def check_condition(cond: Tensor | None, spec: DataSpec, n: int) -> Tensor | None:
    """`cond` in the form that a model of `spec` takes for `n` images; raises `GenzooError` where it is none."""
    if cond is None and spec.cond is not None:
        raise GenzooError(f"this model is conditioned on a {spec.cond}: give cond")
    return as_condition(cond, spec, n)


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
