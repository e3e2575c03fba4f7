"""Objectives of classes against loops written from their papers, and mining against brute force."""

import itertools
import math

import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.objectives.contrastive import NTXent
from genzoo.objectives.supervised import (
    AllTriplets,
    BatchHard,
    Instances,
    Margin,
    SemiHard,
    SupCon,
    SupervisedNPair,
    Triplet,
    squared_distances,
)

MINING = [AllTriplets(), SemiHard(), BatchHard()]
LABELLED = [
    Margin(2.0),
    Margin(1.5, positive_margin=0.3, balanced=True, normalise=True),
    SupCon(0.2),
    SupervisedNPair(0.01),
    *(Triplet(0.5, mining) for mining in MINING),
    Triplet(None, BatchHard(), squared=False, normalise=False),
    Triplet(0.5, AllTriplets(), active_only=True),
]
CASES = [
    [0, 1, 0, 2, 1, 2, 0],  # 3, 2, 2
    [5, 5, 5, 5, 7, 7, 7],
    [3, 1, 3, 3, 2, 3, 4],  # three have no partner
]
LABELS = torch.tensor(CASES[0])


def named(parts):
    return pytest.mark.parametrize("objective", parts, ids=lambda part: type(part).__name__)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def embeddings(n=7, d=4, seed=0):
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def unit(z):
    return z / z.norm(dim=1, keepdim=True)


def distance(x, y):
    return math.dist(x.tolist(), y.tolist())


def relu(x):
    return max(x, 0.0)


def others(labels, i):
    """Places of the positives and of the negatives of i."""
    labels = list(labels)
    same = [j for j in range(len(labels)) if labels[j] == labels[i] and j != i]
    return same, [j for j in range(len(labels)) if labels[j] != labels[i]]


def assert_values(found, wanted):
    assert found.tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


# --- loops from the papers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", CASES)
def test_margin_by_a_loop(labels):
    z, wanted = embeddings(), []
    for i in range(7):
        same, different = others(labels, i)
        loss = sum(distance(z[i], z[j]) ** 2 / 2 for j in same)
        loss += sum(relu(2.5 - distance(z[i], z[j])) ** 2 / 2 for j in different)
        wanted.append(loss / 6)
    assert_values(Margin(2.5)(z, torch.tensor(labels)), wanted)


@pytest.mark.parametrize("labels", CASES)
def test_balanced_margin_by_a_loop(labels):
    z = unit(embeddings())
    pull, push = [], []
    for i in range(7):
        same, different = others(labels, i)
        pull += [relu(distance(z[i], z[j]) - 0.4) ** 2 / 2 for j in same]
        push += [relu(1.3 - distance(z[i], z[j])) ** 2 / 2 for j in different]
    found = Margin(1.3, positive_margin=0.4, balanced=True, normalise=True)(3 * z, torch.tensor(labels))
    assert found.mean().item() == pytest.approx(sum(pull) / len(pull) / 2 + sum(push) / len(push) / 2)


@pytest.mark.parametrize("labels", CASES)
def test_supcon_by_a_loop(labels):
    z, wanted = unit(embeddings()), []
    for i in range(7):
        same, _ = others(labels, i)
        total = sum(math.exp(float(z[i] @ z[a]) / 0.2) for a in range(7) if a != i)
        terms = [-math.log(math.exp(float(z[i] @ z[p]) / 0.2) / total) for p in same]
        wanted.append(sum(terms) / len(terms) if terms else 0.0)
    assert_values(SupCon(0.2)(2 * z, torch.tensor(labels)), wanted)


@pytest.mark.parametrize("labels", CASES)
def test_tuplets_by_a_loop(labels):
    z, wanted = embeddings(), []
    for i in range(7):
        same, different = others(labels, i)
        terms = [
            math.log(1 + sum(math.exp(float(z[i] @ z[n]) - float(z[i] @ z[p])) for n in different))
            for p in same
        ]
        wanted.append((sum(terms) / len(terms) if terms else 0.0) + 0.01 * float(z[i] @ z[i]))
    assert_values(SupervisedNPair(0.01)(z, torch.tensor(labels)), wanted)


