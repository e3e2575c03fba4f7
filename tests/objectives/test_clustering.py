"""Sinkhorn's marginals, swapped prediction against loops and the other library, and KoLeo's nearest neighbours."""

import json
import math

import pytest
import torch

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.objectives.clustering import (
    Centering,
    CrossViewLoss,
    KoLeo,
    Sinkhorn,
    prototype_scores,
    sinkhorn,
)

SWAV = CrossViewLoss(Sinkhorn(0.1, 3), 0.2)
DINO = CrossViewLoss(Centering(0.05), 0.2)


def named(parts):
    return pytest.mark.parametrize("part", parts, ids=lambda part: type(part).__name__)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def crops(count=4, b=6, k=5, seed=0):
    """Scores of the size that cosines have."""
    return list(torch.rand(count, b, k, generator=rng(seed), dtype=torch.float64) * 2 - 1)


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def swapped(student, targets, temperature):
    """`[b]` by loops: the mean over pairs of different crops of the cross-entropy."""
    b, losses = len(student[0]), []
    for n in range(b):
        terms = []
        for i, q in enumerate(targets):
            for v, scores in enumerate(student):
                if v != i:
                    p = softmax([s / temperature for s in scores[n].tolist()])
                    terms.append(-sum(x * math.log(y) for x, y in zip(q[n], p, strict=True)))
        losses.append(sum(terms) / len(terms))
    return losses


def sinkhorn_knopp(scores, epsilon, iterations):
    """The published algorithm on lists: Q is prototypes by images."""
    q = [[math.exp(scores[n][k] / epsilon) for n in range(len(scores))] for k in range(len(scores[0]))]
    for _ in range(iterations):
        q = [[x / sum(row) / len(q) for x in row] for row in q]
        sums = [sum(row[n] for row in q) for n in range(len(scores))]
        q = [[x / sums[n] / len(scores) for n, x in enumerate(row)] for row in q]
    return [[row[n] * len(scores) for row in q] for n in range(len(scores))]


# --- Sinkhorn ------------------------------------------------------------------------------------------------------


def test_sinkhorn_by_a_loop():
    scores = crops()[0]
    wanted = torch.tensor(sinkhorn_knopp(scores.tolist(), 0.1, 3), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, 0.1, 3), wanted)


@pytest.mark.parametrize(("m", "k"), [(6, 5), (4, 16), (64, 8)])
def test_sinkhorn_s_marginals(m, k):
    scores = torch.randn(m, k, generator=rng(), dtype=torch.float64)
    few, many = sinkhorn(scores, 0.3, 3), sinkhorn(scores, 0.3, 500)
    for q in (few, many):
        torch.testing.assert_close(q.sum(1), torch.ones(m, dtype=torch.float64))
    torch.testing.assert_close(many.sum(0), torch.full((k,), m / k, dtype=torch.float64))
    error = [(sinkhorn(scores, 0.3, i).sum(0) - m / k).abs().max().item() for i in (1, 3, 10)]
    assert error[0] > error[1] > error[2]


def test_sinkhorn_is_the_entropic_optimum():
    """It has the form diag(u) exp(S / epsilon) diag(v), which is what optimality says under given marginals."""
    scores = crops()[0]
    rest = sinkhorn(scores, 0.1, 500).log() - scores / 0.1
    rest = rest - rest.mean(0) - rest.mean(1, keepdim=True) + rest.mean()
    torch.testing.assert_close(rest, torch.zeros_like(rest))


def test_sinkhorn_s_limits():
    """Little entropy gives a permutation, much of it uniform assignments; offsets of prototypes do not matter."""
    scores = crops(1, 5, 5)[0]
    hard = sinkhorn(scores, 0.001, 3000)
    assert sorted(hard.argmax(1).tolist()) == list(range(5)) and hard.max(1).values.min() > 0.95
    torch.testing.assert_close(sinkhorn(scores, 1e6, 3), torch.full_like(scores, 0.2), atol=1e-5, rtol=0)
    offset = torch.arange(5).double()
    torch.testing.assert_close(sinkhorn(scores + offset, 0.1, 3), sinkhorn(scores, 0.1, 3))


def test_sinkhorn_does_not_overflow():
    """exp(1000 / 0.05) is beyond any float; one prototype is far from all images."""
    scores = 1000 * torch.eye(4)[:, :3]
    scores[:, 2] = -1000
    q = sinkhorn(scores, 0.05, 3)
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(1), torch.ones(4))


