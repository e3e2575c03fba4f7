"""Scores of strangeness: AUROC against scikit-learn and by hand, code lengths, a model that can tell."""

import io
import math
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss
from genzoo.data.image_data import ImageData, protocol
from genzoo.data.split import TensorSplit
from genzoo.evaluation.baselines import IndependentPixels
from genzoo.evaluation.ood import (
    OODScores,
    code_bits,
    ood_scores,
    separation,
    separation_stderr,
    typicality_of_groups,
    typicality_threshold,
)
from genzoo.evaluation.report.case import Case, OODData
from genzoo.evaluation.report.ood_section import OODSection
from genzoo.metrics.roc import auroc, auroc_stderr
from genzoo.models.base import GenerativeModel
from genzoo.models.registry import create
from genzoo.testing.probe import perturb


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Independent(GenerativeModel):
    """Independent pixels with P(v) proportional to exp(weights[v]): its likelihood is known by hand."""

    def __init__(self, spec, weights, kind=LikelihoodKind.EXACT):
        super().__init__()
        self.spec, self.kind, self.calls = spec, kind, []
        self.weights = torch.nn.Parameter(torch.as_tensor(weights, dtype=torch.float64))

    @property
    def likelihood(self):
        return self.kind

    def loss(self, batch: Batch, turn="model", *, generator=None):
        nats = -self.log_likelihood(batch.images).nats
        return Loss(nats, {})

    def sample(self, n, cond=None, *, generator=None):
        drawn = torch.multinomial(self.weights.softmax(0).detach(), n * self.spec.dims, True)
        return drawn.view(n, *self.spec.shape).to(torch.uint8)

    def log_likelihood(self, images, cond=None, *, generator=None):
        if self.kind is LikelihoodKind.NONE:
            raise NoLikelihood("none here")
        self.calls.append(len(images))
        nats = self.weights.log_softmax(0)[check_images(images, self.spec).long()].flatten(1).sum(1)
        return LogLikelihood(nats.detach(), self.kind, self.spec)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("values", [3, 20, None])
def test_auroc_equals_scikit_learns(seed, values):
    """With many ties, some and none."""
    n, m = 50 + 37 * seed, 91 - 13 * seed
    scores = torch.randn(n + m, generator=seeded(seed), dtype=torch.float64)
    scores[n:] += 0.4
    if values is not None:
        scores = (scores * values / 4).round()
    labels = np.r_[np.zeros(n), np.ones(m)]
    assert auroc(scores[:n], scores[n:]) == pytest.approx(roc_auc_score(labels, scores.numpy()), abs=1e-12)


def test_auroc_by_hand():
    low, high = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0])
    assert auroc(low, high) == 1 and auroc(high, low) == 0 and auroc(low, low) == 0.5
    assert auroc(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0])) == (1 + 0 + 1 + 0.5) / 4
    infinite = torch.tensor([math.inf, 0.0])
    assert auroc(low, infinite) == 0.5 and auroc(infinite, infinite) == 0.5
    # any strictly rising map of both leaves it alone
    a, b = torch.randn(2, 40, generator=seeded(0), dtype=torch.float64)
    assert auroc(a, b) == auroc(a.exp(), b.exp()) == pytest.approx(1 - auroc(b, a))
    # float32 and float64 beside each other; memory stays linear in the number of scores
    assert auroc(torch.zeros(100_000), torch.ones(100_000).double()) == 1


@pytest.mark.parametrize(
    ("a", "b", "message"), [([], [1.0], "at least one"), ([1.0], [math.nan], "NaN")], ids=["empty", "nan"]
)
def test_auroc_refuses(a, b, message):
    with pytest.raises(GenzooError, match=message):
        auroc(torch.tensor(a), torch.tensor(b))