def test_instances_of_supcon_are_nt_xent():
    a, b = embeddings(), embeddings(seed=1)
    torch.testing.assert_close(Instances(SupCon(0.3))(a, b), NTXent(0.3)(a, b))


def test_distances():
    z = 5 * embeddings() + 1000
    wanted = torch.tensor([[distance(x, y) ** 2 for y in z] for x in z], dtype=torch.float64)
    torch.testing.assert_close(squared_distances(z), wanted)
    torch.testing.assert_close(squared_distances(z.float()).double(), wanted, rtol=1e-3, atol=1e-2)


# --- mining --------------------------------------------------------------------------------------------------------


def brute_force(mining, d, labels):
    """The triplets as a set, by going through all of them."""
    found = set()
    for i in range(len(labels)):
        same, different = others(labels, i)
        if not same or not different:
            continue
        if isinstance(mining, AllTriplets):
            found |= {(i, p, n) for p in same for n in different}
        elif isinstance(mining, BatchHard):
            found.add((i, max(same, key=lambda j: d[i][j]), min(different, key=lambda j: d[i][j])))
        else:
            for p in same:
                farther = [n for n in different if d[i][n] > d[i][p]]
                best = (
                    min(farther, key=lambda j: d[i][j]) if farther else max(different, key=lambda j: d[i][j])
                )
                found.add((i, p, best))
    return found


def relations(labels):
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool), ~same


@named(MINING)
@pytest.mark.parametrize("seed", range(20))
def test_mining_picks_what_brute_force_picks(objective, seed):
    n = 5 + seed
    labels = torch.randint(0, 2 + seed % 4, (n,), generator=rng(seed))
    d = squared_distances(embeddings(n, 2, seed))
    found = list(zip(*(t.tolist() for t in objective(d, *relations(labels))), strict=True))
    assert len(set(found)) == len(found)
    assert set(found) == brute_force(objective, d.tolist(), labels.tolist())


def test_semi_hard_takes_the_farthest_where_none_is_farther():
    """On a line: anchor 0, positive 5, negatives 1 and 3; from the positive both negatives are nearer too."""
    z = torch.tensor([[0.0], [5.0], [1.0], [3.0]], dtype=torch.float64)
    positive, negative = relations(torch.tensor([0, 0, 1, 2]))
    found = SemiHard()(squared_distances(z), positive, negative)
    assert [t.tolist() for t in found] == [[0, 1], [1, 0], [3, 2]]


def test_semi_hard_passes_over_what_is_as_far():
    """Anchor 0 and positive 2: the negative -2 is as far, not farther, so 3 it is."""
    z = torch.tensor([[0.0], [2.0], [-2.0], [3.0]], dtype=torch.float64)
    anchor, near, far = SemiHard()(squared_distances(z), *relations(torch.tensor([0, 0, 1, 2])))
    assert (anchor[0], near[0], far[0]) == (0, 1, 3)


@pytest.mark.parametrize("labels", CASES)
@pytest.mark.parametrize("active_only", [False, True])
@named(MINING)
def test_triplet_by_a_loop(objective, labels, active_only):
    z = unit(embeddings())
    d = [[distance(x, y) ** 2 for y in z] for x in z]
    triplets = brute_force(objective, d, labels)
    losses = {t: relu(d[t[0]][t[1]] - d[t[0]][t[2]] + 0.7) for t in triplets}
    count = sum(x > 0 for x in losses.values()) if active_only else len(losses)
    wanted = [sum(x for t, x in losses.items() if t[0] == i) * 7 / max(count, 1) for i in range(7)]
    found = Triplet(0.7, objective, active_only=active_only)(4 * z, torch.tensor(labels))
    assert_values(found, wanted)
    assert found.mean().item() == pytest.approx(sum(losses.values()) / max(count, 1))