# --- swapped prediction --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [1, 2])
def test_swav_by_a_loop(own):
    student = crops()
    targets = [sinkhorn_knopp(s.tolist(), 0.1, 3) for s in student[:own]]
    assert SWAV(student, student[:own]).tolist() == pytest.approx(swapped(student, targets, 0.2))


@pytest.mark.parametrize("own", [1, 2])
def test_dino_by_a_loop(own):
    student, teacher = crops(), crops(own, seed=1)
    centre = [0.3, -0.2, 0.0, 0.1, 0.5]
    targets = [
        [softmax([(s - c) / 0.05 for s, c in zip(row, centre, strict=True)]) for row in scores.tolist()]
        for scores in teacher
    ]
    found = DINO(student, teacher, torch.tensor(centre))
    assert found.tolist() == pytest.approx(swapped(student, targets, 0.2))


def test_a_queue_takes_part_in_the_assignment_only():
    student, queued = crops(2), crops(2, 20, seed=2)
    with_queue = [torch.cat([s, q]) for s, q in zip(student, queued, strict=True)]
    targets = [sinkhorn_knopp(s.tolist(), 0.1, 3)[:6] for s in with_queue]
    assert SWAV(student, with_queue).tolist() == pytest.approx(swapped(student, targets, 0.2))
    assert not torch.allclose(SWAV(student, with_queue), SWAV(student, student))
    torch.testing.assert_close(DINO(student, with_queue), DINO(student, student))


def test_lightly_agrees():
    losses = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    student, teacher, queued = crops(5), crops(2, seed=1), crops(2, 9, seed=2)
    theirs = losses.SwaVLoss(0.2, 3, 0.1)
    torch.testing.assert_close(SWAV(student, student[:2]).mean(), theirs(student[:2], student[2:])[0])
    found = SWAV(student, [torch.cat([s, q]) for s, q in zip(student[:2], queued, strict=True)])
    torch.testing.assert_close(found.mean(), theirs(student[:2], student[2:], queued)[0])
    dino = losses.DINOLoss(5, teacher_temp=0.05, student_temp=0.2).double()
    dino.center += torch.tensor([0.3, -0.2, 0.0, 0.1, 0.5])
    centre = dino.center.flatten().clone()
    torch.testing.assert_close(DINO(student, teacher, centre).mean(), dino(teacher, student))


@named([SWAV, DINO])
def test_only_the_student_learns(part):
    student, teacher = ([s.requires_grad_() for s in crops(3, seed=seed)] for seed in (0, 1))
    centre = torch.zeros(5, requires_grad=True)
    part(student, teacher[:2], centre).sum().backward()
    assert all(s.grad.abs().sum() > 0 for s in student)
    assert teacher[0].grad is None and centre.grad is None


def test_gradients_are_predictions_minus_targets():
    """Of cross-entropy in scores: (p - q) / temperature; two crops, each predicts the other's target."""
    student = [s.requires_grad_() for s in crops(2)]
    SWAV(student, student).sum().backward()
    for own, other in (student, student[::-1]):
        wanted = (own.detach().div(0.2).softmax(1) - sinkhorn(other, 0.1, 3)) / 0.2 / 2
        torch.testing.assert_close(own.grad, wanted)


@named([SWAV, DINO])
def test_per_image_and_equivariant(part):
    student, order, names = crops(), torch.randperm(6, generator=rng(1)), torch.randperm(5, generator=rng(2))
    found = part(student, student[:2])
    torch.testing.assert_close(
        part([s[order] for s in student], [s[order] for s in student[:2]]), found[order]
    )
    renamed = [s[:, names] for s in student]
    torch.testing.assert_close(part(renamed, renamed[:2]), found)
    torch.testing.assert_close(part([student[i] for i in (1, 0, 3, 2)], student[1::-1]), found)


def test_collapse_and_its_antidotes():
    """All images alike with one prototype ahead: sharpening alone agrees, centring and equal shares do not."""
    ahead = torch.zeros(6, 5, dtype=torch.float64)
    ahead[:, 2] = 1.0
    crisp = CrossViewLoss(Centering(0.04), 0.04)
    assert crisp([ahead] * 2, [ahead] * 2).max() < 1e-6
    uniform = math.log(5)
    assert crisp([0 * ahead] * 2, [ahead] * 2, ahead[0]).tolist() == pytest.approx([uniform] * 6)
    assert CrossViewLoss()([0 * ahead] * 2, [ahead] * 2).tolist() == pytest.approx([uniform] * 6)
    torch.testing.assert_close(sinkhorn(ahead), torch.full_like(ahead, 0.2))


