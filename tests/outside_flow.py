"""A family, a data source and a metric as a user would write them outside of genzoo; see test_outside.py.

Affine couplings over dequantised images (Dinh, Sohl-Dickstein & Bengio 2017, "Real NVP", equations 7 and 8):

    y_1 = x_1,  y_2 = x_2 exp(s(x_1)) + t(x_1)          log P(x) >= E_u [log p(x + u) - log |det|]
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import genzoo
from genzoo import (
    Batch,
    DataSpec,
    GenerativeModel,
    Likelihood,
    LogLikelihood,
    Loss,
    ModelConfig,
    TrainConfig,
)
from genzoo.core.spec import check_images
from genzoo.nn.embeddings import check_condition

EDGE = 0.05  # the logit is taken of [EDGE, 1 - EDGE], where it is finite


class Coupling(nn.Module):
    """One coupling; every other one turns the dimensions around before."""

    def __init__(self, dims: int, width: int, flip: bool) -> None:
        super().__init__()
        self.flip, self.half = flip, dims // 2
        self.net = nn.Sequential(
            nn.Linear(self.half, width), nn.SiLU(), nn.Linear(width, 2 * (dims - self.half))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.flip(1) if self.flip else x
        kept, changed = x[:, : self.half], x[:, self.half :]
        log_scale, shift = self.net(kept).chunk(2, 1)
        log_scale = log_scale.tanh()
        return torch.cat([kept, changed * log_scale.exp() + shift], 1), log_scale.sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        kept, changed = y[:, : self.half], y[:, self.half :]
        log_scale, shift = self.net(kept).chunk(2, 1)
        x = torch.cat([kept, (changed - shift) * (-log_scale.tanh()).exp()], 1)
        return x.flip(1) if self.flip else x


@dataclass(frozen=True)
class CouplingFlowConfig(ModelConfig):
    width: int = 32
    layers: int = 4
    draws: int = 16
    training: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=32))

    def build(self, spec: DataSpec) -> "CouplingFlow":
        return CouplingFlow(spec, self)


class CouplingFlow(GenerativeModel):
    config: CouplingFlowConfig

    def __init__(self, spec: DataSpec, config: CouplingFlowConfig) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.layers = nn.ModuleList(
            Coupling(spec.dims, config.width, i % 2 == 1) for i in range(config.layers)
        )

    @property
    def likelihood(self) -> Likelihood:
        return Likelihood.LOWER_BOUND

    def loss(
        self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None
    ) -> Loss:
        self.parameters_of(turn)
        check_condition(batch.cond, self.spec, len(batch.images))
        return Loss(-self._nats(check_images(batch.images, self.spec), generator), {})

    @torch.no_grad()
    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        check_condition(cond, self.spec, n)
        z = _noise((n, self.spec.dims), self.device, generator, torch.randn)
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        levels = self.spec.levels
        images = ((z.sigmoid() - EDGE) / (1 - 2 * EDGE) * levels).floor().clamp(0, levels - 1)
        return images.to(torch.uint8).view(n, *self.spec.shape)

    @torch.no_grad()
    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        check_condition(cond, self.spec, len(images))
        x = check_images(images, self.spec).to(self.device)
        nats = torch.stack([self._nats(x, generator).double() for _ in range(self.config.draws)])
        stderr = nats.std(0) / self.config.draws**0.5
        return LogLikelihood(nats.mean(0), self.likelihood, self.spec, stderr, {"draws": self.config.draws})

    def _nats(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        u = images + _noise(images.shape, images.device, generator, torch.rand)
        x = EDGE + (1 - 2 * EDGE) * u / self.spec.levels
        z = (x.log() - (1 - x).log()).flatten(1)
        log_det = (math.log((1 - 2 * EDGE) / self.spec.levels) - x.log() - (1 - x).log()).flatten(1).sum(1)
        for layer in self.layers:
            z, change = layer(z)
            log_det = log_det + change
        return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


def _noise(shape, device, generator, draw) -> Tensor:
    return draw(shape, generator=generator, device=device if generator is None else generator.device).to(
        device
    )


def stripes() -> dict[str, Tensor]:
    """Grey images of 6x6 pixels whose rows are alike."""
    g = torch.Generator().manual_seed(0)

    def images(n: int) -> Tensor:
        rows = torch.randint(0, 236, (n, 1, 6, 1), generator=g)
        return (rows + torch.randint(0, 20, (n, 1, 6, 6), generator=g)).to(torch.uint8)

    return {"train": images(400), "val": images(60), "test": images(60)}


def mean_shift(real: Tensor, fake: Tensor) -> float:
    """The distance of the means."""
    return (real.mean(0) - fake.mean(0)).norm().item()


genzoo.register("coupling-flow", CouplingFlowConfig(), description="Affine couplings of dequantised pixels")
genzoo.register_data("stripes", stripes)
