"""What every denoising network is: noisy data, a noise level `c_noise` and a condition to one prediction per output
channel."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from genzoo.core.config import Configurable

CLOCK_FREQUENCIES = 32


class DenoiserConfig(Configurable, ABC):
    """Base of the networks' configurations: frozen dataclasses."""

    @abstractmethod
    def build(self, shape: tuple[int, ...], out_channels: int, cond_width: int) -> nn.Module:
        """A module `(x [b, *shape], c_noise [b], cond [b, cond_width] | None) -> [b, out_channels, *shape[1:]]`.

        `c_noise` lies in 0 .. 1000 and rises with the noise. The output is zero at the start. Raises `GenzooError`
        where the network cannot take data of this shape.
        """


class NoiseEmbedding(nn.Module):
    """Sinusoids of `c_noise` through two layers, plus the condition: `[b]` and `[b, cond_width]` to `[b, width]`."""

    frequencies: Tensor

    def __init__(self, width: int, cond_width: int) -> None:
        super().__init__()
        frequencies = torch.exp(torch.linspace(0, -9.2, CLOCK_FREQUENCIES))  # periods of 6 to 60,000
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * CLOCK_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.cond = nn.Linear(cond_width, width, bias=False) if cond_width else None

    def forward(self, c_noise: Tensor, cond: Tensor | None) -> Tensor:
        """Ready for a linear layer."""
        angles = c_noise.to(self.frequencies)[:, None] * self.frequencies
        y = self.layers(torch.cat([angles.sin(), angles.cos()], 1))
        if self.cond is not None:
            y = y + self.cond(cond)
        return nn.functional.silu(y)
