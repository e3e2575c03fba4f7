"""A family, a data source and a metric outside of genzoo: `genzoo train realnvp --data rings --import realnvp`.

RealNVP (Dinh, Sohl-Dickstein & Bengio 2017): an invertible network f, log p(x) = log N(f(x); 0, 1) + log |det f'(x)|.
Level k of an image becomes x = 2 (k + u) / levels - 1 with u ~ U(0, 1), of density q(x|k) = (levels / 2)^D, so that

    log P(k) >= E_u[log p(x) - D log(levels / 2)]        (Theis et al. 2016)
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

import genzoo
from genzoo.data import TensorSplit
from genzoo.data.image_data import protocol


class AffineCoupling(nn.Module):
    """One half of the numbers stays; it decides scale and shift of the other half."""

    def __init__(self, dims: int, width: int, parity: int) -> None:
        super().__init__()
        self.register_buffer("stays", (torch.arange(dims) % 2 == parity).float(), persistent=False)
        self.net = nn.Sequential(
            nn.Linear(dims, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * dims)
        )
        nn.init.zeros_(self.net[-1].weight)  # the identity at first
        nn.init.zeros_(self.net[-1].bias)

    def _parameters_for(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.net(x * self.stays).chunk(2, 1)
        return 2 * torch.tanh(log_scale / 2) * (1 - self.stays), shift * (1 - self.stays)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) `[b, d]` and log |det| `[b]`."""
        log_scale, shift = self._parameters_for(x)
        return x * log_scale.exp() + shift, log_scale.sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        log_scale, shift = self._parameters_for(y)
        return (y - shift) * (-log_scale).exp()


@dataclass(frozen=True)
class RealNVPConfig(genzoo.ModelConfig):
    """Each field is a flag: `--couplings 12`, `--training.learning-rate 5e-4`."""

    couplings: int = 8
    """Coupling layers; even and odd numbers stay in turn."""
    width: int = 256
    """Units of each hidden layer."""
    draws: int = 16
    """Dequantised copies of an image that its likelihood is measured with."""
    training: genzoo.TrainConfig = field(default_factory=lambda: genzoo.TrainConfig(batch_size=128))

    def build(self, spec: genzoo.DataSpec) -> "RealNVP":
        if spec.levels is None or spec.cond is not None:
            raise genzoo.GenzooError("realnvp takes integer images without a condition; leave --cond out")
        return RealNVP(self, spec)


@final
class RealNVP(genzoo.GenerativeModel):
    def __init__(self, config: RealNVPConfig, spec: genzoo.DataSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.layers = nn.ModuleList(
            AffineCoupling(spec.dims, config.width, i % 2) for i in range(config.couplings)
        )

    @property
    def likelihood(self) -> genzoo.Likelihood:
        return genzoo.Likelihood.LOWER_BOUND

    def _refuse(self, cond: Tensor | None) -> None:
        if cond is not None:
            raise genzoo.GenzooError("realnvp takes no condition; leave cond out")

    def _bound(self, images: Tensor, cond: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """One draw of the bound `[b]` in nats."""
        self._refuse(cond)
        fits = images.shape[1:] == self.spec.shape and not images.is_floating_point()
        if not fits or (len(images) and int(images.max()) >= self.spec.levels):
            raise genzoo.GenzooError(
                f"images must be integers 0..{self.spec.levels - 1} [n, *{self.spec.shape}]"
            )
        u = torch.rand(images.shape, generator=generator, device=images.device)
        x, log_det = (2 * (images + u) / self.spec.levels - 1).flatten(1), 0.0
        for layer in self.layers:
            x, added = layer(x)
            log_det = log_det + added
        log_normal = -0.5 * (x**2 + math.log(2 * math.pi)).sum(1)
        return log_normal + log_det - self.spec.dims * math.log(self.spec.levels / 2)

    def loss(
        self, batch: genzoo.Batch, turn: str = "model", *, generator: torch.Generator | None = None
    ) -> genzoo.Loss:
        return genzoo.Loss(-self._bound(*batch, generator), {})

    @torch.no_grad()
    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        self._refuse(cond)
        x = torch.randn(n, self.spec.dims, generator=generator, device=self.device)
        for layer in reversed(self.layers):
            x = layer.inverse(x)
        k = ((x + 1) * (self.spec.levels / 2)).floor().clamp(0, self.spec.levels - 1)
        return k.to(torch.uint8).view(n, *self.spec.shape)

    @torch.no_grad()
    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> genzoo.LogLikelihood:
        draws = torch.stack([self._bound(images, cond, generator).double() for _ in range(self.config.draws)])
        stderr = draws.std(0) / math.sqrt(len(draws))
        return genzoo.LogLikelihood(draws.mean(0), self.likelihood, self.spec, stderr, {"draws": len(draws)})


def rings(root: Path) -> genzoo.ImageData:
    """2,000 images of one ring each, 12x12 pixels of 4 levels; they are drawn, so `root`, --data-root, is not used."""
    generator = torch.Generator().manual_seed(0)
    centre, radius = (torch.rand(2000, n, 1, 1, generator=generator) for n in (2, 1))
    places = torch.arange(12.0) - 5.5
    y, x = places[:, None] - 2 * centre[:, :1] + 1, places[None, :] - 2 * centre[:, 1:] + 1
    distance = ((x**2 + y**2).sqrt() - 2 - 2.5 * radius).abs()
    images = (4 - 3 * distance).clamp(0, 3).to(torch.uint8)
    splits = tuple(TensorSplit(part) for part in images.split((1500, 250, 250)))
    facts = protocol("rings", splits, "rings/test@seed=0")
    return genzoo.ImageData("rings", *splits, genzoo.DataSpec((1, 12, 12), levels=4), facts)


def mean_distance(real: Tensor, fake: Tensor) -> float:
    """How far apart the mean features `[n, d]` of real and generated images are."""
    return (real.mean(0) - fake.mean(0)).norm().item()


genzoo.register(
    "realnvp", RealNVPConfig(), description="RealNVP: affine couplings of all pixels; lower bound"
)
genzoo.register_data("rings", rings)
genzoo.metrics.register("mean distance", mean_distance)
