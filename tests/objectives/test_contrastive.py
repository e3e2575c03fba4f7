"""Objectives of two views against loops written from their papers, at chance, and under what must not matter."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.objectives.contrastive import (
    NCE,
    Decoupled,
    InfoNCE,
    Logistic,
    NPair,
    NTXent,
    QueuedInfoNCE,
    masked_logsumexp,
)
from genzoo.objectives.redundancy import BarlowTwins, VICReg
from genzoo.objectives.supervised import BatchHard, Instances, Margin, SupCon, SupervisedNPair, Triplet

SOFTMAX = [InfoNCE(0.3), NTXent(0.3), Decoupled(0.3)]
SIGMOID = [Logistic(0.3), NCE(0.3)]
COSINE = [*SOFTMAX, *SIGMOID, Instances(SupCon(0.3)), Instances(Triplet(0.4, BatchHard()))]
PAIRS = [
    *COSINE,
    NPair(0.01),
    BarlowTwins(),
    VICReg(),
    Instances(Margin(2.0)),
    Instances(SupervisedNPair(0.01)),
]


def named(parts):
    return pytest.mark.parametrize("objective", parts, ids=lambda part: type(part).__name__)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def views(n=6, d=5, seed=0):
    return torch.randn(2, n, d, generator=rng(seed), dtype=torch.float64).unbind()


def cosine(x, y):
    dot = sum(p * q for p, q in zip(x.tolist(), y.tolist(), strict=True))
    return dot / math.hypot(*x.tolist()) / math.hypot(*y.tolist())


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0)


def assert_values(found, wanted):
    assert found.tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def mean_over_anchors(term, a, b):
    """term(i, anchors, other view) averaged over which view the anchor is of."""
    return [(term(i, a, b) + term(i, b, a)) / 2 for i in range(len(a))]


# --- loops from the papers -----------------------------------------------------------------------------------------


def test_info_nce_by_a_loop():
    a, b = views()
    wanted = []
    for i in range(6):
        scores = [math.exp(cosine(a[i], b[j]) / 0.3) for j in range(6)]
        wanted.append(-math.log(scores[i] / sum(scores)))
    assert_values(InfoNCE(0.3)(a, b), wanted)


def test_nt_xent_by_a_loop():
    """SimCLR's algorithm 1: over all 2n embeddings but the anchor itself."""

    def term(i, own, other):
        positive = math.exp(cosine(own[i], other[i]) / 0.3)
        total = sum(math.exp(cosine(own[i], other[j]) / 0.3) for j in range(6))
        total += sum(math.exp(cosine(own[i], own[j]) / 0.3) for j in range(6) if j != i)
        return -math.log(positive / total)

    a, b = views()
    assert_values(NTXent(0.3)(a, b), mean_over_anchors(term, a, b))


def test_decoupled_by_a_loop():
    def term(i, own, other):
        total = sum(math.exp(cosine(own[i], v[j]) / 0.3) for v in (own, other) for j in range(6) if j != i)
        return -cosine(own[i], other[i]) / 0.3 + math.log(total)

    a, b = views()
    assert_values(Decoupled(0.3)(a, b), mean_over_anchors(term, a, b))


def test_logistic_and_nce_by_a_loop():
    k = 10

    def scores(i, own, other):
        negatives = [cosine(own[i], v[j]) / 0.3 for v in (own, other) for j in range(6) if j != i]
        return cosine(own[i], other[i]) / 0.3, negatives

    def logistic(i, own, other):
        positive, negatives = scores(i, own, other)
        return softplus(-positive) + sum(softplus(s) for s in negatives) / k

    def nce(i, own, other):
        positive, negatives = scores(i, own, other)
        h = [1 / (1 + k * math.exp(-s)) for s in (positive, *negatives)]  # p_model / (p_model + k p_noise)
        return -math.log(h[0]) - sum(math.log(1 - x) for x in h[1:])

    a, b = views()
    assert_values(Logistic(0.3)(a, b), mean_over_anchors(logistic, a, b))
    assert_values(NCE(0.3)(a, b), mean_over_anchors(nce, a, b))


def test_n_pair_by_a_loop():
    a, b = views()
    wanted = []
    for i in range(6):
        own = float(a[i] @ b[i])
        loss = math.log(1 + sum(math.exp(float(a[i] @ b[j]) - own) for j in range(6) if j != i))
        wanted.append(loss + 0.01 * (float(a[i] @ a[i]) + float(b[i] @ b[i])) / 2)
    assert_values(NPair(0.01)(a, b), wanted)


def test_queue_by_a_loop():
    query, key = views()
    stored = views(9, seed=1)[0]
    wanted = []
    for q, k in zip(query, key, strict=True):
        positive = math.exp(cosine(q, k) / 0.3)
        wanted.append(-math.log(positive / (positive + sum(math.exp(cosine(q, s) / 0.3) for s in stored))))
    assert_values(QueuedInfoNCE(0.3)(query, key, stored), wanted)


# --- other libraries -----------------------------------------------------------------------------------------------


