"""The two-player game on patches, and the discriminator of patches."""

import torch
from torch import nn

from genzoo.core.passes import frozen
from genzoo.nn.patch_discriminator import PatchDiscriminatorConfig
from genzoo.objectives.adversarial import R1, Hinge, Lazy, RelativisticPaired, per_image
from genzoo.objectives.two_players import TwoPlayerGame


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def patches(shape=(1, 8, 8), given=0, spread=0.3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PatchDiscriminatorConfig((8, 8)).build(shape, given)
        for p in network.parameters():
            nn.init.normal_(p, std=spread)
    return network


def test_patches_are_averaged_image_by_image():
    network, game = patches(), TwoPlayerGame(Hinge(), ())
    real, fake = (torch.randn(3, 1, 8, 8, generator=rng(seed)) for seed in (0, 1))
    on_real, on_fake = network(real), network(fake)
    assert on_real.shape == (3, 4, 4)
    found = game.discriminator_loss(network, real, fake)
    by_hand = [
        (torch.relu(1 - r) + torch.relu(1 + f)).sum() / 16 for r, f in zip(on_real, on_fake, strict=True)
    ]
    torch.testing.assert_close(found.total, torch.stack(by_hand))
    torch.testing.assert_close(game.generator_loss(frozen(network), real, fake), -on_fake.mean((1, 2)))
    torch.testing.assert_close(found.parts["gap"], (on_real - on_fake).mean((1, 2)))


def test_the_slope_is_that_of_the_mean_over_patches():
    network = patches().double()
    x = torch.randn(2, 1, 8, 8, generator=rng(), dtype=torch.float64)
    (jacobian,) = torch.autograd.functional.jacobian(lambda v: per_image(network(v)), (x,))
    by_hand = torch.stack([jacobian[i, i].square().sum() for i in range(2)])
    torch.testing.assert_close(R1(2.0)(network, x, x).double(), by_hand, rtol=1e-4, atol=1e-7)


def test_a_patch_sees_34_pixels_and_what_it_answers_to():
    network = patches((1, 48, 48), given=2)
    x, given = (torch.zeros(1, c, 48, 48, requires_grad=True) for c in (1, 2))
    slopes = torch.autograd.grad(network(x, given)[0, 6, 6], [x, given])
    for slope in slopes:
        rows = slope[0].abs().sum((0, 2)).nonzero()[:, 0]
        assert rows.max() - rows.min() + 1 == 34


def test_the_makers_turn_leaves_the_discriminator_without_gradients():
    network, game = patches(), TwoPlayerGame(RelativisticPaired(), (Lazy(R1()),))
    fake = torch.randn(2, 1, 8, 8, generator=rng(), requires_grad=True)
    game.generator_loss(frozen(network), torch.zeros(2, 1, 8, 8), fake).sum().backward()
    assert fake.grad is not None and fake.grad.any()
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    fake.grad = None
    game.discriminator_loss(network, torch.zeros(2, 1, 8, 8), fake).total.sum().backward()
    assert fake.grad is None and any(p.grad.any() for p in network.parameters())


def test_small_images_have_fewer_stages():
    assert patches((3, 5, 6)).body.down[-1].out_channels == 8 and len(patches((3, 5, 6)).body.down) == 1
    assert len(patches((1, 28, 28)).body.down) == 2
