"""Muon: its step against the singular value decomposition, and which parameters it takes."""

import copy

import torch
from torch import nn

from genzoo.core.config import TrainConfig
from genzoo.training.optim import Muon, Optimizers, make_optimizer, orthogonal, set_rate


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_orthogonal_keeps_singular_vectors_and_levels_singular_values():
    for shape in ((16, 40), (40, 16), (24, 24)):
        matrix = random(*shape)
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        inside = u.T @ orthogonal(matrix) @ vh.T
        levels = inside.diagonal()
        wide = s > 0.1 * s.max()
        assert (levels[wide] > 0.6).all() and (levels < 1.3).all()
        assert (inside - levels.diag()).abs().max() < 0.05  # bfloat16


def test_a_step_has_the_size_of_adams():
    """A momentum of equal singular values moves every weight by about 0.2 of the learning rate."""
    kernel = nn.Parameter(torch.zeros(32, 16, 3, 3).contiguous(memory_format=torch.channels_last))
    optimizer = Muon([kernel], lr=0.1, weight_decay=0.0)
    kernel.grad = random(*kernel.shape)
    optimizer.step()
    moved = kernel.detach()
    assert 0.7 < moved.square().mean().sqrt() / (0.1 * 0.2) < 1.2
    assert (moved * kernel.grad).sum() < 0
    direction = -orthogonal(kernel.grad.flatten(1))
    assert torch.cosine_similarity(moved.flatten(), direction.flatten(), dim=0) > 0.99


def test_momentum_and_decay_by_hand():
    kernel = nn.Parameter(torch.ones(16, 16, 1, 1))
    optimizer = Muon([kernel], lr=0.1, weight_decay=0.5, momentum=0.5)
    kernel.grad = torch.zeros_like(kernel)
    optimizer.step()
    torch.testing.assert_close(kernel.detach(), torch.full_like(kernel, 0.95))
    kernel.grad = torch.ones_like(kernel)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[kernel]["momentum"], torch.full_like(kernel, 0.5))


def test_a_second_step_looks_ahead_by_hand():
    """Nesterov: the gradient moved towards its average, not the average itself; they differ from the second step on."""
    kernel = nn.Parameter(torch.zeros(16, 24, 1, 1))
    optimizer = Muon([kernel], lr=0.1, weight_decay=0.0, momentum=0.8)
    gradients = [torch.randn(16, 24, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    expected, average = torch.zeros(16, 24), torch.zeros(16, 24)
    for gradient in gradients:
        kernel.grad = gradient.view_as(kernel).clone()
        optimizer.step()
        average = 0.8 * average + 0.2 * gradient
        expected -= 0.1 * 0.2 * 24**0.5 * orthogonal(0.2 * gradient + 0.8 * average)
    # bfloat16 rounds sums of another order another way
    assert (kernel.detach()[..., 0, 0] - expected).norm() < 0.02 * expected.norm()


def test_hidden_kernels_go_to_muon_and_the_rest_to_adamw():
    model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.Conv2d(32, 32, 3), nn.Linear(32, 32), nn.Conv2d(32, 4, 1))
    optimizer = make_optimizer(model.parameters(), TrainConfig(optimizer="muon"))
    assert isinstance(optimizer, Optimizers)
    adamw, muon = optimizer.each
    (group,) = muon.param_groups
    assert [id(p) for p in group["params"]] == [id(model[1].weight)]
    assert sum(len(g["params"]) for g in adamw.param_groups) == 7
    assert isinstance(make_optimizer(model.parameters(), TrainConfig()), torch.optim.AdamW)
    set_rate(optimizer, 0.3)
    assert all(g["lr"] == 0.3 for each in optimizer.each for g in each.param_groups)


def test_a_stored_state_goes_on_the_same_way():
    def steps(model, optimizer, seeds):
        for seed in seeds:
            x = torch.randn(4, 16, 5, 5, generator=torch.Generator().manual_seed(seed))
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    one, other = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)
    config = TrainConfig(optimizer="muon")
    first = make_optimizer(one.parameters(), config)
    steps(one, first, range(3))
    other.load_state_dict(one.state_dict())
    second = make_optimizer(other.parameters(), config)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    set_rate(second, config.learning_rate)
    steps(one, first, range(3, 6))
    steps(other, second, range(3, 6))
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def test_a_rate_reaches_optimisers_that_were_loaded(tmp_path):
    """Loading replaces the groups of an optimiser; a resumed run sets the rates of those that are there then."""
    from genzoo.training.saved_state import load_moments

    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3), torch.nn.Linear(2, 2))
    optimizer = make_optimizer(layers.parameters(), TrainConfig(optimizer="muon"))
    assert len(optimizer.each) == 2
    load_moments(optimizer, optimizer.state_dict(), tmp_path)
    set_rate(optimizer, 0.125)
    assert {group["lr"] for each in optimizer.each for group in each.param_groups} == {0.125}