def test_lightly_agrees():
    losses = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    a, b = views()
    for ours, theirs in ((NTXent(0.3), losses.NTXentLoss(0.3)), (Decoupled(0.3), losses.DCLLoss(0.3))):
        torch.testing.assert_close(ours(a, b).mean(), theirs(a, b))


def test_pytorch_metric_learning_agrees():
    reason = "pytorch-metric-learning is not installed"
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason=reason)
    distances = pytest.importorskip("pytorch_metric_learning.distances", reason=reason)
    a, b = views()
    z, labels = torch.cat([a, b]), torch.arange(6).repeat(2)
    torch.testing.assert_close(NTXent(0.3)(a, b).mean(), losses.NTXentLoss(0.3)(z, labels))
    lengths_count = distances.DotProductSimilarity(normalize_embeddings=False)
    theirs = losses.NPairsLoss(distance=lengths_count)(
        torch.cat([a, a]), labels
    )  # it draws which view is the anchor
    torch.testing.assert_close(NPair(0.0)(a, a).mean(), theirs)


# --- chance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [torch.ones(14, 3), 3.0 * torch.eye(14)], ids=["equal", "orthogonal"])
def test_chance_levels_are_exact(z):
    """Where all cosines are equal every candidate is as likely; n = 7."""
    a, b = z.double().chunk(2)
    s = 2.0 if z[0, 1] else 0.0
    k = 12
    for objective, chance in (
        (InfoNCE(0.5), math.log(7)),
        (NTXent(0.5), math.log(13)),
        (Decoupled(0.5), math.log(12)),
        (Logistic(0.5), softplus(-s) + softplus(s)),
        (NCE(0.5), softplus(math.log(k) - s) + k * softplus(s - math.log(k))),
        (Instances(SupCon(0.5)), math.log(13)),
    ):
        assert_values(objective(a, b), [chance] * 7)
    assert_values(
        QueuedInfoNCE(0.5)(a[:2], b[:2], z[2:].double()[: 5 if s else 0]), [math.log(6 if s else 1)] * 2
    )


def test_random_embeddings_are_near_chance():
    """In many dimensions cosines are about 0: within a few of their standard deviations of log(2n - 1)."""
    a, b = views(64, 4096)
    assert NTXent(0.5)(a, b).mean().item() == pytest.approx(math.log(127), abs=0.02)


def test_nce_finds_the_log_ratio():
    """Over a joint table of two binary views, the optimum of k : 1 NCE is log p(b | a) / p(b)."""
    joint = torch.tensor([[0.4, 0.1], [0.2, 0.3]], dtype=torch.float64)
    noise = torch.outer(joint.sum(1), joint.sum(0))
    s = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    k = 5
    optimizer = torch.optim.LBFGS([s], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        logits = s - math.log(k)
        value = (joint * F.softplus(-logits) + k * noise * F.softplus(logits)).sum()
        value.backward()
        return value

    optimizer.step(closure)
    torch.testing.assert_close(s.detach(), (joint / noise).log(), atol=1e-5, rtol=0)


# --- what must, and what must not, matter --------------------------------------------------------------------------


@named(PAIRS)
def test_per_image_and_equivariant(objective):
    a, b = views(7)
    order = torch.randperm(7, generator=rng(3))
    found = objective(a, b)
    assert found.shape == (7,)
    torch.testing.assert_close(objective(a[order], b[order]), found[order])
    assert not torch.allclose(objective(a, b[order]).mean(), found.mean())


@named(PAIRS)
def test_rotations_do_not_matter_but_for_redundancy(objective):
    a, b = views()
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=rng(2), dtype=torch.float64)).Q
    same = torch.allclose(objective(a @ rotation, b @ rotation), objective(a, b))
    assert same == (not isinstance(objective, (BarlowTwins, VICReg)))


@named(COSINE)
def test_lengths_do_not_matter(objective):
    a, b = views()
    scales = torch.rand(2, 6, 1, generator=rng(1), dtype=torch.float64) + 0.5
    torch.testing.assert_close(objective(a * scales[0], b * scales[1] * 100), objective(a, b))


@named([NTXent(0.3), Decoupled(0.3), *SIGMOID, BarlowTwins(), VICReg(), Instances(Margin(2.0))])
def test_views_may_be_exchanged(objective):
    a, b = views()
    torch.testing.assert_close(objective(a, b), objective(b, a))


def test_info_nce_has_a_direction():
    a, b = views()
    assert not torch.allclose(InfoNCE(0.3)(a, b).mean(), InfoNCE(0.3)(b, a).mean())


@named([*SOFTMAX, *SIGMOID, Instances(SupCon(0.3)), Instances(Triplet(2.0))])
def test_gradients_pull_positives_and_push_negatives(objective):
    """t is the angle of a positive pair, u that of the other image with its anchor, on axes of their own."""

    def loss(t, u):
        t, u = (torch.tensor(angle, dtype=torch.float64, requires_grad=True) for angle in (t, u))
        zero, one = torch.zeros_like(t), torch.ones_like(t)
        other = torch.stack([u.cos(), zero, u.sin()])
        a = torch.stack([torch.stack([one, zero, zero]), other])
        b = torch.stack([torch.stack([t.cos(), t.sin(), zero]), other])
        return torch.autograd.grad(objective(a, b)[0], (t, u))

    assert loss(0.8, math.pi / 2)[0] > 0  # negatives at right angles to both: only the positive acts on t
    assert loss(0.0, 0.8)[1] < 0  # the loss falls as the negative turns away


