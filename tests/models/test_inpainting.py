"""What of an image the masked autoencoder sees, and what it tells."""

import itertools

import pytest
import torch
from puzzles import DIGITS, RESNET, RGB, VIT, inpainting
from small_models import built, images, rng
from torch.nn import functional as F

from genzoo.models.encoders.inpainting import Regions, cut_patches, normalised


@pytest.fixture(params=["autoencoder", "context encoder"])
def filling(request):
    config = (
        inpainting() if request.param == "autoencoder" else inpainting(RESNET, hidden_fraction=0.5, square=2)
    )
    model = built(config, DIGITS, spread=0.1)
    x = torch.rand(3, 1, 8, 8, generator=rng()) * 2 - 1
    return model, x, model.drawn_order(x, rng(1))


def test_orders_are_permutations_and_the_share_is_hidden():
    model = built(inpainting(hidden_fraction=0.75), DIGITS)
    order = model.drawn_order(torch.zeros(400, 1, 8, 8), rng())
    assert torch.equal(order.sort(1).values, torch.arange(16).expand(400, -1))
    assert model.visible(order) == 4
    seen = order[:, :4].flatten().bincount(minlength=16)
    assert seen.min() > 60 and seen.max() < 140  # 100 each, standard deviation 9
    assert model.visible(order[:, :1].expand(-1, 2)) == 1  # one of two


def test_hidden_patches_are_not_seen(filling):
    """The prediction's Jacobian is zero in the pixels of hidden patches, and not in those of visible ones."""
    model, x, order = filling
    visible = model.visible(order)

    def told(pixels):
        return model.filler(pixels, order, visible).sum((1, 2))

    jacobian = torch.autograd.functional.jacobian(told, x)  # [b, b, c, h, w]
    own = torch.stack([jacobian[i, i] for i in range(3)])
    slopes = cut_patches(own, model.filler.side).abs().amax(2)
    assert (slopes.gather(1, order[:, visible:]) == 0).all()
    assert (slopes.gather(1, order[:, :visible]) > 0).all()


def test_only_hidden_patches_count(filling):
    model, x, order = filling
    visible, side = model.visible(order), model.filler.side
    told = torch.randn(cut_patches(x, side).shape, generator=rng(2))
    before = model.error(told, x, order)
    # targets: another image in the visible patches
    other = torch.rand(3, 1, 8, 8, generator=rng(3)) * 2 - 1
    seen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :visible], True)
    squares = (
        seen.view(3, 8 // side, 8 // side).repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]
    )
    assert torch.equal(model.error(told, torch.where(squares, other, x), order), before)
    assert not torch.isclose(model.error(told, torch.where(squares, x, other), order), before).any()
    # predictions
    assert torch.equal(model.error(torch.where(seen[..., None], told + 1, told), x, order), before)
    assert not torch.isclose(
        model.error(torch.where(seen[..., None], told, told + 1), x, order), before
    ).any()


def test_error_is_that_of_a_loop():
    model = built(inpainting(), RGB)  # 7x6: padded to 8x6, patches of two
    x = torch.rand(2, 3, 7, 6, generator=rng()) * 2 - 1
    order = model.drawn_order(x, rng(1))
    told = torch.randn(2, 12, 12, generator=rng(2))
    expected = []
    for image, of_image, prediction in zip(x.double(), order, told.double(), strict=True):
        errors = []
        for patch in of_image[model.visible(order) :].tolist():
            row, column = 2 * (patch // 3), 2 * (patch % 3)
            pixels = image[:, row : row + 2, column : column + 2]  # one row only at the bottom
            guess = prediction[patch].view(3, 2, 2)[:, : pixels.shape[1]]
            target = (pixels - pixels.mean()) / (pixels.var(correction=0) + 1e-6).sqrt()
            errors.append((guess - target).square().mean())
        expected.append(torch.stack(errors).mean())
    torch.testing.assert_close(
        model.error(told, x, order).double(), torch.stack(expected), rtol=1e-5, atol=1e-6
    )


def test_normalised_patches():
    patches = 3 * torch.randn(2, 4, 16, generator=rng()) + 1
    unit = normalised(patches, torch.ones_like(patches))
    torch.testing.assert_close(unit.mean(2), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(unit.square().mean(2), torch.ones(2, 4), atol=1e-4, rtol=0)
    assert normalised(torch.full((1, 1, 4), 0.3), torch.ones(1, 1, 4)).abs().max() < 1e-3


def test_embedding_hides_nothing_and_draws_nothing():
    model = built(inpainting(), DIGITS, spread=0.1)
    pictures = images(4, DIGITS)
    vectors = model.embed(pictures)
    centres = pictures.float() * (2 / 17) + 1 / 17 - 1
    with torch.no_grad():
        tokens = model.filler.backbone.tokens(centres).view(
            4, 2, 2, 2, 2, 32
        )  # rows of parts, in them, columns ...
    torch.testing.assert_close(vectors, tokens.mean((2, 4)).flatten(1))
    for row, column in itertools.product(range(0, 8, 2), repeat=2):
        changed = pictures.clone()
        changed[..., row, column] = 16 - changed[..., row, column]
        assert (model.embed(changed) != vectors).any(1)[(changed != pictures).flatten(1).any(1)].all()


@pytest.mark.parametrize(("count", "parts"), [(1, (1, 1)), (3, (3, 3)), (9, (4, 3))])
def test_regions_are_means_of_the_tokens_over_them(count, parts):
    """Of 7x6 pixels, 4x3 patches: parts overlap where they do not divide the grid, and are no more than patches."""
    network = built(VIT, RGB.shape, spread=0.1)
    x = torch.randn(2, 3, 7, 6, generator=rng())
    regions = Regions(network, count)
    assert regions.width == parts[0] * parts[1] * 32
    tokens = network.tokens(x).view(2, 4, 3, 32)
    expected = []
    for i, j in itertools.product(range(parts[0]), range(parts[1])):
        rows = slice(i * 4 // parts[0], -(-(i + 1) * 4 // parts[0]))
        columns = slice(j * 3 // parts[1], -(-(j + 1) * 3 // parts[1]))
        expected.append(tokens[:, rows, columns].mean((1, 2)))
    torch.testing.assert_close(regions(x), torch.cat(expected, 1))
    if count == 1:
        torch.testing.assert_close(regions(x), network(x))


def test_decoder_puts_tokens_back_in_their_places():
    """With blocks that do nothing the patch of a visible token depends on that token alone."""
    model = built(inpainting(), DIGITS, spread=0.0)  # residual branches are zero at the start
    x = torch.rand(1, 1, 8, 8, generator=rng()) * 2 - 1
    order = model.drawn_order(x, rng(5))
    visible = order[0, :4].tolist()
    before = model.filler(x, order, 4)
    changed = cut_patches(x, 2).clone()
    changed[:, visible[2]] += 0.5
    y = F.pixel_shuffle(changed.mT.unflatten(2, (4, 4)), 2)
    moved = (model.filler(y, order, 4) - before).abs().amax(2)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [visible[2]]
