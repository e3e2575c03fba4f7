"""How many of 1,000 modes does a GAN cover? `python -m benchmarks.stacked_digits [--loss all] [--minutes 15]`.

Three digits are the red, green and blue of one image, 1,000 modes (Metz et al. 2017; Lin et al. 2018, PacGAN). The
preset `gan` is trained on such stacks of the training digits, once per loss, and 25,000 samples are judged channel by
channel by a classifier that was trained on the single training digits. As in the literature a mode counts as covered
when one sample hits it, which is lenient: a wrong guess of the classifier can do it. So KL in nats of the
samples' shares of modes from uniform is printed too, and a control: real stacks of test digits, as many as samples
(25,000 perfect samples of equally likely modes have a KL of about 0.02). The target is 900 modes within 15 minutes on
one core; seconds of processor time are those of training alone, as a busy machine's clock says little (there, give
`--steps`).
"""

import argparse
import time
from dataclasses import dataclass

import torch
from torch import Tensor

import genzoo
from benchmarks.gan_modes import LOSSES, with_loss
from genzoo.data import stacked
from genzoo.data.image_data import ImageData
from genzoo.data.stacked import STACK_SIZES, stack_classes
from genzoo.evaluation.classifier import Classifier, fit_classifier
from genzoo.metrics.modes import Coverage
from genzoo.models.base import GenerativeModel
from genzoo.models.preset import build
from genzoo.training.trainer import Budget

BAR = 900


@dataclass(frozen=True)
class Judge:
    """Tells the mode of a stacked image by the classes of its channels."""

    classifier: Classifier

    def modes_of(self, images: Tensor) -> Tensor:
        """Long `[n]` of images `[n, 3, h, w]`."""
        channels = [self.classifier.probabilities(images[:, i : i + 1]).argmax(1) for i in range(3)]
        return stack_classes(torch.stack(channels, 1), self.classifier.classes)

    def coverage(self, images: Tensor) -> Coverage:
        """Of equally likely modes; one image is enough to cover one."""
        modes = self.classifier.classes**3
        counts = torch.bincount(self.modes_of(images), minlength=modes)
        return Coverage.of(counts, torch.ones(modes), least_fraction=0.0)


def trained(model: GenerativeModel, data: ImageData, budget: Budget, seed: int) -> float:
    """Trains `model` and returns the seconds of processor time that it took."""
    start = time.process_time()
    model.fit(data.train, minutes=budget.minutes, steps=budget.steps, seed=seed, progress=False)
    return time.process_time() - start


def row(name: str, found: Coverage, seconds: float) -> str:
    """A line of the table."""
    return f"{name:16}{found.covered:5d}/{found.modes}  {found.divergence:6.3f} {seconds:6.0f}"


def main() -> None:
    """Prints the classifier's accuracy, then a row for the control and for each loss."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loss", choices=[*LOSSES, "all"], default="relativistic")
    parser.add_argument("--minutes", type=float, default=15.0, help="of training per loss")
    parser.add_argument("--steps", type=int, help="of training per loss, in place of minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=25_000)
    parser.add_argument("--size", default="small", help="of the preset")
    parser.add_argument("--data", default="digits", help="grey labelled images to stack")
    args = parser.parse_args()
    budget = Budget(steps=args.steps) if args.steps else Budget(minutes=args.minutes)
    single = genzoo.load_data(args.data)
    data = stacked(single, sizes=(*STACK_SIZES[:2], args.samples))
    start = time.process_time()
    judge = Judge(fit_classifier(single.train, single.spec, seed=args.seed))
    seconds = time.process_time() - start
    print(f"classifier: {100 * judge.classifier.accuracy(single.test):.1f}% of test {args.data} right")
    print(f"{'loss':16}{'modes':>10}  KL      cpu s")
    print(row("control", judge.coverage(data.test.images[:]), seconds), flush=True)
    for name in LOSSES if args.loss == "all" else (args.loss,):
        model = build(with_loss(name, data.spec, args.size), data.spec, seed=args.seed)
        assert isinstance(model, GenerativeModel)
        seconds = trained(model, data, budget, args.seed)
        samples = model.sample(args.samples, generator=torch.Generator().manual_seed(args.seed))
        found = judge.coverage(samples)
        print(row(name, found, seconds) + ("" if found.covered >= BAR else "  below the target"), flush=True)


if __name__ == "__main__":
    main()
