"""Does a GAN cover every mode? `python -m benchmarks.gan_modes [--seeds 3] [--minutes 2 | --steps N] [--loss all]`.

The preset `gan` is trained on a ring of eight and on a 5x5 grid of round Gaussians in the plane; 10,000 samples
are then compared with the true means. Printed are, seed by seed, the modes covered (those that at least a fifth of
their fair share of samples fall within 3 sigma of), the share of all samples within 3 sigma of any mode (98.9% for the
true density) and the Kullback-Leibler divergence in nats of the modes' shares from uniform. The target is every mode
and 90% for every seed, within two minutes on one core; seconds of processor time are printed because a busy machine's
clock says little (there, give `--steps`).
"""

import argparse
import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import genzoo
from genzoo.core.spec import DataSpec
from genzoo.data import GaussianGrid, GaussianMixture
from genzoo.models.gan.generator_model import GAN, GANConfig
from genzoo.models.preset import build
from genzoo.models.registry import get_preset
from genzoo.objectives.adversarial import (
    AdversarialLoss,
    GradientPenalty,
    Hinge,
    Lazy,
    LeastSquares,
    NonSaturating,
    RelativisticPaired,
    Wasserstein,
)
from genzoo.training.trainer import Budget

SAMPLES = 10_000
LEAST_SHARE = 0.2
"""Of a mode's fair share of samples, for it to count as covered."""
BAR = 0.9
LOSSES: dict[str, tuple[AdversarialLoss, tuple[Lazy, ...] | None]] = {
    "relativistic": (RelativisticPaired(), None),
    "non-saturating": (NonSaturating(), None),
    "least-squares": (LeastSquares(), None),
    "hinge": (Hinge(), None),
    "wasserstein": (Wasserstein(), (Lazy(GradientPenalty()),)),
    "unpenalised": (NonSaturating(), ()),
}
"""A loss and the penalties that go with it; None: those of the preset."""
TOYS = ("gaussian-mixture", "gaussian-grid")


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


def measure(toy: str, loss: str, budget: Budget, seed: int) -> Coverage:
    """Trains the preset `gan` with one of `LOSSES` on `toy:NAME` and judges its samples."""
    data = genzoo.load_data(f"toy:{toy}")
    model = build(with_loss(loss, data.spec), data.spec, seed=seed)
    assert isinstance(model, GAN)
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
            for seed in range(args.seeds):
                start = time.process_time()
                found = measure(toy, name, budget, seed)
                seconds = time.process_time() - start
                mark = "" if found.passes else "  below the target"
                print(f"{toy:18}{name:16}{seed:4d}  {found} {seconds:6.0f}{mark}", flush=True)


def with_loss(name: str, spec: DataSpec, size: str = "small") -> GANConfig:
    """The preset `gan` for data of `spec`, with one of `LOSSES` and what goes with it."""
    config = get_preset("gan").config(size, spec)
    assert isinstance(config, GANConfig)
    rule, penalties = LOSSES[name]
    return replace(config, loss=rule, penalties=config.penalties if penalties is None else penalties)


if __name__ == "__main__":
    main()
