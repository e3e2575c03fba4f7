"""Augmentations: closed forms of each, an own draw for each image, and nothing but `generator` is drawn from."""

import colorsys
import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as kernels

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import augmentations
from genzoo.data.augmentation_presets import AUGMENTATIONS, augmentation_for, on_ground
from genzoo.data.augmentations import (
    Augmentation,
    ColourJitter,
    Compose,
    GaussianBlur,
    MultiCrop,
    RandomCrop,
    RandomErasing,
    RandomGrey,
    cropped_to,
    resampled,
    views,
)
from genzoo.data.sources import image_kind_of, source_names

STILL = RandomCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))
STRONG = {
    "crop": RandomCrop(),
    "crop to a size": RandomCrop(size=(5, 4)),
    "turn": RandomCrop((0.5, 1.5), (0.5, 2.0), flip=0.5, degrees=40, shift=0.2, shear=20),
    "turn with edges": RandomCrop(degrees=40, shift=0.2, ground=None),
    "colours": ColourJitter(0.5, 0.5, 0.5, 0.2, 0.5, share=0.9),
    "grey": RandomGrey(0.5),
    "blur": GaussianBlur((0.5, 2.0), share=0.9),
    "erase": RandomErasing(0.9),
    "photographs": AUGMENTATIONS["photographs"],
}
WEAK = {
    "crop": STILL,
    "crop with edges": RandomCrop((1.0, 1.0), (1.0, 1.0), ground=None),
    "colours": ColourJitter(),
    "colours never": ColourJitter(0.5, 0.5, 0.5, 0.2, 0.5, share=0.0),
    "grey": RandomGrey(0.0),
    "blur": GaussianBlur((0.0, 0.0), share=1.0),
    "blur never": GaussianBlur(share=0.0),
    "erase": RandomErasing(0.0),
    "nothing": Compose(),
    "none": AUGMENTATIONS["none"],
}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, channels=3, height=9, width=7, seed=0):
    return 2 * torch.rand(n, channels, height, width, generator=rng(seed)) - 1


def assert_close(found, wanted, atol=1e-5):
    torch.testing.assert_close(found, wanted, atol=atol, rtol=0)


# --- what all of them promise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("augmentation", WEAK.values(), ids=WEAK)
def test_without_strength_nothing_changes(augmentation, channels):
    x = images(channels=channels)
    assert_close(augmentation(x, rng()), x)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", STRONG.values(), ids=STRONG)
def test_range_dtype_and_source_of_chance(augmentation, channels):
    x = images(64, channels)
    before, copy = torch.random.get_rng_state(), x.clone()
    found = augmentation(x, rng(3))
    assert torch.equal(torch.random.get_rng_state(), before) and torch.equal(x, copy)
    assert found.dtype == torch.float32 and found.shape[:2] == x.shape[:2]
    assert found.abs().max() <= 1 + 1e-6
    assert torch.equal(found, augmentation(x, rng(3)))
    assert augmentation == RandomGrey(0.5) or not torch.equal(found, augmentation(x, rng(4)))


@pytest.mark.parametrize("augmentation", STRONG.values(), ids=STRONG)
def test_images_of_a_batch_draw_for_themselves(augmentation):
    """Of 32 copies of an image the results differ (those with a share may leave some copies alike)."""
    found = augmentation(images(1).repeat(32, 1, 1, 1), rng()).flatten(1)
    different = len(torch.unique((1e4 * found).round(), dim=0))
    assert different == 2 if augmentation == RandomGrey(0.5) else different >= 24


@pytest.mark.parametrize("augmentation", STRONG.values(), ids=STRONG)
def test_autocast_takes_nothing_away(augmentation):
    """Places and colours in bf16 would be off by a percent."""
    x = images()
    with torch.autocast("cpu", torch.bfloat16):
        found = augmentation(x, rng())
    assert torch.equal(found, augmentation(x, rng()))


@pytest.mark.parametrize("x", [images().byte(), images()[0]], ids=["integers", "one image"])
def test_what_is_no_batch_of_floats(x):
    with pytest.raises(GenzooError, match=r"floats \[b, c, h, w\]"):
        STILL(x)


def test_json_there_and_back():
    types = [
        value
        for value in vars(augmentations).values()
        if isinstance(value, type) and issubclass(value, (Augmentation, MultiCrop))
    ]
    for augmentation in [*STRONG.values(), *AUGMENTATIONS.values(), MultiCrop(RandomCrop(), STILL)]:
        assert from_json(to_json(augmentation), types) == augmentation


# --- places --------------------------------------------------------------------------------------------------------