def test_soft_margin_of_plain_distances_by_a_loop():
    z = embeddings()
    d = [[distance(x, y) for y in z] for x in z]
    wanted = 0.0
    for i in range(7):
        same, different = others(CASES[0], i)
        gap = max(d[i][j] for j in same) - min(d[i][j] for j in different)
        wanted += math.log1p(math.exp(gap)) / 7
    found = Triplet(None, BatchHard(), squared=False, normalise=False)(z, LABELS)
    assert found.mean().item() == pytest.approx(wanted)


# --- another library -----------------------------------------------------------------------------------------------


def test_their_supcon_agrees():
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason="pytorch-metric-learning is absent")
    z = embeddings(12)
    labels = torch.randint(0, 3, (12,), generator=rng())
    torch.testing.assert_close(SupCon(0.2)(z, labels).mean(), losses.SupConLoss(0.2)(z, labels))


def test_their_triplets_agree():
    package = "pytorch_metric_learning"
    losses = pytest.importorskip(f"{package}.losses", reason="pytorch-metric-learning is absent")
    miners, reducers, distances = (
        pytest.importorskip(f"{package}.{name}") for name in ("miners", "reducers", "distances")
    )
    z, labels = embeddings(12), torch.randint(0, 3, (12,), generator=rng())
    for active_only, reducer in ((False, reducers.MeanReducer()), (True, reducers.AvgNonZeroReducer())):
        for power in (1, 2):
            theirs = losses.TripletMarginLoss(
                0.3, distance=distances.LpDistance(power=power), reducer=reducer
            )
            ours = Triplet(0.3, AllTriplets(), squared=power == 2, active_only=active_only)
            torch.testing.assert_close(ours(z, labels).mean(), theirs(z, labels))
    plain = distances.LpDistance(normalize_embeddings=False)
    mined = miners.BatchHardMiner(distance=plain)(z, labels)
    for ours, theirs in zip(BatchHard()(squared_distances(z), *relations(labels)), mined, strict=True):
        assert torch.equal(ours, theirs)


def test_their_pairs_agree():
    """Theirs are not squared: 1/2 of the square of each of their terms is Hadsell's."""
    package = "pytorch_metric_learning"
    losses = pytest.importorskip(f"{package}.losses", reason="pytorch-metric-learning is absent")
    reducers = pytest.importorskip(f"{package}.reducers")
    theirs = losses.ContrastiveLoss(0.2, 1.1, reducer=reducers.DoNothingReducer())(embeddings(), LABELS)
    total = sum(0.5 * theirs[part]["losses"].square().sum() for part in ("pos_loss", "neg_loss"))
    ours = Margin(1.1, positive_margin=0.2, normalise=True)(embeddings(), LABELS)
    torch.testing.assert_close(ours.mean(), total / 42)


# --- what must, and what must not, matter --------------------------------------------------------------------------


@named(LABELLED)
def test_per_anchor_and_equivariant(objective):
    z, order = embeddings(), torch.randperm(7, generator=rng(3))
    found = objective(z, LABELS)
    assert found.shape == (7,)
    torch.testing.assert_close(objective(z[order], LABELS[order]), found[order])
    torch.testing.assert_close(objective(z, 10 - 3 * LABELS), found)  # names of classes mean nothing
    assert not torch.allclose(objective(z, LABELS[order]).mean(), found.mean())


@named(LABELLED)
def test_scale_and_rotation(objective):
    z = embeddings()
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=rng(2), dtype=torch.float64)).Q
    torch.testing.assert_close(objective(z @ rotation, LABELS), objective(z, LABELS))
    free = isinstance(objective, SupCon) or getattr(objective, "normalise", False)
    assert torch.allclose(objective(3 * z, LABELS), objective(z, LABELS)) == free


