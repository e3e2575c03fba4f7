"""Probes of frozen vectors against brute force, counts by hand and closed forms; the map that is drawn of them."""

import math

import pytest
import torch
from PIL import Image
from torch import nn

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import TensorSplit
from genzoo.evaluation.embedding_map import MOST_POINTS, plane, save_embedding_map
from genzoo.evaluation.fine_tuning import FineTuning, fine_tune
from genzoo.metrics import probes
from genzoo.metrics.probes import (
    Collapse,
    Labelled,
    accuracy,
    alignment,
    draw_examples,
    effective_rank,
    few_shot_accuracy,
    knn_accuracy,
    linear_probe,
    most_similar_classes,
    nearest_classes,
    uniformity,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clusters(n, *, classes=3, width=8, noise=0.3, seed=0):
    """Points around orthogonal centres, with labels."""
    generator = seeded(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return Labelled(3 * torch.eye(width)[labels] + noise * torch.randn(n, width, generator=generator), labels)


# --- nearest neighbours ----------------------------------------------------------------------------------------


def neighbours_by_loops(bank, queries, k, temperature):
    """Similarities, sorting and counting one by one, in Python's floats."""
    found = []
    for query in queries.double().tolist():
        similar = []
        for key, label in zip(bank.vectors.double().tolist(), bank.labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(query, key, strict=True))
            similar.append((dot / (math.hypot(*query) * math.hypot(*key)), label))
        votes = {}
        for similarity, label in sorted(similar, reverse=True)[:k]:
            votes[label] = votes.get(label, 0) + (
                1 if temperature is None else math.exp(similarity / temperature)
            )
        found.append(min(label for label in votes if votes[label] == max(votes.values())))
    return found


@pytest.mark.parametrize("temperature", [None, 0.07, 0.5])
@pytest.mark.parametrize("k", [1, 5, 200])
@pytest.mark.parametrize("at_once", [2**24, 130])
def test_neighbours_are_those_of_a_loop(monkeypatch, k, temperature, at_once):
    """Also in several chunks (130 similarities: two queries at once), and with more neighbours than there are."""
    monkeypatch.setattr(probes, "MOST_AT_ONCE", at_once)
    bank, queries = clusters(60, noise=3.0), clusters(25, noise=3.0, seed=1)
    found = nearest_classes(bank, queries.vectors, k=k, temperature=temperature).tolist()
    assert found == neighbours_by_loops(bank, queries.vectors, k, temperature)
    assert len(set(found)) > 1 or k == 200
    share = knn_accuracy(bank, queries, k=k, temperature=temperature)
    right = sum(a == b for a, b in zip(found, queries.labels.tolist(), strict=True))
    assert share.value == pytest.approx(right / 25)


def test_weights_decide_where_counts_do_not():
    """One neighbour at cosine 1 of class 1 against two at 0.6 of class 0."""
    bank = Labelled(torch.tensor([[5.0, 0.0], [0.6, 0.8], [0.6, -0.8]]), torch.tensor([1, 0, 0]))
    query = torch.tensor([[0.1, 0.0]])
    assert nearest_classes(bank, query, k=3, temperature=None).tolist() == [0]
    assert nearest_classes(bank, query, k=3, temperature=0.07).tolist() == [1]
    assert nearest_classes(bank, query, k=3, temperature=1e-4).tolist() == [1]  # no overflow


def test_error_of_an_accuracy():
    share = accuracy(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 1, 0]))
    assert share == (0.75, pytest.approx(math.sqrt(0.75 * 0.25 / 4)))


# --- few examples ----------------------------------------------------------------------------------------------


def test_average_similarity_by_hand():
    """Averages of cosines, not the cosine of averages nor the nearest example.

    Class 0 has (1, 0) and (0, 7): lengths do not count, and for the query (1, 0) the mean is 1/2. Class 1 has (3, 4)
    twice, a mean of 0.6. The nearest example is one of class 0, and so would be the nearest of all raw means.
    """
    examples = Labelled(
        torch.tensor([[1.0, 0.0], [0.0, 7.0], [3.0, 4.0], [3.0, 4.0]]), torch.tensor([0, 0, 1, 1])
    )
    queries = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    # (0, 2): 1/2 against 0.8; (-1, 0): -1/2 against -0.6
    assert most_similar_classes(examples, queries).tolist() == [1, 1, 0]


