"""CLIP and SigLIP against loops, with captions that repeat, and the learned scale."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.objectives.contrastive import InfoNCE
from genzoo.objectives.image_text import Clip, LearnedLogits, SigLIP

LABELS = [0, 1, 0, 2, 1, 0]


def named(parts):
    return pytest.mark.parametrize("objective", parts, ids=lambda part: type(part).__name__)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def towers(n=6, d=5):
    return torch.randn(2, n, d, generator=rng(), dtype=torch.float64).unbind()


def logits_of(a, b, scale, bias=0.0):
    return [[scale * float(F.cosine_similarity(x, y, dim=0)) + bias for y in b] for x in a]


def fixed(scale, bias=None):
    return LearnedLogits(scale, bias).double()


def test_clip_by_its_pseudo_code():
    a, b = towers()
    logits = torch.tensor(logits_of(a, b, 5.0), dtype=torch.float64)
    targets = torch.arange(6)
    wanted = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    found = Clip()(a, b, fixed(5.0))
    torch.testing.assert_close(found.mean(), wanted)
    both = (InfoNCE(0.2)(a, b) + InfoNCE(0.2)(b, a)) / 2
    torch.testing.assert_close(found, both)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_clip_by_a_loop(labels):
    a, b = towers()
    logits, wanted = logits_of(a, b, 5.0), []
    for i in range(6):
        right = [j for j in range(6) if j == i or (labels and labels[j] == labels[i])]
        rows = sum(math.exp(v) for v in logits[i])
        columns = sum(math.exp(row[i]) for row in logits)
        terms = [math.log(math.exp(logits[i][j]) / rows) for j in right]
        terms += [math.log(math.exp(logits[j][i]) / columns) for j in right]
        wanted.append(-sum(terms) / len(terms))
    found = Clip()(a, b, fixed(5.0), None if labels is None else torch.tensor(labels))
    assert found.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_siglip_by_a_loop(labels):
    a, b = towers()
    logits, wanted = logits_of(a, b, 5.0, -2.0), []
    for i in range(6):
        signs = [1 if j == i or (labels and labels[j] == labels[i]) else -1 for j in range(6)]
        wanted.append(
            -sum(math.log(1 / (1 + math.exp(-s * v))) for s, v in zip(signs, logits[i], strict=True))
        )
    found = SigLIP()(a, b, fixed(5.0, -2.0), None if labels is None else torch.tensor(labels))
    assert found.tolist() == pytest.approx(wanted)


@named([Clip(), SigLIP()])
def test_invariances(objective):
    a, b = towers()
    logits, order = objective.logits().double(), torch.randperm(6, generator=rng(1))
    found = objective(a, b, logits)
    torch.testing.assert_close(objective(a[order], b[order], logits), found[order])
    torch.testing.assert_close(objective(7 * a, b / 3, logits), found)
    torch.testing.assert_close(objective(b, a, logits).mean(), found.mean())
    assert not torch.allclose(objective(a, b[order], logits).mean(), found.mean())


def test_chance():
    a = b = torch.ones(7, 3, dtype=torch.float64)
    assert Clip()(a, b, fixed(5.0)).tolist() == pytest.approx([math.log(7)] * 7)
    assert SigLIP()(a, b, fixed(1.0, -1.0)).tolist() == pytest.approx([7 * math.log(2)] * 7)
    labels = torch.zeros(7, dtype=torch.long)  # one class only: every answer is right
    assert Clip()(a, b, fixed(5.0), labels).tolist() == pytest.approx([math.log(7)] * 7)


def test_equal_captions_are_not_pushed_apart():
    """One class, images at their caption: without labels the batch is torn apart, with them it rests."""
    a = F.normalize(torch.randn(4, 3, generator=rng(), dtype=torch.float64), dim=1)
    a = torch.cat([a[:1], a[:1], a[2:]]).requires_grad_()
    b = a.detach()
    labels = torch.tensor([0, 0, 1, 2])
    found = SigLIP()(a, b, fixed(20.0, 0.0), labels)
    assert found[0] == found[1] and found[0] < SigLIP()(a, b, fixed(20.0, 0.0))[0] - 10


def test_scale_and_bias_learn():
    a, b = towers()
    logits = SigLIP().logits().double()
    assert sorted(name for name, _ in logits.named_parameters()) == ["bias", "log_scale"]
    assert logits.log_scale.exp().item() == pytest.approx(10) and logits.bias.item() == -10
    SigLIP()(a, a, logits).mean().backward()
    assert logits.bias.grad < 0  # "no" to everything is wrong about the pairs
    clip = Clip().logits().double()
    assert clip.bias is None and clip.log_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-6)
    Clip()(a, a, clip).mean().backward()
    assert clip.log_scale.grad < 0  # pairs that agree: more certainty is better
    clip.log_scale.grad = None
    Clip()(a, b.flip(0), clip).mean().backward()
    assert clip.log_scale.grad > 0  # pairs that do not: less


def test_the_scale_is_bounded_and_comes_back():
    a, b = towers()
    logits = fixed(1000.0)
    loss = Clip()(a, b.flip(0), logits).mean()
    torch.testing.assert_close(loss, Clip()(a, b.flip(0), fixed(100.0)).mean())
    loss.backward()
    assert logits.log_scale.exp().item() == pytest.approx(100) and logits.log_scale.grad > 0


@named([Clip(), SigLIP()])
def test_precision_and_degenerate_batches(objective):
    a, b = (t.float() for t in towers(16, 32))
    logits = objective.logits()
    exact = objective(a.double(), b.double(), objective.logits().double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = objective(a, b, logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
    for x in (torch.zeros(3, 4), torch.ones(3, 4), torch.ones(1, 4)):
        x.requires_grad_()
        found = objective(x, x.detach(), logits)
        found.sum().backward()
        assert found.isfinite().all() and x.grad.isfinite().all()


@named([Clip(), SigLIP()])
def test_mistakes(objective):
    a, b = towers()
    with pytest.raises(GenzooError, match="must have one shape"):
        objective(a, b[:5], objective.logits())
    for labels in (torch.arange(5), torch.ones(6)):
        with pytest.raises(GenzooError, match="labels must be 6 whole numbers"):
            objective(a, b, objective.logits(), labels)
    with pytest.raises(GenzooError, match=r"temperature of .* must be above 0"):
        type(objective)(0.0)
    assert from_json(json.loads(json.dumps(to_json(objective))), [Clip, SigLIP]) == objective