@pytest.mark.parametrize("pair", [(0, 0), (0, 1)], ids=["positive", "negative"])
def test_margin_has_a_rest(pair):
    """Two points on a line: positives attract up to their margin, negatives repel up to theirs."""
    objective, forces = Margin(2.0, positive_margin=0.5), []
    for gap in (0.25, 1.0, 3.0):
        z = torch.tensor([[0.0], [gap]], dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(objective(z, torch.tensor(pair)).sum(), z)
        forces.append(round(g[1, 0].item(), 9))
    assert forces == ([0.0, 1.0, 5.0] if pair == (0, 0) else [-3.5, -2.0, 0.0])


@named(
    [
        SupCon(0.2),
        SupervisedNPair(0.0),
        *(Triplet(1.0, mining) for mining in MINING),
        Margin(2.0, normalise=True),
    ]
)
def test_descent_puts_classes_apart(objective):
    """From random points, plain gradient steps: afterwards all of a class are nearer than all others."""
    z = embeddings(seed=5).requires_grad_()
    for _ in range(200):
        (g,) = torch.autograd.grad(objective(z, LABELS).mean(), z)
        z = (z - 0.3 * g).detach().requires_grad_()
    d = squared_distances(unit(z.detach()))
    positive, negative = relations(LABELS)
    assert d[positive].max() < d[negative].min()


# --- degenerate batches and mistakes -------------------------------------------------------------------------------


@named(LABELLED)
@pytest.mark.parametrize(
    "labels", [[4, 4, 4, 4], [0, 1, 2, 3], [0], [0, 0], [0, 1]], ids=lambda x: "-".join(map(str, x))
)
def test_degenerate_batches(objective, labels):
    """Finite everywhere; comparisons that lack one side are 0, and so is their gradient."""
    labels = torch.tensor(labels)
    z = embeddings(len(labels)).requires_grad_()
    found = objective(z, labels)
    (gradient,) = torch.autograd.grad(found.sum(), z)
    assert found.isfinite().all() and gradient.isfinite().all()
    if isinstance(objective, Triplet):
        assert not found.any() and not gradient.any()
    if isinstance(objective, SupervisedNPair):
        assert_values(found.detach(), (0.01 * z.detach().square().sum(1)).tolist())
    if isinstance(objective, SupCon) and len(labels.unique()) == len(labels):
        assert not found.any() and not gradient.any()


@named(LABELLED)
@pytest.mark.parametrize("value", [0.0, 1.0], ids=["zero", "equal"])
def test_collapsed_embeddings_have_finite_gradients(objective, value):
    z = torch.full((7, 4), value, requires_grad=True)
    found = objective(z, LABELS)
    (gradient,) = torch.autograd.grad(found.sum(), z)
    assert found.isfinite().all() and gradient.isfinite().all()


@named(LABELLED)
def test_autocast_keeps_full_precision(objective):
    z, labels = embeddings(40, 16).float(), torch.randint(0, 4, (40,), generator=rng())
    exact = objective(z.double(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = objective(z, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-4)
    assert objective(z.bfloat16(), labels).dtype == torch.float32


@named(LABELLED)
def test_labels_that_do_not_fit_are_refused(objective):
    z = embeddings()
    with pytest.raises(GenzooError, match="needs one class per embedding: 7 whole numbers"):
        objective(z, LABELS[:6])
    with pytest.raises(GenzooError, match="needs one class per embedding: 7 whole numbers"):
        objective(z, LABELS.float())
    with pytest.raises(GenzooError, match=r"takes embeddings \[n, d\]"):
        objective(z[0], LABELS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Margin(0.0), "margin of Margin must be above 0"),
        (lambda: Margin(1.0, positive_margin=1.0), "positive_margin must lie in 0 .. margin"),
        (lambda: Triplet(-0.2), "margin of Triplet must be above 0"),
        (lambda: SupervisedNPair(-1.0), "l2 of SupervisedNPair"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(GenzooError, match=message):
        make()


def test_brute_force_can_differ():
    """The three minings are not the same on this batch, so that the comparisons above mean something."""
    d = squared_distances(embeddings()).tolist()
    found = [brute_force(mining, d, CASES[0]) for mining in MINING]
    assert all(x != y for x, y in itertools.combinations(found, 2))
