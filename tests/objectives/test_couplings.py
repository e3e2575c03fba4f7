"""Couplings permute noise, transport is minimal, and classes keep their noise where the model is conditional."""

import itertools

import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.couplings import ClassAwareOptimalTransport, Independent, OptimalTransport


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed))


def cost(x, eps):
    return (x - eps).square().flatten(1).sum(1).sum().item()


def sources(paired, eps):
    """For each row of `paired` the row of `eps` that it is."""
    same = (paired.flatten(1)[:, None] == eps.flatten(1)[None]).all(2)
    assert (same.sum(1) == 1).all()
    return same.long().argmax(1)


@pytest.mark.parametrize("seed", range(5))
def test_transport_is_the_best_of_all_permutations(seed):
    x, eps = noise(6, 1, 2, 2, seed=seed), noise(6, 1, 2, 2, seed=100 + seed)
    best = min(cost(x, eps[list(order)]) for order in itertools.permutations(range(6)))
    assert cost(x, OptimalTransport().pair(x, eps)) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("coupling", [Independent(), OptimalTransport(), ClassAwareOptimalTransport()])
def test_noise_is_permuted_and_nothing_else(coupling):
    x, eps, labels = noise(32, 3, 4, 4), noise(32, 3, 4, 4, seed=1), torch.arange(32) % 3
    before = eps.clone()
    paired = coupling.pair(x, eps, labels)
    assert torch.equal(eps, before)
    assert sorted(sources(paired, eps).tolist()) == list(range(32))
    assert paired.shape == eps.shape and paired.dtype == eps.dtype


def test_row_i_is_the_partner_of_image_i():
    """The noise lies beside its image, shuffled: the coupling finds it again, in the order of the images."""
    x = 10 * noise(40, 2, 3)
    order = torch.randperm(40, generator=rng(2))
    eps = (x + 0.01 * noise(40, 2, 3, seed=1))[order]
    assert torch.equal(order[sources(OptimalTransport().pair(x, eps), eps)], torch.arange(40))


def test_independent_returns_the_noise_itself():
    eps = noise(4, 2)
    assert Independent().pair(noise(4, 2, seed=1), eps) is eps


def test_class_aware_is_the_best_within_classes():
    x, eps = noise(8, 5), noise(8, 5, seed=1)
    labels = torch.tensor([2, 0, 2, 0, 7, 0, 2, 0])
    paired = ClassAwareOptimalTransport().pair(x, eps, labels)
    assert torch.equal(labels[sources(paired, eps)], labels)
    for label in (0, 2, 7):
        mine = labels == label
        rows = eps[mine]
        best = min(cost(x[mine], rows[list(o)]) for o in itertools.permutations(range(len(rows))))
        assert cost(x[mine], paired[mine]) == pytest.approx(best, rel=1e-6)


def test_only_class_aware_transport_keeps_noise_independent_of_the_class():
    """Two classes on either side: plain transport gives each the noise of its side."""
    labels = torch.arange(200) % 2
    x = noise(200, 2) + 3.0 * (2 * labels[:, None] - 1)
    eps = noise(200, 2, seed=1)
    plain = OptimalTransport().pair(x, eps)
    aware = ClassAwareOptimalTransport().pair(x, eps, labels)
    assert plain[labels == 1].mean() > 0.4 and plain[labels == 0].mean() < -0.4
    for label in (0, 1):
        mine = labels == label
        assert torch.equal(aware[mine].sort(0).values, eps[mine].sort(0).values)
    assert cost(x, plain) < cost(x, aware) < cost(x, eps)


def test_costs_are_not_rounded_by_autocast():
    x, eps = noise(64, 100), noise(64, 100, seed=1)
    expected = OptimalTransport().pair(x, eps)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(OptimalTransport().pair(x, eps), expected)


def test_gradients_flow_to_the_noise_but_not_into_the_choice():
    x = noise(5, 3).requires_grad_()
    paired = OptimalTransport().pair(x, noise(5, 3, seed=1))
    assert not paired.requires_grad


@pytest.mark.parametrize("labels", [None, torch.zeros(3, 2), torch.zeros(4), torch.zeros(3).long()])
def test_class_aware_transport_asks_for_classes(labels):
    with pytest.raises(GenzooError, match="one class per image"):
        ClassAwareOptimalTransport().pair(noise(4, 2), noise(4, 2), labels)