def test_a_class_of_many_examples_has_no_advantage():
    """One example at cosine 1 against three at 0.6, whose sum is 1.8."""
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.6, -0.8]])
    examples = Labelled(vectors, torch.tensor([0, 1, 1, 1]))
    assert most_similar_classes(examples, torch.tensor([[2.0, 0.0]])).tolist() == [0]


def test_a_class_without_examples_is_never_found():
    examples = Labelled(torch.tensor([[1.0, 0.0], [-1.0, 0.1]]), torch.tensor([0, 2]))
    assert most_similar_classes(examples, torch.tensor([[0.0, -1.0]])).tolist() == [
        0
    ]  # cosines 0 and below 0


def test_draws_are_of_every_class_without_repetition():
    pool = Labelled(torch.arange(30.0)[:, None], torch.arange(30) % 3)
    drawn = [draw_examples(pool, 4, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0].vectors, drawn[1].vectors) and not torch.equal(
        drawn[0].vectors, drawn[2].vectors
    )
    for examples in drawn:
        assert torch.bincount(examples.labels).tolist() == [4, 4, 4]
        assert len(set(examples.vectors.flatten().tolist())) == 12
        assert torch.equal(examples.vectors.flatten().long() % 3, examples.labels)
    with pytest.raises(GenzooError, match="holds 10 held-out images"):
        draw_examples(pool, 11)


def test_few_shot_mean_and_error_over_draws_and_queries():
    """One example per class of which half mislead: the accuracy is 0, 1/2 or 1 by the draw, and its distribution is
    known.

    The pool of class 0 has an example at angle 0 and one at pi, class 1 at pi and 0; queries of class 0 lie at angle 0,
    of class 1 at pi. Both right: all right; both wrong: none; one of each: both classes tie at every query, and the
    lowest class wins, which is half of the queries. So the mean is 1/2 and a draw's variance 1/8.
    """
    right, left = [1.0, 0.0], [-1.0, 0.0]
    pool = Labelled(torch.tensor([right, left, left, right]), torch.tensor([0, 0, 1, 1]))
    queries = Labelled(torch.tensor([right, right, left, left]), torch.tensor([0, 0, 1, 1]))
    share = few_shot_accuracy(pool, queries, examples=1, draws=800, generator=seeded())
    # four queries, right in 3/4, 3/4, 1/4 and 1/4 of the draws, have a variance of 1/12
    assert share.stderr == pytest.approx(math.sqrt(0.125 / 800 + 1 / 12 / 4), rel=0.1)
    assert share.value == pytest.approx(0.5, abs=4 * share.stderr)
    # one draw: half of the queries are right, whatever it is
    assert few_shot_accuracy(pool, queries, examples=2, draws=1).stderr == pytest.approx(math.sqrt(1 / 3 / 4))
    assert few_shot_accuracy(clusters(90), clusters(40, seed=1), examples=5, draws=3).value == 1.0


# --- linear probe ----------------------------------------------------------------------------------------------


def test_linear_probe_separates_what_can_be_separated():
    """Classes by the sign of one small direction beside a large one, which only standardised features show."""

    def drawn(n, seed):
        x = torch.randn(n, 2, generator=seeded(seed))
        x[:, 1] += 0.2 * x[:, 1].sign()
        return Labelled(x * torch.tensor([1000.0, 1e-3]) + 5, (x[:, 1] > 0).long())

    result = linear_probe(drawn(400, 0), drawn(200, 1), drawn(300, 2))
    assert result.share.value >= 0.99 and result.validation >= 0.99


