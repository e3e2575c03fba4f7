"""Every denoising network: shapes, what the output depends on, and the wiring against independent references."""

import copy
import math

import pytest
import torch
from diffusers import UNet2DModel
from torch.nn import functional as F

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.nn.conv_unet import ConvUNetConfig
from genzoo.nn.mlp import MLPConfig
from genzoo.nn.patch_transformer import PatchTransformerConfig, waves
from genzoo.nn.unet import UNetConfig, UNetDenoiser
from genzoo.objectives.denoising.noise_conditioning import LogSNRConditioning, TimeConditioning
from genzoo.objectives.denoising.paths import Linear

UNET = UNetConfig(channels=(16, 32), layers=1, attention=1, head_width=16, norm_groups=8)
TRANSFORMER = PatchTransformerConfig(width=32, blocks=2, head_width=16)
IMAGE_CONFIGS = {
    "conv-unet": ConvUNetConfig(fine=8, channels=(16, 24), blocks=1),
    "unet": UNET,
    "unet-patch": UNetConfig(channels=(16, 32, 48), layers=1, norm_groups=8, patch=2),
    "patch-transformer": TRANSFORMER,
    "patch-transformer-3": PatchTransformerConfig(width=32, blocks=1, patch=3),
}
CONFIGS = IMAGE_CONFIGS | {"mlp": MLPConfig(width=32, blocks=2)}
SHAPES = [(1, 2, 2), (1, 8, 8), (3, 5, 7), (1, 1, 9), (1, 13, 1), (1, 28, 28), (3, 33, 20)]

all_networks = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
image_networks = pytest.mark.parametrize("config", IMAGE_CONFIGS.values(), ids=IMAGE_CONFIGS.keys())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(shape, cond_width=0, n=3, seed=0):
    g = generator(seed)
    c_noise = 1000 * torch.rand(n, generator=g, dtype=torch.float64)
    cond = torch.randn(n, cond_width, generator=g) if cond_width else None
    return torch.randn(n, *shape, generator=g), c_noise, cond


def channels_last(x):
    """Grey images too, which `contiguous` leaves alone: as read from files, `[h, w, 1]`."""
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def perturbed(module, seed=1):
    """Nothing is zero any more."""
    g = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
    return module


def built(config, shape=(3, 8, 7), out=3, cond_width=0):
    return perturbed(config.build(shape, out, cond_width)).eval()


