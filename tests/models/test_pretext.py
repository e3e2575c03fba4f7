"""Puzzles: turns against NumPy, permutations by brute force, and what all of them have in common."""

import itertools

import numpy as np
import pytest
import torch
from puzzles import CROP, DIGITS, PLAIN, RESNET, RGB, TINY, VIT, inpainting, jigsaw, rotation
from small_models import built, images, rng
from torch.nn import functional as F

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.data.augmentations import Compose, RandomCrop
from genzoo.models.encoders.pretext import (
    cut_tiles,
    distant_permutations,
    enlarged,
    evened,
    quarter_turn,
    reassembled,
    shuffled,
)
from genzoo.nn.backbones import ProjectionConfig, ResNetConfig, ViTConfig
from genzoo.testing.encoder_checks import yield_encoder_checks

MODELS = {
    "rotation": (rotation(augmentation=CROP), DIGITS),
    "rotation rgb": (rotation(VIT), RGB),
    "rotation tiny": (rotation(), TINY),
    "jigsaw": (jigsaw(augmentation=CROP), DIGITS),
    "jigsaw rgb": (jigsaw(VIT, grid=3, permutations=10), RGB),
    "jigsaw tiny": (jigsaw(), TINY),
    "inpainting": (inpainting(augmentation=CROP), DIGITS),
    "inpainting rgb": (inpainting(), RGB),
    "inpainting tiny": (inpainting(), TINY),
    "context encoder": (inpainting(RESNET, hidden_fraction=0.25), RGB),
    "context encoder tiny": (inpainting(RESNET, hidden_fraction=0.25), TINY),
}
LAWS = [
    pytest.param(check, id=f"{name}-{check}")
    for name, (config, spec) in MODELS.items()
    for check in yield_encoder_checks(built(config, spec))
    # four pixels of two levels make sixteen images
    if not (spec == TINY and "embeddings_differ" in str(check))
]


@pytest.mark.parametrize("check", LAWS)
def test_conformance(check):
    result = check.run()
    assert result.ok, result.message


@pytest.mark.parametrize(
    "config", [rotation(), jigsaw(VIT), inpainting()], ids=["rotation", "jigsaw", "inpainting"]
)
def test_configurations_are_json(config):
    types = [
        type(config),
        Compose,
        RandomCrop,
        ResNetConfig,
        ViTConfig,
        ProjectionConfig,
        type(config.training),
    ]
    assert from_json(to_json(config), types) == config


@pytest.mark.parametrize(
    ("config", "spec", "said"),
    [
        (rotation(), DataSpec((4,), levels=None), "levels"),
        (jigsaw(grid=4), DIGITS, "grid of 2 or 3"),
        (jigsaw(permutations=1), DIGITS, "2 or more permutations"),
        (jigsaw(grid=3), TINY, "too few pixels"),
        (inpainting(hidden_fraction=1.0), DIGITS, "hidden_fraction"),
        (inpainting(regions=0), DIGITS, "regions"),
        (inpainting(), DataSpec((1, 1, 1), levels=4), "one patch"),
    ],
)
def test_configurations_that_cannot_be(config, spec, said):
    with pytest.raises(GenzooError, match=said):
        config.build(spec)


# --- rotation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(4))
def test_quarter_turns_are_numpys(k):
    x = torch.randn(3, 2, 5, 5, generator=rng())
    for image, turned in zip(x.numpy(), quarter_turn(x, k).numpy(), strict=True):
        np.testing.assert_array_equal(turned, np.stack([np.rot90(channel, k) for channel in image]))


def test_turns_of_other_shapes_are_of_the_central_square():
    x = torch.randn(2, 1, 4, 8, generator=rng())
    square = x[..., 2:6]
    for k in range(4):
        stretched = F.interpolate(quarter_turn(square, k), (4, 8), mode="bilinear")
        torch.testing.assert_close(quarter_turn(x, k), stretched)


def test_rotation_loss_is_the_cross_entropy_of_all_four_turns():
    model = built(rotation(), DIGITS, spread=0.2)
    pictures = images(5, DIGITS)
    loss = model.loss(Batch(pictures))
    x = pictures.double() * (2 / 17) + 1 / 17 - 1  # bin centres of 17 levels
    expected = torch.zeros(5, dtype=torch.float64)
    for k in range(4):
        turned = np.stack([[np.rot90(image[0], k)] for image in x.numpy()])
        logits = model.head(model.backbone(torch.from_numpy(turned).float())).double()
        expected -= logits.log_softmax(1)[:, k] / 4
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=1e-5)