def test_strength_is_chosen_on_validation():
    """Many noisy features and few images: a strong regularisation is best; the test labels have no say."""
    generator = seeded(3)
    labels = torch.arange(160) % 2

    def noisy(n):
        return Labelled(
            torch.randn(n, 60, generator=generator) + 0.25 * (2 * labels[:n] - 1)[:, None], labels[:n]
        )

    train, val, test = noisy(40), noisy(160), noisy(160)
    strengths = (1e-4, 1.0, 1e4)
    each = [linear_probe(train, val, test, strengths=[c]) for c in strengths]
    best = linear_probe(train, val, test, strengths=strengths)
    assert best.validation == max(result.validation for result in each)
    assert len({result.validation for result in each}) > 1
    flipped = linear_probe(train, val, Labelled(test.vectors, 1 - test.labels), strengths=strengths)
    assert flipped.strength == best.strength and flipped.share.value == pytest.approx(1 - best.share.value)
    with pytest.raises(GenzooError, match="two classes"):
        linear_probe(Labelled(train.vectors, torch.zeros(40).long()), val, test)


# --- the space -------------------------------------------------------------------------------------------------


def test_alignment_and_uniformity_in_closed_form():
    same = torch.tensor([[0.3, 0.4]]).repeat(6, 1) * torch.arange(1, 7)[:, None]  # one direction, six lengths
    assert alignment(same, same.flip(0)) == pytest.approx(0, abs=1e-6)
    assert uniformity(same) == pytest.approx(0, abs=1e-6)
    axes = torch.eye(5)  # every pair at the squared distance 2
    assert alignment(axes, axes.roll(1, 0)) == pytest.approx(2)
    assert alignment(axes, -axes) == pytest.approx(4)
    assert uniformity(axes) == pytest.approx(-4)
    assert uniformity(axes, t=3.0) == pytest.approx(-6)
    pair = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])  # squared distances 4, 2, 2
    assert uniformity(pair) == pytest.approx(math.log((math.exp(-8) + 2 * math.exp(-4)) / 3))


def test_uniformity_is_that_of_all_pairs_in_any_chunks(monkeypatch):
    x = torch.randn(23, 4, generator=seeded())
    unit = x.double() / x.double().norm(dim=1, keepdim=True)
    expected = (-2 * torch.pdist(unit).square()).exp().mean().log().item()  # the authors' own code
    assert uniformity(x) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(probes, "MOST_AT_ONCE", 50)
    assert uniformity(x) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(GenzooError, match="two vectors"):
        uniformity(x[:1])


def test_effective_rank_in_closed_form():
    whole = torch.cat([torch.eye(6), -torch.eye(6)])  # covariance a multiple of the identity, mean 0
    assert effective_rank(whole) == pytest.approx(6)
    assert effective_rank(whole + 100) == pytest.approx(6, rel=1e-4)  # the mean does not count
    line = torch.randn(50, 1, generator=seeded()) * torch.randn(1, 9, generator=seeded(1))
    assert effective_rank(line + 3) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.randn(1, 7).repeat(40, 1)) == 0
    stretched = whole * torch.tensor([2.0, 1, 1, 0, 0, 0])  # singular values 2 : 1 : 1
    assert effective_rank(stretched) == pytest.approx(2**1.5)  # entropy 1.5 bits


def test_verdicts_on_collapse():
    spread_out = Collapse.of(torch.randn(500, 16, generator=seeded()))
    assert not spread_out.collapsed
    assert spread_out.std == pytest.approx(1, abs=0.05) and 0.8 < spread_out.least_std < spread_out.std
    assert spread_out.dispersion > 0.99 and 15 < spread_out.effective_rank <= 16
    assert not Collapse.of(clusters(300).vectors).collapsed  # rank 2 is what three classes need
    point = torch.ones(1, 16) + 1e-3 * torch.randn(500, 16, generator=seeded())
    assert Collapse.of(point).collapsed and Collapse.of(point).effective_rank > 10  # by dispersion alone
    line = torch.randn(500, 1, generator=seeded()) * torch.ones(1, 16)
    assert Collapse.of(line).collapsed and Collapse.of(line).dispersion > 0.9  # by rank alone
    assert Collapse.of(torch.zeros(9, 4)).collapsed
    assert not Collapse.of(torch.randn(500, 2, generator=seeded())).collapsed  # two dimensions, both used