def test_a_flip_mirrors():
    x = images()
    assert_close(RandomCrop((1.0, 1.0), (1.0, 1.0), flip=1.0)(x, rng()), x.flip(-1))
    some = RandomCrop((1.0, 1.0), (1.0, 1.0), flip=0.3)(images(1).repeat(2000, 1, 1, 1), rng())
    flipped = (some - images(1).flip(-1)).abs().amax((1, 2, 3)) < 1e-5
    assert abs(flipped.float().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)


@pytest.mark.parametrize(("across", "down"), [(2, 0), (0, -3), (-1, 2)])
def test_a_shift_by_whole_pixels(across, down):
    x = images()
    maps = torch.tensor([[1.0, 0.0, 2 * across / 7], [0.0, 1.0, 2 * down / 9]]).expand(6, 2, 3)
    padded = F.pad(x, (4, 4, 4, 4), value=-0.5)
    assert_close(
        resampled(x, maps, (9, 7), -0.5), padded[..., 4 + down : 13 + down, 4 + across : 11 + across]
    )
    repeated = F.pad(x, (4, 4, 4, 4), mode="replicate")
    assert_close(
        resampled(x, maps, (9, 7), None), repeated[..., 4 + down : 13 + down, 4 + across : 11 + across]
    )


def test_a_quarter_turn():
    """Of a square image, and about the middle of an oblong one: angles are those of pixels."""
    x = images(height=8, width=8)
    maps = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]).expand(6, 2, 3)
    assert_close(resampled(x, maps, (8, 8)), x.rot90(1, (2, 3)))
    x = images(height=9, width=5)
    maps = torch.tensor([[0.0, -9 / 5, 0.0], [5 / 9, 0.0, 0.0]]).expand(6, 2, 3)
    assert_close(resampled(x, maps, (9, 5))[:, :, 2:7], x[:, :, 2:7].rot90(1, (2, 3)))


def in_pixels(maps, height, width):
    """The linear part of maps between places that are measured in pixels."""
    sides = torch.tensor([width, height], dtype=maps.dtype)
    return sides[:, None] * maps[:, :, :2] / sides


def test_turns_are_rigid_and_shears_keep_areas():
    x = images(500, 1, 9, 5)
    turns = in_pixels(RandomCrop((1.0, 1.0), (1.0, 1.0), degrees=30).maps(x, rng()), 9, 5)
    assert_close(turns @ turns.mT, torch.eye(2).expand(500, 2, 2))
    angle = torch.atan2(turns[:, 1, 0], turns[:, 0, 0]).rad2deg()
    assert angle.abs().max() <= 30.001 and angle.max() > 28 and angle.min() < -28
    shears = in_pixels(RandomCrop((1.0, 1.0), (1.0, 1.0), shear=20).maps(x, rng()), 9, 5)
    assert_close(torch.linalg.det(shears), torch.ones(500))
    assert_close(shears[:, 1], torch.tensor([0.0, 1.0]).expand(500, 2))
    slant = shears[:, 0, 1].atan().rad2deg()
    assert slant.abs().max() <= 20.001 and slant.max() > 18 and slant.min() < -18
    both = in_pixels(RandomCrop((0.5, 0.5), (1.0, 1.0), 1.0, degrees=30, shear=20).maps(x, rng()), 9, 5)
    assert_close(torch.linalg.det(both), torch.full((500,), -0.5))  # mirrored


def test_windows_have_the_areas_and_places_asked_for():
    x = images(4000, 1, 10, 20)
    maps = RandomCrop((0.2, 0.8), (0.5, 2.0)).maps(x, rng())
    width, height, centre = maps[:, 0, 0], maps[:, 1, 1], maps[:, :, 2]
    area, stretch = width * height, (width / height).log()
    inside = torch.cat([centre.abs() + torch.stack([width, height], 1)])
    assert inside.max() <= 1 + 1e-5 and width.max() <= 1 and maps[:, 0, 1].abs().max() == 0
    free = (width < 0.999) & (height < 0.999)  # windows that had to be cut off are smaller than asked for
    assert area[free].min() >= 0.2 - 1e-5 and area[free].max() <= 0.8 + 1e-5
    assert stretch.abs().max() <= math.log(2) + 1e-4
    assert abs(stretch.mean()) < 0.03 and abs(centre.mean()) < 0.03
    unstretched = RandomCrop((0.2, 0.8), (1.0, 1.0)).maps(x, rng())
    assert abs((unstretched[:, 0, 0] * unstretched[:, 1, 1]).mean() - 0.5) < 4 * 0.6 / math.sqrt(12 * 4000)