@all_networks
@pytest.mark.parametrize("cond_width", [0, 64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_and_zero_at_the_start(config, shape, cond_width):
    for out in (shape[0], 17 * shape[0]):
        net = config.build(shape, out, cond_width)
        with torch.no_grad():
            y = net(*inputs(shape, cond_width))
            assert y.shape == (3, out, *shape[1:]) and not y.any()
            moved = perturbed(net)(*inputs(shape, cond_width))
        assert moved.isfinite().all() and (moved.flatten(1).std(1) > 0).all()


@pytest.mark.parametrize("config", [ConvUNetConfig(), UNetConfig(), PatchTransformerConfig()], ids=str)
def test_the_defaults_build_for_images_large_and_small(config):
    for shape in ((1, 2, 2), (3, 64, 64)):
        assert config.build(shape, shape[0], 64)(*inputs(shape, 64, n=1)).shape == (1, *shape)


@all_networks
def test_the_output_depends_on_all_that_goes_in(config):
    net = built(config, cond_width=5)
    given, other = inputs((3, 8, 7), 5), inputs((3, 8, 7), 5, seed=1)
    with torch.no_grad():
        y = net(*given)
        assert torch.equal(net(*given), y)
        for n in range(3):
            changed = [*given[:n], other[n], *given[n + 1 :]]
            assert ((net(*changed) - y).flatten(1).abs().amax(1) > 1e-3).all()
        nearby = (given[0], given[1] + 1, given[2])  # a thousandth of the way
        assert ((net(*nearby) - y).flatten(1).abs().amax(1) > 1e-5).all()


def test_clocks_rise_with_the_noise():
    t = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    assert TimeConditioning(1000.0, -1.0)(Linear(), t).tolist() == [-1.0, 249.0, 499.0, 999.0]
    told = LogSNRConditioning(-10.0, 20.0)(
        Linear(), t
    )  # the log-SNR is infinite, log 9, 0 and minus infinite
    expected = torch.tensor([0.0, 1000 * (20 - math.log(9)) / 30, 2000 / 3, 1000.0], dtype=torch.float64)
    torch.testing.assert_close(told, expected)


@image_networks
def test_the_last_row_and_column_are_seen_and_drawn(config):
    """What padding must not cut off."""
    net, (x, c_noise, _) = built(config, (3, 5, 7)), inputs((3, 5, 7))
    for corner in ((0, 0), (4, 6)):
        x.requires_grad_()
        (slope,) = torch.autograd.grad(net(x, c_noise)[:, :, corner[0], corner[1]].sum(), x)
        assert (slope[:, :, corner[0], corner[1]] != 0).all()


@all_networks
def test_rows_of_a_batch_keep_to_themselves(config):
    net = built(config, cond_width=5).train()
    given, other = inputs((3, 8, 7), 5), inputs((3, 8, 7), 5, seed=1)
    changed = tuple(torch.cat([a[:1], b[1:]]) for a, b in zip(given, other, strict=True))
    y, z = net(*given), net(*changed)
    torch.testing.assert_close(z[0], y[0], rtol=0, atol=1e-5)
    assert (z[1] - y[1]).abs().max() > 1e-3


@all_networks
def test_gradients_reach_every_parameter(config):
    net = built(config, cond_width=5)
    net(*inputs((3, 8, 7), 5)).square().mean().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@all_networks
@pytest.mark.parametrize("cond_width", [0, 5])
def test_bf16_is_close_to_fp32_and_trains(config, cond_width):
    net, given = built(config, cond_width=cond_width), inputs((3, 8, 7), cond_width)
    exact = net(*given)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(*given)
    assert (y - exact).norm() < 0.1 * exact.norm()
    y.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@all_networks
def test_memory_order_of_the_input_does_not_matter(config):
    for channels in (1, 3):
        net, (x, c_noise, _) = built(config, (channels, 8, 8), channels), inputs((channels, 8, 8))
        expected = net(x, c_noise)
        torch.testing.assert_close(net(channels_last(x), c_noise), expected)


@all_networks
def test_configurations_survive_json_and_networks_a_copy(config):
    assert from_json(to_json(config), [type(config)]) == config
    net, given = built(config), inputs((3, 8, 7))
    assert torch.equal(copy.deepcopy(net)(*given), net(*given))


@image_networks
def test_vectors_are_refused_by_networks_for_images(config):
    with pytest.raises(GenzooError, match="needs images") as caught:
        config.build((5,), 5, 0)
    assert "\n" not in str(caught.value)


# --- U-Net -------------------------------------------------------------------------------------------------------


def bare(net):
    """A UNet2DModel of its own with the weights of `net`."""
    unet = UNet2DModel.from_config(net.unet.config)
    unet.load_state_dict(net.unet.state_dict())
    return unet.eval()


def test_unet_equals_the_bare_unet():
    net, (x, c_noise, _) = built(UNET, (3, 8, 8)), inputs((3, 8, 8))
    config = net.unet.config
    assert (config.in_channels, config.out_channels, config.sample_size) == (3, 3, 8)
    torch.testing.assert_close(net(x, c_noise), bare(net)(x, c_noise).sample)


def test_unet_pads_below_and_to_the_right_and_folds_patches():
    config = UNetConfig(channels=(16, 32), layers=1, norm_groups=8, patch=2)
    net, (x, c_noise, cond) = built(config, (3, 5, 7), 2, cond_width=5), inputs((3, 5, 7), 5)
    padded = x.new_zeros(3, 3, 8, 8)
    padded[..., :5, :7] = x
    folded = padded.reshape(3, 3, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(3, 12, 4, 4)
    y = bare(net)(folded, c_noise, class_labels=net.cond(cond)).sample
    unfolded = y.reshape(3, 2, 2, 2, 4, 4).permute(0, 1, 4, 2, 5, 3).reshape(3, 2, 8, 8)
    torch.testing.assert_close(net(x, c_noise, cond), unfolded[..., :5, :7])


def test_a_saved_unet_comes_back_and_is_wrapped(tmp_path):
    net, (x, c_noise, _) = built(UNET, (3, 8, 8)), inputs((3, 8, 8))
    net.unet.save_pretrained(tmp_path)
    again = UNetDenoiser(UNet2DModel.from_pretrained(tmp_path))
    torch.testing.assert_close(again(x, c_noise), net(x, c_noise))
    assert again(x[..., :5, :7], c_noise).shape == (3, 3, 5, 7)


@pytest.mark.parametrize("strange", [{"num_class_embeds": 10}, {"time_embedding_type": "fourier"}], ids=str)
def test_unets_of_other_kinds_are_refused(strange):
    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = UNet2DModel(block_out_channels=(8,), norm_num_groups=4, attention_head_dim=8, **kinds, **strange)
    with pytest.raises(GenzooError, match="only"):
        UNetDenoiser(unet)


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_inside_the_unet_are_contiguous(channels):
    """In channels-last order group normalisation and bf16 convolutions are slow; diffusers' attention gives it."""
    net, (x, c_noise, _) = built(UNET, (channels, 8, 8), channels), inputs((channels, 8, 8))
    strides = []
    for module in net.unet.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.GroupNorm)):
            module.register_forward_hook(lambda module, given, _: strides.append(given[0].stride(1)))
    net(channels_last(x), c_noise)
    assert len(strides) > 20 and 1 not in strides


@pytest.mark.parametrize(
    ("side", "patch", "resolutions", "inner"),
    [(2, 1, 1, 2), (8, 1, 3, 8), (9, 1, 4, 16), (2, 2, 1, 1), (28, 2, 4, 16)],
)
def test_small_images_use_fewer_resolutions(side, patch, resolutions, inner):
    config = UNetConfig(channels=(8, 8, 8, 8), layers=1, norm_groups=4, patch=patch)
    unet = config.build((1, side, side), 1, 0).unet
    assert (len(unet.config.block_out_channels), unet.config.sample_size) == (resolutions, inner)


def test_attention_is_where_it_was_asked_for():
    def attended(**fields):
        net = UNetConfig(channels=(16, 32, 96), layers=1, norm_groups=48, head_width=32, **fields).build(
            (1, 16, 16), 1, 0
        )
        blocks = [*net.unet.down_blocks, net.unet.mid_block]
        return ["Attn" in type(b).__name__ or any(getattr(b, "attentions", [])) for b in blocks], net.unet

    assert attended(middle_attention=False)[0] == [False] * 4
    assert attended()[0] == [False, False, False, True]
    places, unet = attended(attention=2)
    assert places == [False, True, True, True]
    assert unet.mid_block.attentions[0].heads == 3 and unet.config.norm_num_groups == 16


# --- patch transformer --------------------------------------------------------------------------------------------


def test_without_positions_patches_are_a_set():
    net, (x, c_noise, cond) = built(TRANSFORMER, (3, 8, 8), cond_width=5), inputs((3, 8, 8), 5)

    def swapped(images):
        """Upper left and lower right patch change places."""
        images = images.clone()
        images[..., :2, :2], images[..., -2:, -2:] = (
            images[..., -2:, -2:].clone(),
            images[..., :2, :2].clone(),
        )
        return images

    assert (net(swapped(x), c_noise, cond) - swapped(net(x, c_noise, cond))).abs().max() > 1e-2
    with torch.no_grad():
        net.place.zero_()
    torch.testing.assert_close(net(swapped(x), c_noise, cond), swapped(net(x, c_noise, cond)))


def test_a_new_transformer_is_linear_in_normalised_tokens():
    """adaLN-zero: blocks and modulation do nothing yet. Patches are cut out by hand."""
    net, (x, c_noise, _) = TRANSFORMER.build((1, 3, 4), 1, 0), inputs((1, 3, 4))
    perturbed(net.exit)
    patches = F.pad(x, (0, 0, 0, 1)).reshape(3, 2, 2, 2, 2).permute(0, 1, 3, 2, 4).reshape(3, 4, 4)
    tokens = F.layer_norm(net.enter(patches) + net.place, (32,))
    y = net.exit(tokens).reshape(3, 1, 2, 2, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(3, 1, 4, 4)
    torch.testing.assert_close(net(x, c_noise), y[..., :3, :])


def test_positions_begin_different_from_each_other():
    places = waves((16, 9), 34)
    assert places.shape == (144, 34) and not places[:, 32:].any()
    distances = torch.cdist(places, places) + 9 * torch.eye(144)
    assert distances.min() > 0.1
    torch.testing.assert_close(places.square().sum(1), torch.full((144,), 16.0))  # sin^2 + cos^2 of 16 angles
    assert waves((2, 2), 3).shape == (4, 3)


# --- perceptron ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cond_width", [0, 5])
@pytest.mark.parametrize("d", [1, 2, 128])
def test_vectors(d, cond_width):
    net, given = MLPConfig().build((d,), d, cond_width), inputs((d,), cond_width)
    assert net(*given).shape == (3, d) and not net(*given).any()
    assert perturbed(net)(*given).std() > 0


def test_a_new_perceptron_grows_with_its_input():
    """Blocks do nothing yet, and no normalisation bounds the output."""
    net, (x, c_noise, _) = MLPConfig(width=32).build((2,), 2, 0), inputs((2,))
    perturbed(net.exit)
    torch.testing.assert_close(net(x, c_noise), net.exit(F.silu(net.enter(x))))
    assert net(1000 * x, c_noise).norm() > 100 * net(x, c_noise).norm()


def test_perceptron_learns_the_denoiser_of_a_gaussian():
    """The best guess of eps from x_t = (1 - t) x + t eps is linear in x_t, with a slope that depends on t."""
    torch.manual_seed(0)  # the weights
    net, g = MLPConfig(width=64, blocks=2).build((2,), 2, 0), generator()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(300):
        x, eps, t = (
            torch.randn(256, 2, generator=g),
            torch.randn(256, 2, generator=g),
            torch.rand(256, 1, generator=g),
        )
        loss = (net((1 - t) * x + t * eps, 1000 * t[:, 0]) - eps).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    t = torch.tensor([[0.2], [0.5], [0.8]])
    x_t = torch.tensor([[1.0, -0.5], [-0.3, 0.8], [0.6, 1.1]])
    best = t / ((1 - t) ** 2 + t**2) * x_t
    assert (net(x_t, 1000 * t[:, 0]) - best).abs().max() < 0.2