@named([SWAV, DINO])
def test_precision_and_single_images(part):
    student = [s.float() for s in crops(3, 16, 8)]
    exact = part([s.double() for s in student], [s.double() for s in student[:2]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = part(student, student[:2])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)
    assert part([s.bfloat16() for s in student], student[:2]).dtype == torch.float32
    assert part([s[:1] for s in student], [s[:1] for s in student[:2]]).isfinite().all()


def test_crops_that_do_not_go_together_are_refused():
    student = crops(3)
    for wrong, message in (
        ((student[:1], student[:1]), "2 or more crops"),
        ((student, []), "and 0 targets"),
        ((student[:2], student), "and 3 targets"),
        (([student[0], student[1][:5]], student[:1]), "one shape"),
        ((student, [student[0][:5]]), "b or more, k"),
        ((student, [student[0][:, :4]]), "b or more, k"),
    ):
        with pytest.raises(GenzooError, match=message):
            SWAV(*wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sinkhorn(0.0), "epsilon of Sinkhorn must be above 0"),
        (lambda: Sinkhorn(iterations=0), "1 or more iterations"),
        (lambda: Centering(0.0), "temperature of Centering must be above 0"),
        (lambda: CrossViewLoss(temperature=-1.0), "temperature of CrossViewLoss must be above 0"),
        (lambda: KoLeo(0.0), "eps of KoLeo must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(GenzooError, match=message):
        make()


@named([SWAV, DINO, KoLeo()])
def test_parts_of_configurations(part):
    text = json.dumps(to_json(part))
    assert from_json(json.loads(text), [CrossViewLoss, Sinkhorn, Centering, KoLeo]) == part


def test_prototype_scores_are_cosines():
    z, prototypes = torch.randn(2, 6, 5, generator=rng()).unbind()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = prototype_scores(3 * z, 7 * prototypes)
    wanted = torch.cosine_similarity(z[:, None], prototypes[None], dim=-1)
    torch.testing.assert_close(found, wanted)


# --- KoLeo ---------------------------------------------------------------------------------------------------------


def test_koleo_by_a_loop():
    z = torch.randn(9, 4, generator=rng(), dtype=torch.float64)
    u = [[x / math.hypot(*row) for x in row] for row in z.tolist()]
    nearest = [min(math.dist(x, y) for j, y in enumerate(u) if j != i) for i, x in enumerate(u)]
    assert KoLeo()(z).tolist() == pytest.approx([-math.log(d) for d in nearest])
    torch.testing.assert_close(KoLeo()(5 * z), KoLeo()(z))
    torch.testing.assert_close(KoLeo()(z.flip(0)), KoLeo()(z).flip(0))


def test_koleo_of_lightly_agrees():
    losses = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    z = torch.randn(9, 4, generator=rng(), dtype=torch.float64)
    torch.testing.assert_close(KoLeo()(z).mean(), losses.KoLeoLoss()(z))


def test_koleo_of_a_regular_polygon_is_known_and_spreads():
    angles = torch.arange(12).double() * math.pi / 6
    polygon = torch.stack([angles.cos(), angles.sin()], 1)
    assert KoLeo()(polygon).tolist() == pytest.approx([-math.log(2 * math.sin(math.pi / 12))] * 12)
    z = torch.randn(12, 2, generator=rng(), dtype=torch.float64)
    assert KoLeo()(z).mean() > KoLeo()(polygon).mean()


def test_koleo_of_few_or_equal_embeddings_is_finite():
    for z in (torch.ones(1, 3), torch.ones(4, 3), torch.zeros(4, 3)):
        z.requires_grad_()
        found = KoLeo()(z)
        found.sum().backward()
        assert found.isfinite().all() and z.grad.isfinite().all()
    assert KoLeo()(torch.ones(1, 3)).tolist() == [0.0]
    opposite = torch.tensor([[3.0, 0.0], [-1.0, 0.0]])
    assert KoLeo()(opposite).tolist() == pytest.approx([-math.log(2)] * 2)
    with pytest.raises(GenzooError, match=r"KoLeo takes embeddings \[n, d\]"):
        KoLeo()(torch.ones(3))