def test_larger_windows_keep_the_whole_image():
    """Twice the sides: an all white image is a quarter of its window, wherever it lies."""
    white = torch.ones(200, 1, 8, 8)
    found = RandomCrop((4.0, 4.0), (1.0, 1.0), ground=0.0)(white, rng())
    area = found.sum((1, 2, 3)) * 4 / 64
    assert (area - 1).abs().max() < 0.15 and abs(area.mean() - 1) < 0.02
    assert (found.sum(0) > 0).all()


def test_crops_of_another_size():
    """A window of the left half at a quarter of the pixels is the mean of four where places fall between them."""
    x = images(2, 1, 8, 8)
    maps = torch.tensor([[0.5, 0.0, -0.5], [0.0, 1.0, 0.0]]).expand(2, 2, 3)
    assert_close(resampled(x, maps, (4, 2)), F.avg_pool2d(x[..., :4], 2))
    assert RandomCrop(size=(5, 4))(x, rng()).shape == (2, 1, 5, 4)


@pytest.mark.parametrize("fields", [{"scale": (0.0, 1.0)}, {"ratio": (2.0, 1.0)}, {"size": (0, 4)}])
def test_crops_that_cannot_be(fields):
    with pytest.raises(GenzooError, match="positive and rising"):
        RandomCrop(**fields)


def test_rectangles_that_cannot_be():
    with pytest.raises(GenzooError, match="must rise within"):
        RandomErasing(area=(0.5, 1.5))


def test_erasing_takes_one_rectangle_of_the_area_asked_for():
    x = images(500, 1, 12, 16)
    found = RandomErasing(1.0, area=(0.1, 0.3), ratio=(1.0, 1.0), fill=0.25)(x, rng())
    hole = (found == 0.25)[:, 0]
    assert torch.equal(found[~hole[:, None]], x[~hole[:, None]])
    rows, columns = hole.any(2).sum(1), hole.any(1).sum(1)
    assert torch.equal(rows * columns, hole.sum((1, 2)))  # a full rectangle
    side = (0.1 * 192) ** 0.5, (0.3 * 192) ** 0.5
    assert rows.min() >= round(side[0]) and rows.max() <= round(side[1])
    assert hole.any(0).all()  # anywhere
    wide = RandomErasing(1.0, area=(0.1, 0.1), ratio=(3.0, 3.0), fill=0.25)(x, rng())
    hole = (wide == 0.25)[:, 0]
    # width over height is 3, the area 19.2 pixels
    assert hole.any(1).sum(1).unique().tolist() == [8] and hole.any(2).sum(1).unique().tolist() == [3]


# --- colours -------------------------------------------------------------------------------------------------------


def jitters(**strengths):
    """64 draws of one strong jitter of a colour image, and the strength's own draws."""
    jitter = ColourJitter(**strengths)
    x = images(1).repeat(64, 1, 1, 1)
    u = torch.rand(64, 6, generator=rng(5))
    return x, jitter(x, rng(5)), 2 * u - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_multiplies(channels):
    x, _, sign = jitters()
    x = x[:, :channels]
    found = ColourJitter(brightness=0.6)(x, rng(5))
    assert_close(found, ((x + 1) * (1 + 0.6 * sign[:, 0])[:, None, None, None]).clamp(0, 2) - 1)


def test_contrast_is_torchvisions():
    x, found, sign = jitters(contrast=0.7)
    for image, got, s in zip(x, found, sign[:, 1], strict=True):
        assert_close(got, 2 * kernels.adjust_contrast((image + 1) / 2, float(1 + 0.7 * s)) - 1)


def test_contrast_follows_brightness():
    """p <- a p, then p <- c p + (1 - c) mean: the mean is that of the brightened image."""
    x = images(1).repeat(64, 1, 1, 1) * 0.3  # far from the ends, where values are cut off
    found = ColourJitter(brightness=0.2, contrast=0.4)(x, rng(5))
    sign = 2 * torch.rand(64, 6, generator=rng(5)) - 1
    for image, got, (b, c) in zip(x, found, sign[:, :2].tolist(), strict=True):
        expected = kernels.adjust_contrast((image + 1) / 2 * (1 + 0.2 * b), 1 + 0.4 * c)
        assert_close(got, 2 * expected - 1)


def test_saturation_is_torchvisions():
    """To the three digits to which its luma adds up to one."""
    x, found, sign = jitters(saturation=0.7)
    for image, got, s in zip(x, found, sign[:, 2], strict=True):
        assert_close(got, 2 * kernels.adjust_saturation((image + 1) / 2, float(1 + 0.7 * s)) - 1, atol=1e-3)


def test_gamma_is_a_power():
    x, found, sign = jitters(gamma=0.7)
    assert_close(found, 2 * ((x + 1) / 2) ** (0.7 * sign[:, 4]).exp()[:, None, None, None] - 1)