@pytest.mark.parametrize(
    ("shape", "levels"),
    [
        ((1, 16, 16), 2),
        ((1, 9, 7), 17),
        ((3, 12, 8), 256),
        ((2, 8, 8), 256),
        ((3, 8, 8), 2),
        ((1, 8, 8), 999),
    ],
    ids=str,
)
def test_codes_can_be_short_for_simple_images_and_must_be_long_for_noise(shape, levels):
    spec = DataSpec(shape, levels)
    dtype = torch.uint8 if levels <= 256 else torch.long
    noise = torch.randint(levels, (40, *shape), generator=seeded(0)).to(dtype)
    entropy = spec.dims * math.log2(levels)
    bits = code_bits(noise, spec)
    assert bits.dtype == torch.float64
    # no code beats the entropy of uniform noise on average; a good one is not far above
    assert entropy - 16 <= bits.mean() <= 1.9 * entropy + 160
    flat = torch.full((1, *shape), levels - 1).to(dtype)
    assert code_bits(flat, spec).item() < 0.45 * bits.mean()


def test_code_bits_are_those_of_a_real_png_or_deflate():
    """An independent count: the whole file less that of an empty one, and zlib by hand."""
    ramp = torch.arange(64, dtype=torch.uint8).repeat(64, 1).view(1, 1, 64, 64)
    ramp = ramp + ramp.transpose(2, 3)  # smooth in both directions: PNG's filters win
    bits = code_bits(ramp, DataSpec((1, 64, 64))).item()
    file = io.BytesIO()
    Image.fromarray(ramp[0, 0].numpy()).save(file, format="PNG", optimize=True)
    overhead = 8 + 25 + 12 + 12 + 6  # signature, IHDR, frames of IDAT and IEND, zlib's wrapping
    assert bits == 8 * (len(file.getvalue()) - overhead)
    assert bits < 0.9 * 8 * len(zlib.compress(ramp.numpy().tobytes(), 9))
    text = torch.tensor([0, 1] * 32, dtype=torch.uint8).view(1, 2, 4, 8)  # two channels: no PNG
    packed = zlib.compress(np.packbits(text[0].numpy().astype(bool)).tobytes(), 9)
    assert code_bits(text, DataSpec((2, 4, 8), 2)).item() == 8 * (len(packed) - 6)


def test_scores_by_hand():
    spec = DataSpec((1, 4, 4), 4)
    model = Independent(spec, [0.0, 1.0, 2.0, 3.0]).train()
    images = torch.randint(4, (11, *spec.shape), dtype=torch.uint8, generator=seeded(1))
    scores = ood_scores(model, images, entropy=1.5, chunk=4)
    p = np.exp([0, 1, 2, 3]) / np.exp([0, 1, 2, 3]).sum()
    bits = -np.log2(p)[images.numpy()].reshape(11, -1).sum(1) / 16
    np.testing.assert_allclose(scores.likelihood.numpy(), bits)
    np.testing.assert_allclose(scores.complexity.numpy(), bits - code_bits(images, spec).numpy() / 16)
    np.testing.assert_allclose(scores.typicality.numpy(), np.abs(bits - 1.5))
    assert model.calls == [4, 4, 3] and model.training and scores.kind is LikelihoodKind.EXACT
    assert list(scores.named()) == ["likelihood", "complexity", "typicality"]


def test_which_score_finds_which_strangers():
    """A model of noise likes flat images better than noise: likelihood fails, the others do not."""
    spec = DataSpec((1, 8, 8), 4)
    model = Independent(spec, [0.0, 0.5, 1.0, 3.0])
    entropy = -(model.weights.softmax(0) * model.weights.log_softmax(0)).sum().item() / math.log(2)
    torch.manual_seed(0)
    noise = model.sample(200)
    flat = torch.full((50, 1, 8, 8), 3, dtype=torch.uint8)
    uniform = torch.randint(4, (50, 1, 8, 8), dtype=torch.uint8, generator=seeded(2))
    inside, simple, wild = (ood_scores(model, x, entropy=entropy) for x in (noise, flat, uniform))
    assert separation(inside, simple) == {"likelihood": 0.0, "complexity": 1.0, "typicality": 1.0}
    found = separation(inside, wild)
    assert found["likelihood"] > 0.99 and found["typicality"] > 0.95
    same = separation(inside, ood_scores(model, model.sample(200), entropy=entropy))
    assert all(0.4 < value < 0.6 for value in same.values())


