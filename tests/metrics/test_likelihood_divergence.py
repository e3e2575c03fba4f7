"""FLD against its definition by autograd in float64, and what it must say of copies, shifts and fresh samples."""

import math

import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.metrics import likelihood_divergence
from genzoo.metrics.likelihood_divergence import feature_likelihood_divergence


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fld(*sets):
    return feature_likelihood_divergence(*sets, generator=seeded())


def log_normal(x, mean, log_s):
    """Of each row about each mean, with a variance each."""
    squares = (x[:, None] - mean).square().sum(2)
    return -0.5 * squares / log_s.exp() - x.shape[1] / 2 * (log_s + math.log(2 * math.pi))


def by_autograd(train, test, centres):
    """The mean loss per feature of test rows under Gaussians about the centres, fitted to the training rows."""
    d = train.shape[1]
    squares = (train[:, None] - centres).square().sum(2)
    log_s = ((squares.amin(0) + 1e-3) / d).log().requires_grad_()
    log_origin = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([log_s, log_origin], lr=0.5)
    for _ in range(50):
        nearer = train.mean(0) + 0.9 * (train - train.mean(0))
        logs = torch.cat(
            [
                log_normal(train, centres, log_s) - math.log(len(centres)),
                log_normal(nearer, train.mean(0)[None], log_origin),
            ],
            1,
        )
        loss = -logs.logsumexp(1).mean() / d
        adam.zero_grad()
        loss.backward()
        adam.step()
        log_s.data.clamp_(-40, 20)
    return -(log_normal(test, centres, log_s.detach()) - math.log(len(centres))).logsumexp(1) / d


def standardised(*sets):
    return [(x - sets[1].mean(0)) / sets[1].std(0) for x in sets]


@pytest.mark.parametrize("chunk", [7, 64])
def test_equals_its_definition(monkeypatch, chunk):
    monkeypatch.setattr(likelihood_divergence, "CHUNK", chunk)
    train, test, fake = (
        2 * normal(41, 3, seed=0) + 1,
        2 * normal(30, 3, seed=1) + 1,
        2 * normal(25, 3, seed=2),
    )
    found = fld(train, test, fake)
    train, test, fake = standardised(train, test, fake)
    losses = by_autograd(train, test, fake)
    assert found.nll == pytest.approx(losses.mean().item(), rel=1e-3)
    own = by_autograd(train, train, fake)
    assert found.gap == pytest.approx(100 * (own - losses.mean()).mean().item(), abs=0.3)
    order = torch.randperm(41, generator=seeded())
    half, other = train[order[:20]], train[order[20:]]
    baseline = by_autograd(other, test, half)
    assert found.baseline == pytest.approx(baseline.mean().item(), rel=1e-3)
    assert found.value == pytest.approx(100 * (losses - baseline).mean().item(), abs=0.3)
    assert found.stderr == pytest.approx((100 * (losses - baseline)).std().item() / 30**0.5, rel=0.02)


def test_fresh_samples_are_worth_what_real_images_are():
    found = [
        fld(normal(400, 8, seed=i), normal(300, 8, seed=100 + i), normal(200, 8, seed=200 + i))
        for i in range(8)
    ]
    values = torch.tensor([f.value for f in found])
    assert abs(values.mean()) < 3 * values.std() / 8**0.5 + 0.1 and values.abs().max() < 5


def test_copies_are_the_worst_and_better_laws_score_better():
    train, test = normal(400, 8, seed=0), normal(300, 8, seed=1)
    fresh = fld(train, test, normal(200, 8, seed=2))
    copies = fld(train, test, train[:200])
    nearly = fld(train, test, train[:200] + 0.05 * normal(200, 8, seed=3))
    assert copies.value > nearly.value > 100 > 10 > fresh.value
    assert copies.gap < nearly.gap < -100 < -20 < fresh.gap < 0
    shifted = [fld(train, test, normal(200, 8, seed=2) + s).value for s in (0.0, 0.5, 1.0, 2.0)]
    assert shifted == sorted(shifted) and shifted[1] > shifted[0] + 3 * fresh.stderr
    some = [fld(train, test, torch.cat([train[:k], normal(200, 8, seed=2)[k:]])).value for k in (0, 50, 150)]
    assert some == sorted(some)


def test_a_missing_half_is_noticed():
    """Two clusters, of which samples have one."""
    sides = torch.tensor([-4.0, 4.0]).repeat(300)[:, None]
    data = normal(600, 4, seed=0) + sides
    whole, one = normal(100, 4, seed=1) + sides[:100], normal(100, 4, seed=2) + 4
    assert fld(data[:400], data[400:], one).value > fld(data[:400], data[400:], whole).value + 10


def test_ignores_scale_shift_and_features_that_do_not_vary():
    sets = normal(60, 3, seed=0), normal(40, 3, seed=1), normal(30, 3, seed=2)
    truth = fld(*sets)
    scaled = fld(*(x * torch.tensor([1e-3, 1.0, 1e3]) + 5 for x in sets))
    dead = fld(*(torch.cat([x, torch.full((len(x), 2), 3.0)], 1) for x in sets))
    for other in (scaled, dead):
        assert other == pytest.approx(truth, rel=1e-3, abs=1e-3)
    assert fld(*sets) == truth


def test_a_feature_that_only_samples_have_counts():
    sets = normal(60, 3, seed=0), normal(40, 3, seed=1), normal(30, 3, seed=2)
    zeros = [torch.cat([x, torch.zeros(len(x), 1, dtype=torch.float64)], 1) for x in sets]
    zeros[2][:, 3] = 5.0
    assert math.isfinite(fld(*zeros).value) and fld(*zeros).value > fld(*sets).value + 1


def test_large_sets_are_cut():
    train, test, fake = normal(300, 2, seed=0), normal(200, 2, seed=1), normal(250, 2, seed=2)
    found = feature_likelihood_divergence(train, test, fake, generator=seeded(), most=50)
    again = feature_likelihood_divergence(train, test, fake, generator=seeded(), most=50)
    assert found == again and abs(found.value) < 60


def test_mistakes_are_told():
    ones = torch.ones(6, 2)
    rows = normal(6, 2, seed=0)
    with pytest.raises(GenzooError, match="all training features are equal"):
        fld(ones, ones, ones)
    with pytest.raises(GenzooError, match="four or more training images, got 3"):
        fld(rows[:3], rows, rows)
    with pytest.raises(GenzooError, match="one width"):
        fld(ones, torch.ones(6, 3), ones)
