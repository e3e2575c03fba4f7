"""What do the 95% intervals of reports cover? `python -m benchmarks.interval_coverage [--sets 200] [--only NAME ...]`.

Each interval is made for fresh sets of 400 images from distributions that are known, and counted as right where it
holds the truth: the closed form where there is one, else the mean of the figure over all of the fresh sets, since an
interval is about the expectation of its figure at that number of images. Three laws of features, Gaussian ones of 16
dimensions with unequal variances:

    equal      samples have the distribution of the data
    shifted    another mean, and variances 1.2 times as large
    collapsed  half of the deviation, a twentieth in half of the dimensions

A coverage of 200 sets has a standard error of 1.5 points. An interval is to cover 90 to 98%; for equal distributions,
where distances are of second order, theirs may cover more, which reports say.
`INTERVALS` has a row for each interval that a report shows, `WITHOUT` names the figures that have none: a test holds
both against the types of reports and the registry of metrics.
"""

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.random import seeded
from genzoo.core.spec import DataSpec
from genzoo.evaluation.accuracy_score import _figure as class_figure
from genzoo.evaluation.generative_classifier import ClassLikelihoods, classification
from genzoo.evaluation.likelihood import LikelihoodReport, summarise
from genzoo.evaluation.ood import OODScores
from genzoo.evaluation.report.classification_section import classification_result
from genzoo.evaluation.report.likelihood_section import gap_between, likelihood_figures
from genzoo.evaluation.report.ood_section import auroc_figures
from genzoo.evaluation.report.probe_sections import share_figure
from genzoo.evaluation.report.translation_section import translation_result
from genzoo.evaluation.translation import compared
from genzoo.metrics.class_shares import class_shares
from genzoo.metrics.diversity import sliced_wasserstein
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.metric_registry import METRICS, MetricRow, by_answer
from genzoo.metrics.probes import Labelled, accuracy, few_shot_accuracy, knn_accuracy, linear_probe
from genzoo.metrics.quality import NEIGHBOURS, FeatureSets

IMAGES = 400
SETS = 200
WIDTH = 16
LOWEST, HIGHEST = 0.90, 0.98
EQUAL, SHIFTED, COLLAPSED = "equal", "shifted", "collapsed"
LAWS = (EQUAL, SHIFTED, COLLAPSED)
CLASSES = 4
DISTANCES = ("frechet", "frechet_train", "frechet_infinity", "kid", "mmd", "sliced_wasserstein", "shift")
"""Whose intervals say that they cover more between equal distributions."""
EXTREMES = ("fidelity", "variety")
"""Whose intervals say that they cover more near 1."""
FIXED = 10**6
"""Seed of what is given: training images of a probe, say."""

Draw = Callable[[str, int], Mapping[str, Estimate]]
"""Of a law and a seed to figures by their names."""


