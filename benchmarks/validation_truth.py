"""Metrics against the truth: models whose KL divergence from the data is known (after Betzalel et al. 2022).

A small autoregressive model P learns coarse images and is then made the truth: the "data set" is drawn from it. Models
Q are P with noise on its weights, P with sharper or flatter conditionals, and models that learned for fewer steps. All
P(x) and Q(x) are exact, and

    KL(P || Q) = E_P [log P(x) - log Q(x)]

is estimated without bias by the mean over draws of P, with a standard error over them. The judges are trained on draws
of P, see other draws of P as real images and draws of each Q as samples; their scores are then correlated with the KL.

A KL divergence is not what people see: it punishes what Q lacks and hardly what Q adds, and sharper conditionals cost
much of it while draws look clean. No score should be expected to follow it everywhere.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

import genzoo
from benchmarks.validation_bench import (
    DEFAULT,
    FRECHET,
    PIXELS,
    RANDOM,
    SCORES,
    Bar,
    Bench,
    Found,
    agreement,
    columns,
    kendall,
    scores,
    spearman,
    table,
    untrained,
)
from genzoo.core.spec import DataSpec
from genzoo.data.split import TensorSplit
from genzoo.evaluation.features.extractor import default_extractor
from genzoo.evaluation.features.feature_space import FeatureSpace, some_images
from genzoo.models.autoregressive.pixel_models import AutoregressiveModel
from genzoo.models.base import GenerativeModel
from genzoo.objectives.pixels import OutputDistribution

PRESET, SIZE = "pixelcnn", "tiny"
SIDE = 14
"""Of the images, at most: cheap to draw one by one."""
COARSE_LEVELS, CROP_LEVELS = 4, 16
"""Grey images made coarse look like something with few levels; crops in colour need more."""
LEARNED = 10_000
"""Images that P learns from."""
JUDGED = 3
"""Times as many draws of P as real images to train the feature extractors on."""
NOISES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
TEMPERATURES = (0.7, 0.85, 1.15, 1.3)
STEP_SHARES = (0.05, 0.15, 0.4)
DRAWN = 500
"""Images drawn at once."""
BAR = 0.9


@dataclass(frozen=True)
class Tempered(OutputDistribution):
    """Bernoulli or categorical conditionals with their logits divided by a temperature: below 1 is sharper."""

    of: OutputDistribution
    temperature: float
    levels: int

    @property
    def n_params(self) -> int:
        """As many as before."""
        return self.of.n_params

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Normalised, as logits are."""
        return self.of.log_prob(params / self.temperature, x)

    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """From the same distribution."""
        return self.of.sample(params / self.temperature, generator=generator)

    def mean(self, params: Tensor) -> Tensor:
        """Of the same distribution."""
        return self.of.mean(params / self.temperature)


# --- models ------------------------------------------------------------------------------------------------------


def coarse(images: Tensor, levels: int) -> Tensor:
    """Integers `[n, c, h, w]` as grey ones of few levels and at most 14 places a side, uint8 `[n, 1, h', w']`."""
    grey = images.float().mean(1, keepdim=True) / (levels - 1)
    size = min(SIDE, images.shape[2]), min(SIDE, images.shape[3])
    found = (F.adaptive_avg_pool2d(grey, size) * COARSE_LEVELS).long()
    return found.clamp(max=COARSE_LEVELS - 1).to(torch.uint8)