def test_a_report_measures_typicality_from_validation_images():
    """H is the mean bits of the model's own validation images, by hand; AUROC is that of |bits - H|."""
    spec = DataSpec((1, 4, 4), 4)
    model = Independent(spec, [0.0, 1.0, 2.0, 3.0])
    shares = [[1.0, 1.0, 2.0, 4.0], [1.0, 1.0, 3.0, 3.0], [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 1.0, 2.0]]
    splits = [
        TensorSplit(torch.multinomial(torch.tensor(p), 40 * 16, True, generator=seeded(n)).view(40, 1, 4, 4))
        for n, p in enumerate(shares)
    ]
    train, val, test, strange = splits
    about = protocol("own", (train, val, test), "own/test")
    own = ImageData("own", train, val, test, spec, about)
    other = ImageData("other", train, val, strange, spec, about)
    found = OODSection().measure(Case(model, own, "test", ood=OODData("other", other)))
    bits = [model.log_likelihood(split.images).bits_per_dim for split in (val, test, strange)]
    entropy = bits[0].mean().item()
    assert found.entropy == pytest.approx(entropy, rel=1e-12)
    inside, outside = ((b - entropy).abs() for b in bits[1:])
    assert found.auroc["typicality"].value == pytest.approx(auroc(inside, outside), abs=1e-12)
    moved = [(b - entropy - 0.05).abs() for b in bits[1:]]
    assert abs(auroc(*moved) - auroc(inside, outside)) > 0.005  # it would show


def test_a_report_measures_typicality_without_classes_as_it_scores():
    """The mean that typicality is measured from is one of P(x), not of P(x | label)."""
    spec = DataSpec((1, 3, 3), 4, "class", 2)
    torch.manual_seed(0)
    model = perturb(create("pixelcnn", spec, "tiny"))
    images = torch.randint(4, (60, 1, 3, 3), generator=seeded(2), dtype=torch.uint8)
    splits = [TensorSplit(part, torch.arange(20) % 2) for part in images.split(20)]
    own = ImageData("own", *splits, spec, protocol("own", tuple(splits), "own/test"))
    other = ImageData("other", *splits, spec, protocol("other", tuple(splits), "other/test"))
    found = OODSection().measure(Case(model, own, "test", ood=OODData("other", other)))
    bits, given = (
        model.log_likelihood(splits[1].images, cond).bits_per_dim.mean() for cond in (None, splits[1].labels)
    )
    assert found.entropy == pytest.approx(bits.item(), abs=1e-9) and abs(bits - given) > 1e-3