def test_hue_turns_and_keeps_luma():
    """Greys stay; luma stays; pale colours turn by about the angle that the colour wheel says."""
    luma = torch.tensor([0.299, 0.587, 0.114])
    colour = torch.tensor([0.55, 0.5, 0.45])
    x = (2 * colour - 1)[None, :, None, None].repeat(64, 1, 2, 2)
    found = (ColourJitter(hue=0.5)(x, rng(5)) + 1) / 2
    sign = 2 * torch.rand(64, 6, generator=rng(5)) - 1
    assert_close(
        (found * luma[:, None, None]).sum(1), torch.full((64, 2, 2), float(luma @ colour)), atol=1e-4
    )
    before = colorsys.rgb_to_hsv(*colour.tolist())[0]
    for got, turn in zip(found[:, :, 0, 0].tolist(), 0.5 * sign[:, 3], strict=True):
        off = (colorsys.rgb_to_hsv(*got)[0] - before - turn + 0.5) % 1 - 0.5
        assert abs(off) < 0.09 or abs((off + 2 * turn + 0.5) % 1 - 0.5) < 0.09
    grey = images(64, 1).expand(-1, 3, -1, -1)
    assert_close(ColourJitter(saturation=0.5, hue=0.5)(grey, rng()), grey)


def test_grey_is_luma_in_three_channels():
    x = images(400)
    found = RandomGrey(0.3)(x, rng())
    grey = (found - kernels.rgb_to_grayscale(x, 3)).abs().amax((1, 2, 3)) < 1e-6
    assert torch.equal(found[~grey], x[~grey])
    assert abs(grey.float().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 400)


def test_blur_is_a_convolution_inside():
    x = images(3, 2, 21, 23)
    found = GaussianBlur((1.3, 1.3), share=1.0)(x, rng())
    wanted = kernels.gaussian_blur(x, [15, 15], [1.3, 1.3])
    assert_close(found[..., 7:-7, 7:-7], wanted[..., 7:-7, 7:-7])
    even = torch.full((1, 1, 9, 9), 0.7)
    assert_close(GaussianBlur((2.0, 2.0), share=1.0)(even, rng()), even)  # no dark edges


# --- several views, and presets ------------------------------------------------------------------------------------


def test_views_differ_and_keep_their_order():
    x = torch.linspace(-1, 1, 5)[:, None, None, None].expand(-1, 1, 8, 8)
    both = views(ColourJitter(brightness=0.1), x, 3, rng())
    assert both.shape == (3, 5, 1, 8, 8) and not torch.equal(both[0], both[1])
    assert_close(both.mean((0, 2, 3, 4)), x[:, 0, 0, 0], atol=0.2)


def test_multi_crop_gives_large_and_small_views():
    large = AUGMENTATIONS["photographs"]
    crops = MultiCrop(large, cropped_to(large, (4, 5), (0.05, 0.3)), 2, 5)
    assert crops.small.parts[0] == RandomCrop((0.05, 0.3), flip=0.5, size=(4, 5), ground=None)
    assert crops.small.parts[1:] == large.parts[1:]
    a, b = crops(images(3), rng())
    assert a.shape == (2, 3, 3, 9, 7) and b.shape == (5, 3, 3, 4, 5)
    with pytest.raises(GenzooError, match="need an augmentation with a RandomCrop"):
        cropped_to(RandomGrey(), (4, 4), (0.1, 0.2))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((1, 8, 8), "small-digits"), ((1, 28, 28), "digits"), ((3, 32, 32), "photographs")],
)
def test_defaults_follow_the_data(shape, kind):
    spec = DataSpec(shape, levels=2)
    assert augmentation_for(spec) == on_ground(AUGMENTATIONS[kind], -0.5)
    x = torch.full((8, *shape), -0.5)  # an empty binary image, as bin centres
    assert_close(augmentation_for(spec).parts[0](x, rng()), x)


@pytest.mark.parametrize("name", ["small-digits", "digits"])
def test_writing_is_not_mirrored(name):
    assert AUGMENTATIONS[name].parts[0].flip == 0


def test_known_sources_are_of_known_kinds():
    kinds = {image_kind_of(name) for name in source_names()} - {None}
    assert kinds <= set(AUGMENTATIONS) and image_kind_of("fashion-mnist") == "garments"


def test_kinds_that_are_none():
    with pytest.raises(GenzooError, match="did you mean 'garments'"):
        augmentation_for(DataSpec((1, 28, 28)), "garment")
    with pytest.raises(GenzooError, match="take images"):
        augmentation_for(DataSpec((4,), levels=None))
