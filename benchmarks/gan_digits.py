"""Does the preset `gan` draw all ten digits? `python -m benchmarks.gan_digits [--seeds 3] [--minutes 3 | --steps N]`.

The preset is trained on scikit-learn's 8x8 digits without their labels; 1,000 samples are then judged by a classifier
of the training digits. A class counts as drawn when at least 2% of the samples are given to it with probability 0.9 or
more. Printed are, seed by seed, the classes drawn, the samples' shares of the ten classes in per cent, the mean
probability of the likeliest class (`sure`), and seconds of processor time; the first row is that of real test digits.
The target is ten classes for every seed, within three minutes on one core; where the machine is busy, give `--steps`.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import genzoo
from genzoo.data.image_data import ImageData
from genzoo.data.image_grid import save_grid
from genzoo.evaluation.classifier import Classifier, fit_classifier
from genzoo.training.trainer import Budget

SAMPLES = 1000
SURE = 0.9
LEAST_SHARE = 0.02
SHOWN = 100


@dataclass(frozen=True)
class Classes:
    """What a classifier sees in images: classes drawn, shares of all classes, mean confidence."""

    drawn: int
    shares: tuple[float, ...]
    sure: float

    @classmethod
    def of(cls, probabilities: Tensor) -> "Classes":
        """From P(class | image) `[n, classes]`."""
        n, classes = probabilities.shape
        confidence, likeliest = probabilities.max(1)
        surely = torch.bincount(likeliest[confidence >= SURE], minlength=classes)
        shares = torch.bincount(likeliest, minlength=classes).double() / n
        drawn = int((surely >= LEAST_SHARE * n).sum())
        return cls(drawn, tuple(shares.tolist()), confidence.mean().item())

    def row(self, name: str, seconds: float) -> str:
        """A line of the table."""
        mark = "" if self.drawn == len(self.shares) else "  below the target"
        shares = " ".join(f"{100 * share:3.0f}" for share in self.shares)
        return f"{name:8}{self.drawn:3d}/{len(self.shares)}  {shares}  {self.sure:.3f} {seconds:6.0f}{mark}"


def drawn(data: ImageData, budget: Budget, seed: int) -> tuple[Tensor, float]:
    """Samples uint8 `[1000, c, h, w]` of a GAN trained on `data`, and the seconds of processor time it took."""
    start = time.process_time()
    model = genzoo.create("gan", data.spec, seed=seed)
    model.fit(data.train, minutes=budget.minutes, steps=budget.steps, seed=seed, progress=False)
    seconds = time.process_time() - start
    return model.sample(SAMPLES, generator=torch.Generator().manual_seed(seed)), seconds


def judged(classifier: Classifier, images: Tensor) -> Classes:
    """What `classifier` sees in `images`."""
    return Classes.of(classifier.probabilities(images))


def main() -> None:
    """Prints a row for real digits and one per seed; writes samples where asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=3.0, help="of training per seed")
    parser.add_argument("--steps", type=int, help="of training per seed, in place of minutes")
    parser.add_argument("--out", type=Path, help="folder for a picture of 100 samples per seed")
    args = parser.parse_args()
    budget = Budget(steps=args.steps) if args.steps else Budget(minutes=args.minutes)
    data = genzoo.load_data("digits")
    start = time.process_time()
    classifier = fit_classifier(data.train, data.spec)
    seconds = time.process_time() - start
    print(f"classifier: {100 * classifier.accuracy(data.test):.1f}% of the test digits right")
    print(f"{'seed':8}drawn  {' '.join(f'{c:3d}' for c in range(10))}  sure    cpu s")
    print(judged(classifier, data.test.images[:]).row("real", seconds), flush=True)
    for seed in range(args.seeds):
        samples, seconds = drawn(data, budget, seed)
        print(judged(classifier, samples).row(str(seed), seconds), flush=True)
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            save_grid(samples[:SHOWN], data.spec, args.out / f"seed_{seed}.png")


if __name__ == "__main__":
    main()