def test_the_ratio_cancels_what_the_background_knows():
    """A model of pairs of equal pixels against independent ones: shuffled pixels are strange, dim ones are not."""

    class Pairs(Independent):
        """Pixels 2i and 2i + 1 are equal with probability 0.97, and dark with probability 0.9."""

        def log_likelihood(self, images, cond=None, *, generator=None):
            pairs = check_images(images, self.spec).flatten(1).view(len(images), -1, 2).long()
            first = torch.tensor([0.9, 0.1], dtype=torch.float64)[pairs[..., 0]].log()
            second = torch.tensor([0.03, 0.97], dtype=torch.float64)[(pairs[..., 0] == pairs[..., 1]).long()]
            return LogLikelihood((first + second.log()).sum(1), self.kind, self.spec)

    def drawn(n, bright, seed):
        first = (torch.rand(n, 32, 1, generator=seeded(seed)) < bright).long()
        flip = (torch.rand(n, 32, 1, generator=seeded(seed + 1)) < 0.03).long()
        return torch.cat([first, (first + flip) % 2], 2).view(n, 1, 8, 8).to(torch.uint8)

    spec = DataSpec((1, 8, 8), 2)
    model, background = Pairs(spec, [0.0, 0.0]), IndependentPixels.fit(drawn(5000, 0.1, 0), spec)
    own, brighter = drawn(300, 0.1, 2), drawn(300, 0.3, 4)
    shuffled = own[..., torch.randperm(8, generator=seeded(9)), :].flatten(1)
    shuffled = shuffled[:, torch.randperm(64, generator=seeded(9))].view_as(own)
    a, b, c = (
        ood_scores(model, x, entropy=1.0, chunk=70, background=background) for x in (own, shuffled, brighter)
    )
    by_hand = background.log_likelihood(own).nats - model.log_likelihood(own).nats
    np.testing.assert_allclose(a.ratio.numpy(), by_hand.numpy() / (64 * math.log(2)))
    assert list(a.named()) == ["likelihood", "complexity", "typicality", "ratio"]
    assert separation(a, b)["ratio"] > 0.97
    assert separation_stderr(a, b)["ratio"] == auroc_stderr(a.ratio, b.ratio) < 0.02
    # brighter images of the same structure: strange by likelihood, but not by the ratio
    assert separation(a, c)["likelihood"] > 0.95 and separation(a, c)["ratio"] < 0.5


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_standard_error_of_auroc_is_its_spread(shift):
    found, errors = [], []
    for seed in range(300):
        g = seeded(seed)
        a = torch.randn(40, generator=g, dtype=torch.float64)
        b = torch.randn(60, generator=g, dtype=torch.float64) + shift
        found.append(auroc(a, b))
        errors.append(auroc_stderr(a, b))
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.15)
    assert auroc_stderr(a[:1], b) is None


def test_groups_and_their_threshold():
    g = seeded(3)
    reference = 2 + 0.5 * torch.randn(4000, generator=g, dtype=torch.float64)
    entropy = reference.mean().item()
    threshold = typicality_threshold(reference, entropy, 25, level=0.95, resamples=4000, generator=seeded(4))
    # a mean of 25 is normal with scale 0.5 / 5; 95% lie within 1.96 of these
    assert threshold == pytest.approx(1.96 * 0.1, rel=0.05)
    fresh = 2 + 0.5 * torch.randn(25 * 2000 + 7, generator=g, dtype=torch.float64)
    groups = typicality_of_groups(fresh, entropy, 25)
    assert groups.shape == (2000,)
    assert abs((groups > threshold).double().mean().item() - 0.05) < 0.02
    by_hand = abs(sum(fresh[25:50].tolist()) / 25 - entropy)
    assert groups[1].item() == pytest.approx(by_hand)
    shifted = typicality_of_groups(fresh + 0.4, entropy, 25)
    assert (shifted > threshold).double().mean() > 0.95  # single images would hardly show it


def test_mistakes_are_named():
    spec = DataSpec((1, 2, 2), 4)
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(NoLikelihood):
        ood_scores(Independent(spec, [0.0] * 4, LikelihoodKind.NONE), images, entropy=1.0)
    with pytest.raises(GenzooError, match="shape"):
        ood_scores(Independent(spec, [0.0] * 4), images[..., :1], entropy=1.0)
    with pytest.raises(GenzooError, match="lossless code"):
        code_bits(torch.zeros(2, 3), DataSpec((3,), None))
    with pytest.raises(GenzooError, match="reference images"):
        typicality_threshold(torch.zeros(0), 1.0, 5)


def test_no_images_no_scores():
    model = Independent(DataSpec((1, 2, 2), 4), [0.0] * 4)
    scores = ood_scores(model, torch.zeros(0, 1, 2, 2, dtype=torch.uint8), entropy=1.0)
    assert isinstance(scores, OODScores) and all(len(v) == 0 for v in scores.named().values())