def test_no_turn_can_be_told_of_a_symmetric_image():
    model = built(rotation(), DIGITS, spread=0.3)
    quarter = torch.tensor([[0, 3], [9, 16]], dtype=torch.uint8)
    ring = torch.cat([quarter, quarter.rot90(-1)], 1)
    ring = torch.cat([ring, ring.rot90(2)])  # equal to all of its turns
    assert torch.equal(ring, ring.rot90(1))
    symmetric = F.pad(ring, (2, 2, 2, 2))[None, None]
    loss = model.loss(Batch(symmetric))
    assert loss.parts["accuracy"].item() == pytest.approx(0.25)
    assert loss.total.item() >= np.log(4) - 1e-5  # cross-entropies of one prediction with all four answers


# --- jigsaw --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "count", "least"), [(4, 4, 4), (4, 12, 3), (4, 24, 2), (9, 9, 8), (9, 30, 7)])
def test_permutations_are_far_apart(n, count, least):
    found = distant_permutations(n, count)
    assert found.shape == (count, n)
    assert all(sorted(row) == list(range(n)) for row in found.tolist())
    distances = [
        sum(a != b for a, b in zip(p, q, strict=True)) for p, q in itertools.combinations(found.tolist(), 2)
    ]
    assert min(distances) >= least
    by_order = list(itertools.permutations(range(n)))[:count]  # alphabetical ones differ in a few places only
    if count > 4 and n > 4:
        assert min(distances) > min(
            sum(a != b for a, b in zip(p, q, strict=True)) for p, q in itertools.combinations(by_order, 2)
        )


def test_each_next_permutation_is_as_far_as_can_be():
    """The greedy rule by brute force, for all permutations of four."""
    found = distant_permutations(4, 10).tolist()
    assert found[0] == [0, 1, 2, 3]

    def distances(p, chosen):
        return [sum(a != b for a, b in zip(p, q, strict=True)) for q in chosen]

    for i in range(1, 10):
        scores = {
            p: (min(distances(p, found[:i])), sum(distances(p, found[:i])))
            for p in itertools.permutations(range(4))
        }
        assert scores[tuple(found[i])] == max(scores.values())


def test_there_are_no_more_permutations_than_exist():
    assert len({tuple(p) for p in distant_permutations(4, 1000).tolist()}) == 24


@pytest.mark.parametrize(("shape", "grid"), [((2, 6, 8), 2), ((1, 9, 6), 3)])
def test_the_identity_gives_back_the_image(shape, grid):
    x = torch.randn(4, *shape, generator=rng())
    tiles = cut_tiles(x, grid)
    identity = torch.arange(grid**2).expand(4, -1)
    assert torch.equal(reassembled(shuffled(tiles, identity), grid), x)
    order = torch.stack([torch.randperm(grid**2, generator=rng(i)) for i in range(4)])
    puzzle = shuffled(tiles, order)
    assert not torch.equal(reassembled(puzzle, grid), x)
    assert torch.equal(reassembled(shuffled(puzzle, order.argsort(1)), grid), x)


def test_tiles_lie_anywhere_in_their_cells():
    """Each pixel holds its row and column, so that a tile tells where it was cut."""
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(10.0), indexing="ij")
    x = torch.stack([rows, columns]).expand(300, -1, -1, -1)
    tiles = cut_tiles(x, 2, 0.3, rng())
    assert tiles.shape == (300, 4, 2, 5, 3)  # cells of 7x5, less 30%
    corner = tiles[..., 0, 0]
    torch.testing.assert_close(tiles - corner[..., None, None], (x[:1, :, :5, :3])[:, None].expand_as(tiles))
    for place, (top, left) in enumerate([(0, 0), (0, 5), (7, 0), (7, 5)]):
        assert set(corner[:, place, 0].tolist()) == {top, top + 1.0, top + 2.0}
        assert set(corner[:, place, 1].tolist()) == {left, left + 1.0, left + 2.0}