@named([NTXent, Decoupled, InfoNCE])
def test_a_low_temperature_looks_at_the_hardest_negative(objective):
    """loss * temperature tends to max(s_n) - s_p, where that is above 0."""
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[0.6, 0.8], [0.8, 0.6]], dtype=torch.float64)
    found = objective(0.001)(a, b) * 0.001
    wanted = {InfoNCE: 0.8 - 0.6, NTXent: (0.2 + 0.96 - 0.6) / 2, Decoupled: (0.2 + 0.96 - 0.6) / 2}
    assert_values(found.round(decimals=6), [wanted[objective]] * 2)


def test_keys_and_queue_get_no_gradient():
    query, key = (v.requires_grad_() for v in views())
    stored = views(9, seed=1)[0].requires_grad_()
    QueuedInfoNCE()(query, key, stored).sum().backward()
    assert query.grad.abs().sum() > 0 and key.grad is None and stored.grad is None


def test_decoupled_leaves_out_the_coupling():
    """Yeh et al., proposition 1: NT-Xent's gradient is DCL's times 1 - p(positive), where there is one direction."""
    a, b = (v.requires_grad_() for v in views(2))
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.1
    (coupled,) = torch.autograd.grad(InfoNCE(0.1)(a, b)[0], a, retain_graph=True)
    (plain,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], a)
    share = logits.softmax(1)[0, 0]
    torch.testing.assert_close(coupled, (1 - share) * plain)


# --- precision, degenerate batches, mistakes -----------------------------------------------------------------------


@named(PAIRS)
def test_autocast_and_bfloat16_keep_full_precision(objective):
    a, b = (v.float() for v in views(32, 16))
    exact = objective(a.double(), b.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = objective(a, b)
    assert found.dtype == torch.float32 and exact.dtype == torch.float64
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
    assert objective(a.bfloat16(), b.bfloat16()).dtype == torch.float32


@named(PAIRS)
@pytest.mark.parametrize("kind", ["single", "equal", "zero", "large"])
def test_degenerate_batches_are_finite(objective, kind):
    a, b = {
        "single": views(1),
        "equal": torch.ones(2, 4, 5).unbind(),
        "zero": torch.zeros(2, 4, 5).unbind(),
        "large": tuple(1e4 * v for v in views(4)),
    }[kind]
    a = a.clone().float().requires_grad_()
    found = objective(a, b.float())
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert found.isfinite().all() and gradient.isfinite().all()


def test_a_single_image_has_no_negatives():
    a, b = views(1)
    s = cosine(a[0], b[0]) / 0.3
    for objective, alone in (
        (InfoNCE(0.3), 0.0),
        (NTXent(0.3), 0.0),
        (Decoupled(0.3), -s),
        (Logistic(0.3), softplus(-s)),
        (NCE(0.3), softplus(-s)),
        (NPair(0.0), 0.0),
    ):
        assert_values(objective(a, b), [alone])


@pytest.mark.parametrize("kind", [InfoNCE, NTXent, Decoupled, Logistic, NCE, QueuedInfoNCE, SupCon])
@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan, math.inf])
def test_temperatures_are_above_zero(kind, temperature):
    with pytest.raises(
        GenzooError, match=f"temperature of {kind.__name__} must be (above 0|a finite number)"
    ):
        kind(temperature)


@named(PAIRS)
def test_lists_of_different_lengths_are_refused(objective):
    a, b = views()
    with pytest.raises(GenzooError, match=r"must have one shape, got \[6, 5\], \[5, 5\]"):
        objective(a, b[:5])
    with pytest.raises(GenzooError, match=r"takes embeddings \[n, d\]"):
        objective(a[None], b[None])


def test_a_queue_of_another_width_is_refused():
    a, b = views()
    with pytest.raises(GenzooError, match=r"stored embeddings must be \[m, 5\], got \[3, 4\]"):
        QueuedInfoNCE()(a, b, torch.zeros(3, 4))
    with pytest.raises(GenzooError, match="l2 of NPair"):
        NPair(-1.0)


@named([*PAIRS, QueuedInfoNCE(0.2)])
def test_objectives_are_parts_of_configurations(objective):
    text = json.dumps(to_json(objective))
    types = [
        *(type(part) for part in PAIRS),
        QueuedInfoNCE,
        SupCon,
        Triplet,
        BatchHard,
        Margin,
        SupervisedNPair,
    ]
    assert from_json(json.loads(text), types) == objective


def test_masked_logsumexp_has_a_gradient_in_empty_rows():
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64, requires_grad=True)
    keep = torch.tensor([[True, False, True], [False] * 3])
    found = masked_logsumexp(logits, keep)
    found.sum().backward()
    assert_values(found.detach(), [math.log(math.e + math.e**3), 0.0])
    assert logits.grad[1].tolist() == [0.0] * 3 and logits.grad[0, 1] == 0
