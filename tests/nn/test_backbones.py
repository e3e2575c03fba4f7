"""Backbones and projections: any size, float32 under autocast, gradients everywhere, tokens that see what they may."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.nn.backbones import ProjectionConfig, ResNetConfig, ViTConfig

RESNET, VIT = ResNetConfig((8, 12)), ViTConfig(width=16, blocks=2, head_width=8)
CONFIGS = {
    "resnet": RESNET,
    "resnet without blocks": ResNetConfig((8,), blocks=0),
    "vit": VIT,
    "vit with a class token": ViTConfig(width=16, blocks=2, head_width=8, class_token=True),
}
SHAPES = [(1, 8, 8), (3, 7, 9), (1, 28, 28), (3, 33, 18), (1, 1, 1)]


def built(config, shape, spread=0.3):
    """Weights from a seed, with noise of size `spread` on what starts at zero."""
    torch.manual_seed(0)
    module = config.build(shape)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(spread * torch.randn_like(p))
    return module


def images(n, shape, seed=0):
    return 2 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_vectors_of_any_image(config, shape):
    """The width that it says, each image for itself, and by every pixel's doing: the gradient is nowhere zero."""
    backbone, x = built(config, shape), images(4, shape).requires_grad_()
    found = backbone(x)
    assert found.shape == (4, backbone.width) and found.dtype == torch.float32
    torch.testing.assert_close(found[1:2], backbone(x[1:2]), atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(found[2].square().sum(), x)
    assert (gradient[2] != 0).float().mean() > 0.95 and gradient[[0, 1, 3]].abs().max() == 0


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_another_size_than_it_was_built_for(config):
    """Small crops among large ones; interpolated places of the same grid are the learned ones."""
    backbone = built(config, (1, 28, 28))
    assert backbone(images(2, (1, 16, 12))).shape == (2, backbone.width)


def test_places_are_interpolated():
    """Of a ramp, at half the grid: the means of two."""
    vit = ViTConfig(width=4, head_width=4).build((1, 32, 32))
    ramp = torch.arange(8.0)
    with torch.no_grad():
        vit.place.copy_(torch.stack([ramp[:, None].expand(8, 8), ramp.expand(8, 8)] * 2, -1).flatten(0, 1))
    found = vit._places(torch.zeros(1, 1, 32, 16)).unflatten(0, (8, 4))
    assert torch.equal(vit._places(torch.zeros(1, 1, 32, 32)), vit.place)
    torch.testing.assert_close(found[..., 0], ramp[:, None].expand(8, 4))
    torch.testing.assert_close(found[:, 1:-1, 1], torch.tensor([2.5, 4.5]).expand(8, 2))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_training_in_bf16(config):
    """float32 comes out of both, near to what comes out without autocast; every parameter gets a finite gradient."""
    backbone, x = built(config, (1, 9, 8), spread=0.05), images(6, (1, 9, 8))
    head = built(ProjectionConfig(16, 4, 3, batch_norm=True), backbone.width, spread=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        vectors = backbone(x)
        embeddings = head(vectors)
    assert vectors.dtype == embeddings.dtype == torch.float32
    torch.testing.assert_close(vectors, backbone(x), atol=0.1, rtol=0.1)
    embeddings.square().sum().backward()
    for module in (backbone, head):
        for name, p in module.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, name


@pytest.mark.parametrize("config", [RESNET, VIT], ids=["resnet", "vit"])
def test_it_learns(config):
    """Where a bright square is, left or right: from the start that training begins at, in bf16."""
    torch.manual_seed(0)
    backbone = config.build((1, 8, 8))
    out = nn.Linear(backbone.width, 1)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *out.parameters()], lr=5e-3)
    right = torch.arange(64) % 2
    x = torch.full((64, 1, 8, 8), -1.0)
    for n in range(64):
        row, column = n // 2 % 6, 4 * int(right[n]) + n // 12 % 3
        x[n, 0, row : row + 2, column : column + 2] = 1.0
    for _ in range(60):
        with torch.autocast("cpu", torch.bfloat16):
            logits = out(backbone(x))[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits.float(), right.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3


def test_branches_start_at_nothing():
    """A new ViT is a linear map of its patches and the last norm; a new ResNet its halvings alone."""
    x = images(2, (1, 8, 8))
    vit = VIT.build((1, 8, 8))
    torch.testing.assert_close(vit.tokens(x), vit.norm(vit.enter(vit.patches(x)) + vit.place))
    resnet = RESNET.build((1, 8, 8))
    halvings = nn.Sequential(*resnet.stages.down)
    torch.testing.assert_close(resnet(x), F.relu(halvings(x)).mean((2, 3)))


def test_default_sizes():
    for config, count in ((ResNetConfig(), 1.4e6), (ViTConfig(), 1.2e6)):
        parameters = sum(p.numel() for p in config.build((1, 28, 28)).parameters())
        assert abs(parameters / count - 1) < 0.05
    assert ViTConfig().build((1, 28, 28)).patch == 4 and ViTConfig().build((1, 8, 8)).patch == 2


# --- tokens --------------------------------------------------------------------------------------------------------


def test_patches_are_squares_in_reading_order():
    vit = VIT.build((3, 6, 5))
    assert vit.patch == 2 and vit.grid == (3, 3)
    x = images(2, (3, 6, 5))
    found = vit.patches(x).unflatten(2, (3, 2, 2))
    torch.testing.assert_close(found[:, 4], x[:, :, 2:4, 2:4])
    torch.testing.assert_close(found[:, 5, :, :, 0], x[:, :, 2:4, 4])
    assert found[:, 5, :, :, 1].abs().max() == 0  # padding


@pytest.mark.parametrize("class_token", [False, True])
def test_masked_tokens_depend_on_visible_patches_only(class_token):
    """The Jacobian is zero at hidden patches and not at visible ones, for each image its own."""
    vit = built(ViTConfig(width=16, blocks=2, head_width=8, class_token=class_token), (1, 8, 8))
    x = images(2, (1, 8, 8)).requires_grad_()
    keep = torch.tensor([[3, 0, 14], [7, 8, 9]])
    tokens = vit.tokens(x, keep)
    assert tokens.shape == (2, 3, 16) and tokens.dtype == torch.float32
    (gradient,) = torch.autograd.grad(tokens.square().sum(), x)
    seen = vit.patches(gradient).abs().sum(2) > 0
    for image in range(2):
        assert seen[image].nonzero()[:, 0].tolist() == sorted(keep[image].tolist())


@pytest.mark.parametrize("class_token", [False, True])
def test_tokens_come_in_the_order_asked_for(class_token):
    vit = built(ViTConfig(width=16, blocks=2, head_width=8, class_token=class_token), (1, 8, 8))
    x = images(2, (1, 8, 8))
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(n)) for n in range(2)])
    all_of_them, close = vit.tokens(x), {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(vit.tokens(x, order), all_of_them[torch.arange(2)[:, None], order], **close)
    assert class_token or torch.equal(vit(x), all_of_them.mean(1))


# --- the head ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_projection_by_hand(layers, batch_norm):
    head, x = built(ProjectionConfig(6, 3, layers, batch_norm), 5), torch.randn(7, 5)
    y = x
    for n, layer in enumerate(m for m in head.layers if isinstance(m, nn.Linear)):
        y = y @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        if n == layers - 1:
            break
        if batch_norm:
            norm = [m for m in head.layers if isinstance(m, nn.BatchNorm1d)][n]
            y = (y - y.mean(0)) / (y.var(0, unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
        y = y.clamp(min=0)
    torch.testing.assert_close(head(x), y, atol=1e-5, rtol=1e-4)


def test_batch_norm_of_one_image():
    head = ProjectionConfig(batch_norm=True).build(5)
    with pytest.raises(GenzooError, match="at least two images"):
        head(torch.randn(1, 5))
    assert head.eval()(torch.randn(1, 5)).shape == (1, 128)


# --- configurations ------------------------------------------------------------------------------------------------


def test_configurations_that_cannot_be():
    with pytest.raises(GenzooError, match="at least"):
        ResNetConfig(()).build((1, 8, 8))
    with pytest.raises(GenzooError, match="channels of ResNetConfig"):
        ResNetConfig((8, 0))
    with pytest.raises(GenzooError, match="patch of ViTConfig"):
        ViTConfig(patch=0)


def test_mistakes_and_json():
    with pytest.raises(GenzooError, match="projection"):
        ProjectionConfig(layers=0).build(8)
    for config in (RESNET, VIT):
        with pytest.raises(GenzooError, match="needs images"):
            config.build((4,))
        assert from_json(to_json(config), [ResNetConfig, ViTConfig]) == config
