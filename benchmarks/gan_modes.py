"""Does a GAN cover every mode? `python -m benchmarks.gan_modes [--seeds 3] [--minutes 2 | --steps N] [--loss all]`.

GANs are trained by `model.fit` on a ring of eight and on a 5x5 grid of round Gaussians in the plane; 10,000 samples
are then compared with the true means. Printed are, seed by seed, the modes covered (those that at least a fifth of
their fair share of samples fall within 3 sigma of), the share of all samples within 3 sigma of any mode (98.9% for the
true density) and the Kullback-Leibler divergence in nats of the modes' shares from uniform. The bar is every mode and
90% for every seed, within two minutes on one core; seconds of processor time are printed because a busy machine's
clock says little (there, give `--steps`).
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import genzoo
from genzoo.config import TrainConfig
from genzoo.data import GaussianGrid, GaussianMixture
from genzoo.models.gan import GANConfig
from genzoo.networks.gan_nets import DenseGANNetworks
from genzoo.objectives.adversarial import (
    R1,
    R2,
    AdversarialLoss,
    GradientPenalty,
    Hinge,
    Lazily,
    LeastSquares,
    NonSaturating,
    RelativisticPaired,
    Wasserstein,
)
from genzoo.trainer import Budget

SAMPLES = 10_000
LEAST_SHARE = 0.2
"""Of a mode's fair share of samples, for it to count as covered."""
BAR = 0.9
GAMMA = 0.02
"""Of R1 and R2."""
TRAINING = TrainConfig(
    batch_size=256, learning_rate=1e-3, betas=(0.0, 0.99), weight_decay=0.0, clip_norm=10.0, precision="fp32"
)
LOSSES: dict[str, tuple[AdversarialLoss, tuple[type[R1] | type[R2] | type[GradientPenalty], ...]]] = {
    "relativistic": (RelativisticPaired(), (R1, R2)),
    "non-saturating": (NonSaturating(), (R1, R2)),
    "least-squares": (LeastSquares(), (R1, R2)),
    "hinge": (Hinge(), (R1, R2)),
    "wasserstein": (Wasserstein(), (GradientPenalty,)),
    "unpenalised": (NonSaturating(), ()),
}
"""A loss and the penalties that go with it."""


@dataclass(frozen=True)
class Coverage:
    """What samples hit of equally likely round modes."""

    covered: int
    modes: int
    within: float
    divergence: float

    @classmethod
    def of(cls, samples: Tensor, means: Tensor, scale: float) -> "Coverage":
        """From samples `[n, 2]`, the modes' means `[k, 2]` and standard deviation."""
        distance, nearest = torch.cdist(samples.double(), means).min(1)
        counts = torch.bincount(nearest[distance <= 3 * scale], minlength=len(means)).double()
        shares = counts / counts.sum().clamp(min=1)
        return cls(
            covered=int((counts >= LEAST_SHARE * len(samples) / len(means)).sum()),
            modes=len(means),
            within=counts.sum().item() / len(samples),
            divergence=math.log(len(means)) + torch.xlogy(shares, shares).sum().item(),
        )

    @property
    def passes(self) -> bool:
        """Whether it reaches the bar."""
        return self.covered == self.modes and self.within >= BAR

    def __str__(self) -> str:
        return f"{self.covered:2d}/{self.modes} {100 * self.within:5.1f}% {self.divergence:6.3f}"


def measure(toy: str, config: GANConfig, budget: Budget, seed: int) -> Coverage:
    """Trains one GAN on `toy:NAME` and judges its samples."""
    data = genzoo.load_data(f"toy:{toy}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = config.build(data.spec)
    model.fit(data.train, minutes=budget.minutes, steps=budget.steps, seed=seed, progress=False)
    samples = model.sample(SAMPLES, generator=torch.Generator().manual_seed(seed))
    truth = data.truth
    assert isinstance(truth, (GaussianMixture, GaussianGrid))
    return Coverage.of(samples, truth.means, truth.scale)


def main() -> None:
    """Prints a row per density, loss and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training per seed")
    parser.add_argument("--steps", type=int, help="of training per seed, in place of minutes")
    parser.add_argument("--loss", choices=[*LOSSES, "all"], default="relativistic")
    parser.add_argument("--toy", choices=[*TOYS, "all"], default="all")
    args = parser.parse_args()
    budget = Budget(steps=args.steps) if args.steps else Budget(minutes=args.minutes)
    print(f"{'density':18}{'loss':16}seed  modes  in 3s  KL     cpu s")
    for toy in TOYS if args.toy == "all" else (args.toy,):
        for name in LOSSES if args.loss == "all" else (args.loss,):
            config = TOYS[toy](name)
            for seed in range(args.seeds):
                start = time.process_time()
                found = measure(toy, config, budget, seed)
                seconds = time.process_time() - start
                mark = "" if found.passes else "  below the bar"
                print(f"{toy:18}{name:16}{seed:4d}  {found} {seconds:6.0f}{mark}", flush=True)


def ring_gan(loss: str) -> GANConfig:
    """A GAN for a few modes in the plane, with one of `LOSSES`."""
    networks = DenseGANNetworks(128, 3)
    return GANConfig(4, networks, LOSSES[loss][0], _penalties(loss, every=1), training=TRAINING)


def grid_gan(loss: str) -> GANConfig:
    """One for many: as few latents as numbers in the data, sines for the discriminator, cheaper and faster steps."""
    networks = DenseGANNetworks(128, 3, judging_blocks=1, waves=3.0)
    training = replace(TRAINING, learning_rate=2e-3)
    return GANConfig(2, networks, LOSSES[loss][0], _penalties(loss, every=4), training=training)


def _penalties(loss: str, every: int) -> tuple[Lazily, ...]:
    kinds = LOSSES[loss][1]
    return tuple(Lazily(kind() if kind is GradientPenalty else kind(GAMMA), every) for kind in kinds)


TOYS: dict[str, Callable[[str], GANConfig]] = {"gaussian-mixture": ring_gan, "gaussian-grid": grid_gan}
"""Densities, and what is trained on them."""


if __name__ == "__main__":
    main()