@dataclass(frozen=True)
class Interval:
    """Figures of reports that one piece of code makes: `covers` has their paths as `figure_paths` in the test has them.

    `truths` are closed forms by law and name; others are the mean over sets. `sets` bounds the fresh sets of a law.
    """

    name: str
    draw: Draw
    covers: tuple[str, ...]
    laws: tuple[str, ...] = (SHIFTED,)
    truths: Mapping[str, Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Coverage:
    """What one figure's intervals cover under a law, and how wide they are over what they ought to be."""

    name: str
    law: str
    covered: float
    sets: int
    width: float
    truth: float

    @property
    def verdict(self) -> str:
        """Whether it may be called a 95% interval: "" where so."""
        if math.isinf(self.width):
            return "never varies"
        if self.covered < LOWEST:
            return "TOO NARROW"
        if self.covered <= HIGHEST:
            return ""
        near_one = self.name in EXTREMES and self.truth > 1 - 1 / IMAGES
        told = near_one or (self.law == EQUAL and self.name in DISTANCES)
        return "more, as it says" if told else "TOO WIDE"


# --- features of samples ---------------------------------------------------------------------------------------


def gaussian(rows: int, law: str, seed: int, purpose: str, width: int = WIDTH) -> Tensor:
    """Features `[rows, width]` of a law; those of real images are of the law `equal`."""
    drawn = torch.randn(rows, width, generator=seeded("cpu", purpose, seed), dtype=torch.float64)
    if law == SHIFTED:
        drawn = 1.1 * drawn + 0.3
    if law == COLLAPSED:
        drawn = 0.5 * drawn
        drawn[:, width // 2 :] *= 0.1
    return drawn * torch.linspace(1.5, 0.5, width, dtype=torch.float64)


def feature_sets(law: str, seed: int, images: int = IMAGES, train: int | None = None) -> FeatureSets:
    """Fresh sets of so many rows each; with `train` the training images of that seed."""
    held, trained = (
        gaussian(images, EQUAL, of, name)
        for of, name in ((seed, "held"), (seed if train is None else train, "train"))
    )
    samples, real = gaussian(images, law, seed, "samples"), gaussian(images, EQUAL, seed, "real")
    return FeatureSets(samples, real, held, trained)  # random directions are those of all reports


def of_metrics(
    rows: Sequence[MetricRow], train: int | None, law: str, seed: int, images: int = IMAGES
) -> Mapping[str, Estimate]:
    """Figures as reports have them; training images are fresh, too, but where their seed `train` is given."""
    sets = feature_sets(law, seed, images, train)
    return {row.name: row.measure(row, sets) for row in rows}


def metric_intervals(rows: Mapping[str, MetricRow] = METRICS.rows) -> list[Interval]:
    """One for each metric, but one for those of neighbours together, which share their halves.

    C_T asks whether samples lie nearer to the training images than others do, and its interval is about these.
    """
    shown = [row for row in rows.values() if _path(row) not in WITHOUT]
    together = [row for row in shown if row.name in NEIGHBOURS]
    groups = [("neighbours", together), *((row.name, [row]) for row in shown if row not in together)]
    return [
        Interval(name, partial(of_metrics, [_faster(row) for row in group], FIXED if name == "ct" else None),
                 (*map(_path, group), *ALSO.get(name, ())), LAWS)
        for name, group in groups
    ]  # fmt: skip


ALSO = {"frechet": ("published.figures",)}
"""What else is made by the code of a metric."""


def _path(row: MetricRow) -> str:
    return f"{row.question}.figures.{row.name}"


def _faster(row: MetricRow) -> MetricRow:
    """With fewer directions, on which an interval does not depend."""
    if row.name != "sliced_wasserstein":
        return row
    return replace(row, function=partial(sliced_wasserstein, projections=100))


def mean_gap(real: Tensor, fake: Tensor) -> float:
    """As a metric from outside."""
    return (fake.mean() - real.mean()).item()


def shift_of_classes(law: str, seed: int) -> Mapping[str, Estimate]:
    """Of vectors about the directions of their classes, told without mistakes."""
    shares = {EQUAL: [0.25] * 4, SHIFTED: [0.4, 0.3, 0.2, 0.1], COLLAPSED: [1.0, 0.0, 0.0, 0.0]}[law]

    def rows(purpose: str, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
        generator = seeded("cpu", purpose, seed)
        labels = torch.multinomial(torch.tensor(weights), IMAGES, replacement=True, generator=generator)
        return torch.eye(CLASSES)[labels] + 0.01 * torch.randn(IMAGES, CLASSES, generator=generator), labels

    bank, (drawn, _), (real, _) = (
        Labelled(*rows("bank", [1.0] * 4)),
        rows("drawn", shares),
        rows("real", [1.0] * 4),
    )
    found = class_shares(bank, drawn, real, real, generator=seeded("cpu", "halves", seed))
    return {"shift": found.shift, "share": found.share_figures(["first"])["first"]}


# --- likelihoods -----------------------------------------------------------------------------------------------

SPEC = DataSpec((1, 4, 4), 256)
NATS, SPREAD = -60.0, 8.0


def likelihoods(seed: int, purpose: str, *, skewed: bool = False, images: int = IMAGES) -> LikelihoodReport:
    """Of images whose log-likelihoods are normal, or of which some are far less likely than the rest."""
    generator = seeded("cpu", purpose, seed)
    noise = torch.randn(images, generator=generator, dtype=torch.float64)
    if skewed:  # minus the logarithm of a uniform number: exponential, of deviation 1
        noise = 1 + torch.rand(images, generator=generator, dtype=torch.float64).log()
    return summarise([LogLikelihood(NATS + SPREAD * noise, LikelihoodKind.EXACT, SPEC)], 1.0)


def of_likelihood(law: str, seed: int) -> Mapping[str, Estimate]:
    """Bits/dim and nats; the law `collapsed` has skewed ones."""
    bits, nats = likelihood_figures(likelihoods(seed, "nats", skewed=law == COLLAPSED))
    return {"bits/dim": bits, "nats": nats}


def of_gap(law: str, seed: int) -> Mapping[str, Estimate]:
    """Of two sets with one mean."""
    gap = gap_between(likelihoods(seed, "nats"), likelihoods(seed, "train"))
    assert gap is not None
    return {"gap": gap.bits_per_dim}


def of_classification(law: str, seed: int) -> Mapping[str, Estimate]:
    """Of likelihoods under classes that are normal about those of the right class."""
    generator = seeded("cpu", "classified", seed)
    labels = torch.randint(CLASSES, (IMAGES,), generator=generator)
    nats = torch.randn(IMAGES, CLASSES, generator=generator, dtype=torch.float64)
    nats[torch.arange(IMAGES), labels] += 3.0 if law == SHIFTED else 4.0
    found = classification_result(
        "known", classification(ClassLikelihoods(nats, LikelihoodKind.EXACT), labels), "test", 0
    )
    return {"accuracy": found.accuracy, "-log p(class | image)": found.nll}


def of_ood(law: str, seed: int) -> Mapping[str, Estimate]:
    """Of normal scores whose means lie 1, 0 or 3 deviations apart."""
    apart = {SHIFTED: 1.0, EQUAL: 0.0, COLLAPSED: 3.0}[law]

    def scores(purpose: str, mean: float) -> OODScores:
        drawn = mean + torch.randn(IMAGES, generator=seeded("cpu", purpose, seed), dtype=torch.float64)
        return OODScores(drawn, drawn, drawn, LikelihoodKind.EXACT)

    return {"AUROC": auroc_figures(scores("inside", 0.0), scores("outside", apart))["likelihood"]}


def normal_below(x: float) -> float:
    """The standard normal distribution function."""
    return math.erfc(-x / math.sqrt(2)) / 2


def of_translation(law: str, seed: int) -> Mapping[str, Estimate]:
    """Of predictions that are wrong by noise."""
    generator = seeded("cpu", "translation", seed)
    truths = torch.randint(256, (IMAGES, *SPEC.shape), generator=generator)
    width = torch.rand(IMAGES, 1, 1, 1, generator=generator)  # some images are harder than others
    noise = (60 * width * torch.randn(truths.shape, generator=generator)).round().long()
    found = compared((truths + noise).clamp(0, 255), truths, SPEC, [])
    result = translation_result("known", {"images": IMAGES, **found})
    return {"L1": result.l1, "PSNR": result.psnr}


# --- accuracies ------------------------------------------------------------------------------------------------


def labelled(rows: int, seed: int, purpose: str) -> Labelled:
    """Vectors `[rows, 4]` of four overlapping classes, of all in equal numbers."""
    labels = torch.arange(rows) % CLASSES
    noise = torch.randn(rows, CLASSES, generator=seeded("cpu", purpose, seed))
    return Labelled(2.5 * torch.eye(CLASSES)[labels] + noise, labels)


def of_probes(law: str, seed: int) -> Mapping[str, Estimate]:
    """For the vectors that an encoder has given to training and held-out images."""
    bank, held, queries = (
        labelled(200, FIXED, "bank"),
        labelled(2000, FIXED, "held"),
        labelled(IMAGES, seed, "queries"),
    )
    few = few_shot_accuracy(held, queries, generator=seeded("cpu", "few", seed))
    linear = linear_probe(bank, held[torch.arange(40)], queries, strengths=(0.1,)).share
    shares = {
        "nearest neighbours": knn_accuracy(bank, queries),
        "similarity to few": few,
        "linear probe": linear,
    }
    return {name: share_figure(share, IMAGES) for name, share in shares.items()}


def of_accuracy(law: str, seed: int) -> Mapping[str, Estimate]:
    """Of a classifier that is right with a known probability."""
    right = {EQUAL: 0.5, SHIFTED: 0.9, COLLAPSED: 0.99}[law]
    hits = torch.rand(IMAGES, generator=seeded("cpu", "hits", seed)) < right
    share = accuracy(hits, torch.ones(IMAGES, dtype=torch.bool))
    return {
        "fine-tuned": share_figure(share, IMAGES),
        "class figures": class_figure(share, IMAGES, (IMAGES, IMAGES), 1.0),
    }


BITS = -NATS / (SPEC.dims * math.log(2))
ACCURACIES = {EQUAL: 0.5, SHIFTED: 0.9, COLLAPSED: 0.99}
SECTIONS = (
    Interval(
        "likelihood", of_likelihood,
        ("likelihood.bits_per_dim", "likelihood.nats", "baselines.likelihoods.bits_per_dim",
         "baselines.likelihoods.nats", "ais.bits_per_dim", "ais.nats"),
        (SHIFTED, COLLAPSED), {law: {"bits/dim": BITS, "nats": NATS} for law in LAWS},
    ),
    Interval(
        "generalisation gap", of_gap, ("likelihood.gap.bits_per_dim", "baselines.likelihoods.gap.bits_per_dim"),
        truths={SHIFTED: {"gap": 0.0}},
    ),
    Interval(
        "classification", of_classification, ("classification.accuracy", "classification.nll"), (SHIFTED, COLLAPSED)
    ),
    Interval(
        "out-of-distribution", of_ood, ("ood.auroc",), LAWS,
        {law: {"AUROC": normal_below(d / math.sqrt(2))} for law, d in ((EQUAL, 0.0), (SHIFTED, 1.0), (COLLAPSED, 3.0))},
    ),
    Interval("translation", of_translation, ("translation.l1", "translation.psnr")),
    Interval("probes", of_probes, ("probes.knn", "probes.few_shot", "probes.linear")),
    Interval(
        "accuracies", of_accuracy,
        ("fine_tuning.accuracy", "quality.figures.class_accuracy", "quality.figures.accuracy_score"), LAWS,
        {law: dict.fromkeys(("fine-tuned", "class figures"), p) for law, p in ACCURACIES.items()},
    ),
    Interval("classes of samples", shift_of_classes, ("classes.shift", "classes.share_of"), LAWS),
    Interval("registered", partial(of_metrics, [MetricRow("registered", mean_gap, by_answer)], None), (), LAWS),
)  # fmt: skip

WITHOUT = {
    "quality.figures.fld": "its error over training images is not known; a standard error over test images is kept",
    "classification.calibration_error": "none is shown",
    "classification.confidence": "none is shown",
    "translation.sharpness": "none is shown",
    "translation.frechet": "none is shown",
    "modes.covered": "a count",
    "modes.divergence": "none is shown",
    "modes.spread": "none is shown",
    "latents.rate": "none is shown",
    "latents.distortion": "none is shown",
    "latents.codebook_usage": "none is shown",
    "latents.codebook_perplexity": "none is shown",
    "space.effective_rank": "none is shown",
    "space.spread": "none is shown",
    "space.uniformity": "none is shown",
    "space.alignment": "none is shown",
    "space.class_alignment": "none is shown",
}
"""Figures of reports that are shown without an interval, and why."""

INTERVALS = (*metric_intervals(), *SECTIONS)


# --- measuring -------------------------------------------------------------------------------------------------


def measured(interval: Interval, law: str, sets: int = SETS) -> list[Coverage]:
    """The coverage of all figures of one row under one law, over so many fresh sets."""
    drawn = [interval.draw(law, seed) for seed in range(sets)]
    return [_coverage(interval, law, name, [figures[name] for figures in drawn]) for name in drawn[0]]


def _coverage(interval: Interval, law: str, name: str, figures: Sequence[Estimate]) -> Coverage:
    values = torch.tensor([figure.value for figure in figures], dtype=torch.float64)
    low, high = (
        torch.tensor([getattr(figure, end) for figure in figures], dtype=torch.float64)
        for end in ("low", "high")
    )
    truth = ((interval.truths or {}).get(law) or {}).get(name, values.mean().item())
    covered = ((low <= truth + 1e-12) & (truth - 1e-12 <= high)).double().mean().item()
    width = ((high - low).mean() / (2 * 1.96 * values.std())).item() if bool(values.std() > 0) else math.inf
    return Coverage(name, law, covered, len(figures), width, truth)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 1 where an interval covers too little, or too much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sets", type=int, default=SETS, help="fresh sets of each law")
    parser.add_argument("--only", nargs="+", help="rows by name")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    start, failures = time.process_time(), 0
    print(
        f"{'interval':24}{'law':12}{'covers':>8}{'width':>8}{'truth':>12}   {IMAGES} images, {arguments.sets} sets"
    )
    for interval in INTERVALS:
        if arguments.only and interval.name not in arguments.only:
            continue
        for law in interval.laws:
            for found in measured(interval, law, arguments.sets):
                print(
                    f"{found.name:24}{law:12}{found.covered:8.1%}{found.width:8.2f}{found.truth:12.4g}   "
                    f"{found.verdict}",
                    flush=True,
                )
                failures += found.verdict.startswith("TOO")
    for name, why in WITHOUT.items():
        print(f"{name:36} no 95% interval: {why}")
    print(
        f"{time.process_time() - start:.0f} CPU-seconds; width 1 is 1.96 deviations of the figure over fresh sets"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
