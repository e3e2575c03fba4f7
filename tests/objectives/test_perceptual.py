"""Distances of features: a sum written out place by place, its two ends, and where gradients go."""

import copy

import pytest
import torch

from genzoo.nn.patch_discriminator import PatchDiscriminatorConfig
from genzoo.objectives.perceptual import feature_distance, frozen_maps, perceptual_distance


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def maps(seed):
    shapes = [(3, 5, 4, 3), (3, 2, 1, 2)]
    generator = rng(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def discriminator():
    torch.manual_seed(0)
    return PatchDiscriminatorConfig((6, 8)).build((1, 8, 8))


def test_distance_place_by_place():
    a, b = maps(0), maps(1)
    wanted = torch.zeros(3, dtype=torch.float64)
    for f, g in zip(a, b, strict=True):
        n, _, height, width = f.shape
        for image in range(n):
            for i in range(height):
                for j in range(width):
                    x, y = f[image, :, i, j], g[image, :, i, j]
                    wanted[image] += (x / x.norm() - y / y.norm()).square().sum() / (height * width)
    torch.testing.assert_close(feature_distance(a, b), wanted)


def test_equal_maps_are_at_no_distance_and_opposite_ones_at_four_per_stage():
    a = maps(0)
    assert feature_distance(a, a).tolist() == [0.0] * 3
    torch.testing.assert_close(feature_distance(a, [7 * f for f in a]), torch.zeros(3).double())
    torch.testing.assert_close(feature_distance(a, [-f for f in a]), torch.full((3,), 8.0).double())


def test_no_features_at_all_are_no_trouble():
    blank = [torch.zeros(1, 3, 2, 2, requires_grad=True)]
    distance = feature_distance(blank, [torch.ones(1, 3, 2, 2)])
    distance.sum().backward()
    assert distance.item() == pytest.approx(1) and blank[0].grad.isfinite().all()


def test_half_precision_maps_are_compared_in_single():
    distance = feature_distance(*([f.bfloat16() for f in maps(seed)] for seed in (0, 1)))
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance.double(), feature_distance(maps(0), maps(1)), rtol=0.05, atol=0.01)


def test_stages_must_be_the_same():
    with pytest.raises(ValueError, match="zip"):
        feature_distance(maps(0), maps(1)[:1])


def test_only_the_fake_gets_a_gradient():
    network = discriminator()
    before = copy.deepcopy(network.state_dict())
    real = torch.randn(2, 1, 8, 8, generator=rng(1)).requires_grad_()
    fake = torch.randn(2, 1, 8, 8, generator=rng(2)).requires_grad_()
    distance = perceptual_distance(network, real, fake)
    torch.testing.assert_close(distance, feature_distance(network.maps(real), network.maps(fake)))
    (by_hand,) = torch.autograd.grad(distance.sum(), fake, retain_graph=True)
    distance.sum().backward()
    assert torch.equal(fake.grad, by_hand) and fake.grad.any() and real.grad is None
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


class Halves:
    """Features that no network computes."""

    def maps(self, x):
        return [x[:, :1], x[:, 1:]]


def test_features_need_no_network():
    x = torch.randn(2, 3, 4, 4, generator=rng())
    assert all(torch.equal(f, g) for f, g in zip(frozen_maps(Halves())(x), [x[:, :1], x[:, 1:]], strict=True))
    assert perceptual_distance(Halves(), x, -x).tolist() == pytest.approx([8.0, 8.0])
