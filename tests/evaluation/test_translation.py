"""Figures and pictures of predictions, against images whose distances are known."""

import math

import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import Corrupted, Downsample, Edges, Mask, PairedSplit, TensorSplit
from genzoo.evaluation.features.feature_space import FeatureSpace
from genzoo.evaluation.translation import compared, gradients, l1_distances, psnrs, translation_figures
from genzoo.models.diffusion.denoising_model import DiffusionConfig
from genzoo.models.gan.image_to_image import ImageToImageConfig
from genzoo.models.input_pictures import input_images, translation_picture
from genzoo.nn.conv_unet import ConvUNetConfig

SPEC = DataSpec((1, 8, 8), 17, "vector", 64)
NETWORK = ConvUNetConfig(fine=4, channels=(8,), blocks=1, attention=0)


def images(n=60, c=1, levels=17, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (n, c, 8, 8), generator=generator).to(torch.uint8)


def does_nothing(spec=SPEC):
    """A fresh model: its network's last layer is zero, so that it predicts the input."""
    return ImageToImageConfig(network=NETWORK, adversarial_weight=0.0).build(spec)


def split(corruption, x, levels=17):
    return PairedSplit(TensorSplit(x), Corrupted(corruption, levels))


def test_distances_by_hand():
    spec = DataSpec((1, 1, 2), 11)
    truth = torch.tensor([[[[0, 10]]], [[[5, 5]]]], dtype=torch.uint8)
    guess = torch.tensor([[[[10, 10]]], [[[5, 5]]]], dtype=torch.uint8)
    assert l1_distances(guess, truth, spec).tolist() == [0.5, 0.0]
    # half of the squared range; and one level in one of two sub-pixels, the least that is told apart
    expected = [10 * math.log10(2), 10 * math.log10(100 * 2)]
    assert psnrs(guess, truth, spec).tolist() == pytest.approx(expected)


def test_gradients_by_hand():
    x = torch.tensor([[0, 3], [4, 4]])[None, None]
    # (3, 4) at the upper left, 1 down at the upper right, nothing below: 5, 1, 0, 0
    assert gradients(x).tolist() == [1.5]
    assert gradients(torch.full((1, 3, 5, 4), 9)).tolist() == [0.0]


def test_a_model_that_does_nothing_has_the_figures_of_its_input():
    x = images()
    figures = translation_figures(does_nothing(), split(Mask(), x))
    assert {k: figures[k] for k in figures["input"]} == figures["input"]
    masked = x.clone()
    masked[:, :, 2:6, 2:6] = 8  # the level whose bin holds 0
    distance = (masked.double() - x.double()).abs().flatten(1).mean(1) / 16
    assert figures["l1"] == pytest.approx(distance.mean().item())
    assert figures["l1_stderr"] == pytest.approx(distance.std().item() / 60**0.5)
    assert figures["images"] == 60 and figures["sharpness"] < 1
    assert all(d > 0 for d in figures["frechet"].values())


def test_truth_is_best_in_every_figure():
    x = images()
    spaces = FeatureSpace.all_for(TensorSplit(x))
    perfect = compared(x, x, SPEC, spaces)
    assert perfect["l1"] == 0 and perfect["sharpness"] == 1
    assert perfect["frechet"] == {name: pytest.approx(0, abs=1e-6) for name in perfect["frechet"]}
    blurred = (x.float() * 0.5 + x.float().mean() * 0.5).round().to(torch.uint8)
    worse = compared(blurred, x, SPEC, spaces)
    assert worse["sharpness"] == pytest.approx(0.5, abs=0.05) and worse["psnr"] < perfect["psnr"]
    assert all(worse["frechet"][name] > 1e-3 for name in worse["frechet"])


def test_constant_images_have_no_sharpness():
    x = torch.full((4, 1, 8, 8), 3, dtype=torch.uint8)
    assert compared(x, x, SPEC, [])["sharpness"] is None


def test_at_most_so_many_images():
    x = images()
    few = translation_figures(does_nothing(), split(Mask(), x), max_images=20)
    distance = l1_distances(input_images(Mask()(x[:20], 17), SPEC), x[:20], SPEC)
    assert few["images"] == 20 and few["l1"] == pytest.approx(distance.mean().item())


def test_inputs_of_other_channels_have_no_figures_but_a_picture():
    spec = DataSpec((3, 8, 8), 17, "vector", 64)
    x = images(20, 3)
    model = ImageToImageConfig(network=NETWORK).build(spec)
    edges = split(Edges(), x)
    assert "input" not in translation_figures(model, edges)
    picture = translation_picture(model, edges)
    assert picture.shape == (8, 3, 3, 8, 8) and picture.dtype == torch.uint8
    assert torch.equal(picture[:, 2], x[:8])
    shown = (Edges()(x[:8], 17) > 0).to(torch.uint8) * 16
    assert torch.equal(picture[:, 0], shown.expand(-1, 3, -1, -1))


def test_the_picture_shows_input_prediction_and_truth():
    x = images() // 4 * 4  # blocks of four have whole means
    picture = translation_picture(does_nothing(), split(Downsample(2), x), torch.tensor([7, 3]))
    small = torch.nn.functional.avg_pool2d(x[[7, 3]].float(), 2)
    expected = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(picture[:, 0].float(), expected)
    assert torch.equal(picture[:, 1], picture[:, 0]) and torch.equal(picture[:, 2], x[[7, 3]])


def test_any_model_with_input_images_is_judged():
    """One that draws follows the generator."""
    model, pairs = DiffusionConfig(network=NETWORK).build(SPEC), split(Mask(), images(12))
    drawn = [
        translation_figures(model, pairs, generator=torch.Generator().manual_seed(seed))["l1"]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("spec", "pairs", "message"),
    [
        (DataSpec((1, 8, 8), 17, "vector", 64), TensorSplit(images()), "no input images: load them"),
        (DataSpec((1, 8, 8), 17, "vector", 5), split(Mask(), images()), "has no input images"),
        (DataSpec((1, 8, 8), 17), split(Mask(), images()), "has no input images"),
    ],
    ids=["data", "vectors", "unconditional"],
)
def test_what_has_no_input_images_is_refused(spec, pairs, message):
    with pytest.raises(GenzooError, match=message):
        translation_figures(DiffusionConfig(network=NETWORK).build(spec), pairs)


def test_one_image_tells_no_error():
    with pytest.raises(GenzooError, match="two images or more"):
        translation_figures(does_nothing(), split(Mask(), images(1)))