def test_evened_tiles_say_nothing_of_light():
    tiles = torch.rand(2, 4, 3, 5, 5, generator=rng())
    dark = tiles * torch.tensor([0.2, 0.5, 1.0, 3.0])[:, None, None, None] - 0.7
    torch.testing.assert_close(evened(dark), evened(tiles))
    assert evened(tiles).std((-2, -1), correction=0).sub(0.5).abs().max() < 1e-5
    assert evened(torch.full((1, 4, 1, 3, 3), 0.3)).abs().max() < 1e-5  # flat, and still finite


def test_enlarged_tiles_have_the_size_and_the_looks():
    slope = torch.linspace(-1, 1, 4).expand(2, 3, 1, 4, 4)
    larger = enlarged(slope, (8, 12))
    assert larger.shape == (2, 3, 1, 8, 12)
    assert (larger.diff(dim=-1) >= 0).all() and (larger.diff(dim=-2).abs() < 1e-6).all()
    assert larger.mean().item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(enlarged(slope, (4, 4)), slope)


@pytest.mark.parametrize("config", [jigsaw(), jigsaw(normalised=False, enlarged=False)])
def test_jigsaw_shows_its_network_in_use_what_it_showed_it_in_training(config):
    model, shown = built(config, DIGITS, spread=0.1), []
    model.backbone.network.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    pictures = images(6, DIGITS)
    model.loss(Batch(pictures), generator=rng())
    model.embed(pictures)
    puzzle, whole = shown
    if config.enlarged:
        assert puzzle.shape == whole.shape == (24, 1, 8, 8)
    else:
        assert puzzle.shape == (24, 1, 3, 3) and whole.shape == (24, 1, 4, 4)
    for tiles in shown:
        even = torch.allclose(tiles.mean((2, 3)), torch.zeros(24, 1), atol=1e-5)
        assert even == config.normalised


def test_jigsaw_vectors_are_those_of_the_tiles_standardised():
    model = built(jigsaw(), DIGITS, spread=0.1)
    pictures = images(30, DIGITS)
    x = (2 * pictures.float() + 1) / 17 - 1
    model.backbone.norm.momentum = 1.0  # of the last batch alone
    model.backbone.train()(x)
    vectors = model.embed(pictures)
    assert vectors.shape == (30, 4 * 16)
    corners = [x[..., i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]
    with torch.no_grad():
        tiles = [F.interpolate(corner, (8, 8), mode="bilinear") for corner in corners]
        plain = torch.stack([model.backbone.network(evened(tile)) for tile in tiles], 1)
    flat = plain.flatten(0, 1)
    units = (plain - flat.mean(0)) / (flat.var(0) + 1e-5).sqrt()
    torch.testing.assert_close(vectors, units.flatten(1), rtol=1e-3, atol=1e-3)


def test_jigsaw_tells_the_permutation_that_was_made():
    """With logits that are the tiles' own marks, the loss of the right permutation is the smallest."""
    model = built(jigsaw(normalised=False, permutations=24), DIGITS)
    marks = (
        torch.tensor([[0, 5], [10, 16]], dtype=torch.uint8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    )
    marks = marks.expand(64, 1, -1, -1)
    shades = torch.tensor([0, 5, 10, 16]) * (2 / 17) + 1 / 17 - 1

    def logits(tiles):
        seen = (tiles.mean((2, 3, 4))[..., None] - shades).abs().argmin(2)  # [b, t]: the tile at each place
        return 100.0 * (seen[:, None] == model.orders).float().mean(2)

    model.logits = logits
    loss = model.loss(Batch(marks), generator=rng())
    assert loss.parts["accuracy"].tolist() == [1.0] * 64
    assert loss.total.max() < 1e-3


# --- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "bar"),
    [(rotation(), 0.9), (jigsaw(permutations=4), 0.9), (inpainting(augmentation=PLAIN), 0.97)],
    ids=["rotation", "jigsaw", "inpainting"],
)
def test_puzzles_can_be_solved(config, bar):
    """A bar of light at the top left of a dark image: the loss falls well below the level of chance."""
    pictures = torch.zeros(16, 1, 8, 8, dtype=torch.uint8)
    pictures[:, :, :3, :] = torch.randint(8, 17, (16, 1, 3, 8), generator=rng()).to(torch.uint8)
    model = built(config, DIGITS).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        loss = model.loss(Batch(pictures), generator=rng(step)).total.mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.mean(losses[-5:]) < bar * np.mean(losses[:3])