def cropped(images: Tensor, levels: int, rng: torch.Generator) -> Tensor:
    """Integers `[n, c, h, w]` as crops of at most 14 places a side at random places, uint8 of 16 levels."""
    height, width = (min(SIDE, side) for side in images.shape[2:])
    down, across = (
        torch.randint(side - cut + 1, (len(images),), generator=rng)
        for side, cut in zip(images.shape[2:], (height, width), strict=True)
    )
    crops = [
        image[:, r : r + height, c : c + width]
        for image, r, c in zip(images, down.tolist(), across.tolist(), strict=True)
    ]
    return (torch.stack(crops).long() * CROP_LEVELS // levels).to(torch.uint8)


def learned(images: Tensor, levels: int, steps: int, seed: int) -> AutoregressiveModel:
    """A small model after so many steps on `images`."""
    model = genzoo.create(PRESET, DataSpec(tuple(images.shape[1:]), levels), SIZE, seed=seed)
    assert isinstance(model, AutoregressiveModel)
    return model.fit(images, steps=steps, seed=seed, progress=False).eval()


def noisy(model: AutoregressiveModel, share: float, generator: torch.Generator) -> AutoregressiveModel:
    """The model with normal noise on each weight, of that share of the standard deviation of its tensor."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weights in other.parameters():
            spread = weights.std().item() if weights.numel() > 1 else 0.0
            weights.add_(share * spread * torch.randn(weights.shape, generator=generator))
    return other


def tempered(model: AutoregressiveModel, temperature: float) -> AutoregressiveModel:
    """The model with all its conditionals at that temperature."""
    other = copy.deepcopy(model)
    other.distribution = Tempered(model.distribution, temperature, model.distribution.levels)
    return other


def perturbed(
    truth_model: AutoregressiveModel, images: Tensor, bench: Bench
) -> dict[str, AutoregressiveModel]:
    """The models Q by what was done to them; those of fewer steps learn the `images` anew."""
    levels = truth_model.distribution.levels
    noises = {f"noise {s:g}": noisy(truth_model, s, bench.generator("weights", str(s))) for s in NOISES}
    warm = {f"temperature {t:g}": tempered(truth_model, t) for t in TEMPERATURES}
    counts = [max(1, round(share * bench.truth_steps)) for share in STEP_SHARES]
    return {**noises, **warm, **{f"{n} steps": learned(images, levels, n, bench.seed) for n in counts}}


def kl_divergence(p: GenerativeModel, q: GenerativeModel, draws: Tensor) -> tuple[float, float]:
    """KL(P || Q) in nats of an image and its standard error over `draws` of P, both likelihoods being exact."""
    gain = p.log_likelihood(draws).nats - q.log_likelihood(draws).nats
    return gain.mean().item(), (gain.std() / len(gain) ** 0.5).item()


def drawn(model: GenerativeModel, n: int, generator: torch.Generator) -> Tensor:
    """`n` images of the model, some hundred at a time."""
    return torch.cat([model.sample(min(DRAWN, n - i), generator=generator) for i in range(0, n, DRAWN)])


# --- the section -------------------------------------------------------------------------------------------------


def truth(bench: Bench) -> Found:
    """Correlations of scores over models Q with their exact KL divergence from P, by judge."""
    images = some_images(bench.data.train, LEARNED, bench.seed)
    if bench.truth_crops:
        images, levels = cropped(images, bench.levels, bench.generator("crops")), CROP_LEVELS
    else:
        images, levels = coarse(images, bench.levels), COARSE_LEVELS
    bench.say(f"truth: {PRESET} of size {SIZE} learns {list(images.shape[1:])} images of {levels} levels")
    p = learned(images, levels, bench.truth_steps, bench.seed)
    real = drawn(p, len(bench.real), bench.generator("real"))
    models = perturbed(p, images, bench)
    samples = {"P itself": drawn(p, len(real), bench.generator("samples"))}
    divergences = {"P itself": (0.0, 0.0)}
    for name, q in models.items():
        samples[name] = drawn(q, len(real), bench.generator("samples", name))
        divergences[name] = kl_divergence(p, q, real)
        bench.say(f"truth: {name}: KL {divergences[name][0]:.2f} ± {divergences[name][1]:.2f} nats")
    judges = judges_of(drawn(p, JUDGED * len(real), bench.generator("train")), levels, bench)
    found = {judge: columns(_scored(space, real, samples)) for judge, space in judges.items()}
    return _found(divergences, found)


def judges_of(draws: Tensor, levels: int, bench: Bench) -> dict[str, FeatureSpace]:
    """Judges trained on draws of P by the default one's recipe, one for each seed, and the untrained two."""
    split = TensorSplit(draws)
    spec = DataSpec(tuple(draws.shape[1:]), levels)
    data = replace(bench.data, name=f"draws of {PRESET}", train=split, val=split, test=split, spec=spec)
    trained = {
        f"seed {seed}" if seed else DEFAULT: default_extractor(data, seed=seed, say=bench.say)
        for seed in range(max(1, bench.seeds))
    }
    return {**trained, **untrained(data)}


def _scored(space: FeatureSpace, real: Tensor, samples: Mapping[str, Tensor]) -> list[dict[str, float]]:
    features = space(real)
    return [scores(features, space(images)) for images in samples.values()]


def _found(
    divergences: Mapping[str, tuple[float, float]], found: Mapping[str, Mapping[str, list[float]]]
) -> Found:
    exact = [value for value, _ in divergences.values()]
    correlations = {
        judge: {score: (spearman(exact, values), kendall(exact, values)) for score, values in of.items()}
        for judge, of in found.items()
    }
    tau = agreement({judge: of[FRECHET] for judge, of in found.items() if judge not in (PIXELS, RANDOM)})
    rows = [
        [name, f"{value:.2f} ± {error:.2f}", *(of[FRECHET][n] for of in found.values())]
        for n, (name, (value, error)) in enumerate(divergences.items())
    ]
    lines = [
        "KL(P || Q) in nats of an image, and the Fréchet distance of Q's draws by judge",
        *table(["Q", "KL", *found], rows),
        "Spearman's / Kendall's correlation of scores with KL, by judge",
        *table(
            ["", *SCORES],
            [[judge, *(f"{r:.2f} / {t:.2f}" for r, t in of.values())] for judge, of in correlations.items()],
        ),
        "Kendall's tau of the rankings of these models between judges of different seeds",
        *table(["judges", "tau"], [list(item) for item in tau.items()]),
    ]
    rank = correlations[DEFAULT][FRECHET][0]
    bar = Bar(
        f"Spearman of the default feature extractor's Fréchet distance with KL at least {BAR}",
        f"{rank:.3f}",
        rank >= BAR,
    )
    return Found(
        lines,
        [bar],
        {"kl": dict(divergences), "scores": dict(found), "correlations": correlations, "tau": tau},
    )