def test_spread_is_one_less_the_average_cosine():
    x = torch.randn(400, 3, generator=seeded()) + 1
    cosines = nn.functional.normalize(x) @ nn.functional.normalize(x).T
    assert Collapse.of(x).dispersion == pytest.approx(1 - cosines.mean().item(), abs=1e-5)


# --- training on -----------------------------------------------------------------------------------------------


SPEC = DataSpec((1, 4, 4), levels=16)


def halves(n, seed=0):
    """Images whose class is which half is brighter, up to noise."""
    images = torch.randint(10, (n, 1, 4, 4), generator=seeded(seed))
    labels = torch.arange(n) % 2
    images[labels == 0, :, :2] += 6
    images[labels == 1, :, 2:] += 6
    return TensorSplit(images, labels)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.1), nn.ReLU()).requires_grad_(False)


def test_fine_tuning_trains_backbone_and_head_of_a_copy():
    backbone = network()
    before, state = backbone[1].weight.clone(), torch.get_rng_state()
    tuned = [
        fine_tune(
            backbone, 8, halves(200), SPEC, FineTuning(steps=60, learning_rate=1e-2), generator=seeded(1)
        )
        for _ in range(2)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(backbone[1].weight, before) and not backbone[1].weight.requires_grad
    assert not torch.equal(tuned[0].backbone[1].weight, before)
    assert torch.equal(tuned[0].backbone[1].weight, tuned[1].backbone[1].weight)  # equal seeds
    test = halves(100, seed=1)
    assert (tuned[0].predict(test.images, chunk=33) == test.labels).double().mean() >= 0.98
    with pytest.raises(GenzooError, match="a class each"):
        fine_tune(backbone, 8, TensorSplit(test.images), SPEC)


def test_vectors_and_classes_go_together():
    with pytest.raises(GenzooError, match="a class each"):
        Labelled(torch.zeros(3, 2), torch.zeros(4).long())
    with pytest.raises(GenzooError, match="no vectors"):
        Labelled(torch.zeros(0, 2), torch.zeros(0).long())


# --- the map ---------------------------------------------------------------------------------------------------


def test_clusters_stay_clusters_in_the_plane():
    data = clusters(150, width=12)
    points = plane(data.vectors, seed=1)
    assert points.shape == (150, 2) and torch.equal(points, plane(data.vectors, seed=1))
    own = Labelled(points - points.mean(0), data.labels)
    apart = torch.cdist(own.vectors, own.vectors).fill_diagonal_(math.inf)
    assert (data.labels[apart.argmin(1)] == data.labels).double().mean() > 0.98


@pytest.mark.parametrize("classes", [0, 12, 25])
def test_map_is_written(tmp_path, classes):
    data = clusters(120, classes=max(classes, 1), width=26)
    path = tmp_path / "map.png"
    labels = data.labels if classes else None
    save_embedding_map(data.vectors, labels, path, generator=seeded())
    picture = Image.open(path).convert("RGB")
    assert picture.size == (840, 720)
    colours = {colour for count, colour in picture.getcolors(2**20) if count > 12}
    coloured = {colour for colour in colours if max(colour) - min(colour) > 60}
    assert len(coloured) >= max(1, classes // 2)


def test_map_of_few_or_equal_vectors(tmp_path):
    save_embedding_map(torch.ones(30, 5), None, tmp_path / "point.png")
    save_embedding_map(torch.randn(5, 1), torch.zeros(5).long(), tmp_path / "five.png")
    assert (tmp_path / "point.png").exists() and (tmp_path / "five.png").exists()
    with pytest.raises(GenzooError, match="4 images or more"):
        plane(torch.randn(3, 5))


def test_map_takes_a_random_part_of_many(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("genzoo.evaluation.embedding_map.plane", lambda v, seed: seen.append(v) or v[:, :2])
    vectors = torch.arange(2.0 * (MOST_POINTS + 500)).view(-1, 2)
    save_embedding_map(vectors, None, tmp_path / "map.png", generator=seeded())
    assert len(seen[0].unique(dim=0)) == MOST_POINTS and seen[0].max() > 2 * MOST_POINTS + 500
