"""The pictures of `evaluate`: they show what the models' own methods give, and every family has those it should."""

import pytest
import torch
from PIL import Image
from small_models import rng

from genzoo import create, load_data
from genzoo.core.spec import DataSpec
from genzoo.data.split import TensorSplit
from genzoo.evaluation.illustrations import _interpolations, _pairs, _reconstructions, illustrate
from genzoo.models.diffusion.samplers.sampling import Sampling
from genzoo.models.diffusion.samplers.solvers import Heun
from genzoo.models.diffusion.samplers.time_grids import LogSNRGrid
from genzoo.testing.probe import perturb

SPEC = DataSpec((1, 8, 8), 17)
CLASSES = DataSpec((1, 8, 8), 17, "class", 3)
RECONSTRUCTED, DENOISED, BETWEEN = "reconstructions.png", "denoising.png", "interpolations.png"
EXPECTED = {
    "pixelcnn": set(),
    "vae": {RECONSTRUCTED, BETWEEN},
    "hvae": {RECONSTRUCTED},
    "vqvae": {RECONSTRUCTED},
    "vq-transformer": {RECONSTRUCTED},
    "vqgan": {RECONSTRUCTED},
    "ddpm": {DENOISED, BETWEEN},
    "edm": {DENOISED, BETWEEN},
    "flow": {DENOISED, BETWEEN},
    "shortcut": {DENOISED},
    "gan": {BETWEEN},
}


def built(preset, spec, **fields):
    torch.manual_seed(0)
    return create(preset, spec, size="tiny", **fields).eval()


def some_images(n=40, labels=None):
    return TensorSplit(torch.randint(17, (n, 1, 8, 8), generator=rng(1)).to(torch.uint8), labels)


@pytest.mark.parametrize("spec", [SPEC, CLASSES], ids=["plain", "classes"])
@pytest.mark.parametrize("preset", EXPECTED)
def test_each_family_shows_what_it_can(preset, spec, tmp_path):
    images = some_images(labels=None if spec.cond is None else torch.arange(40) % 3)
    written = illustrate(built(preset, spec), images, tmp_path, generator=rng(0))
    assert {path.name for path in written} == EXPECTED[preset] == {p.name for p in tmp_path.iterdir()}
    for path in written:
        assert min(Image.open(path).size) > 50


def test_a_split_of_one_image_and_real_valued_data(tmp_path):
    vae = built("vae", SPEC)
    assert [path.name for path in illustrate(vae, some_images(1), tmp_path)] == [RECONSTRUCTED]
    points = load_data("toy:gaussian")
    assert illustrate(built("flow", points.spec), points.test, tmp_path) == []


def test_a_sample_comes_about_from_noise():
    model = perturb(built("flow", SPEC))
    picture = model.denoising_picture(3, columns=5, generator=rng(4))
    assert picture.shape == (6, 5, 1, 8, 8)
    sample = model.draw(3, generator=rng(4))
    assert torch.equal(picture[0::2, -1], sample) and torch.equal(picture[1::2, -1], sample)
    noise = model.noise(3, rng(4))
    assert torch.equal(picture[0::2, 0], model.scale.images(noise))  # sigma is 1 and alpha 0 at the start
    denoise = model.denoiser(None, model.config.sampling.precision)
    seen = denoise(noise, torch.ones(3, dtype=torch.float64)).x0
    assert torch.equal(picture[1::2, 0], model.scale.images(seen.detach()))
    assert not torch.equal(picture[1::2, 0], picture[0::2, 0])


def test_paths_of_exploding_variance_are_shown_in_the_range_of_images():
    model = built("edm", SPEC)
    first = model.denoising_picture(4, generator=rng(4))[0::2, 0]
    assert len(first.unique()) > 10  # noise of deviation 1, not black and white of deviation 80


def test_solvers_that_ask_twice_per_step_end_at_their_sample():
    sampling = Sampling(sampler=Heun(), grid=LogSNRGrid(last=0.01), steps=3)
    model = built("flow", SPEC, sampling=sampling)
    assert torch.equal(
        model.denoising_picture(2, generator=rng(4))[0::2, -1], model.draw(2, generator=rng(4))
    )


def test_a_shortcut_shows_one_noise_in_ever_more_calls():
    model = built("shortcut", SPEC, finest=8)
    picture = model.denoising_picture(2, generator=rng(4))
    assert picture.shape == (2, 4, 1, 8, 8)
    for column, steps in enumerate((1, 2, 4, 8)):
        assert torch.equal(picture[:, column], model.draw(2, steps=steps, generator=rng(4)))


@pytest.mark.parametrize("preset", ["vae", "vqvae", "vq-transformer"])
def test_reconstructions_stand_beside_their_images(preset):
    split, model = some_images(9), perturb(built(preset, SPEC))
    picture, spec = _reconstructions(model, split)
    images = split.batch(torch.arange(8)).images
    pairs = picture.flatten(0, 1).view(8, 2, 1, 8, 8)
    assert spec == SPEC and picture.shape[:2] == (2, 8) and torch.equal(pairs[:, 0], images)
    torch.testing.assert_close(pairs[:, 1].float(), model.reconstruct(images).float(), atol=1, rtol=0)


def test_a_way_between_images_ends_at_their_reconstructions():
    split, model = some_images(8), perturb(built("vae", SPEC))
    picture, _ = _interpolations(model, split, rng(0))
    images = split.batch(torch.arange(8)).images
    shown = model.reconstruct(images)
    torch.testing.assert_close(picture[:, 0].float(), shown[0::2].float(), atol=1, rtol=0)
    torch.testing.assert_close(picture[:, -1].float(), shown[1::2].float(), atol=1, rtol=0)


def test_a_way_between_latents_ends_at_their_images():
    model = perturb(built("gan", SPEC))
    picture, _ = _interpolations(model, some_images(8), rng(5))
    noise = rng(5)
    for column, z in ((0, model.noise(4, noise)), (-1, model.noise(4, noise))):
        torch.testing.assert_close(picture[:, column].float(), model.decode(z).float(), atol=1, rtol=0)


def test_ends_are_of_one_class_and_each_class_comes_first():
    labels = torch.tensor([0, 1, 2, 0, 1, 0, 2, 0])
    split = some_images(8, labels)
    starts, goals, cond = _pairs(CLASSES, split)
    assert cond.tolist() == [0, 1, 2]
    chosen = split.batch(torch.arange(8)).images
    assert torch.equal(starts, chosen[[0, 1, 2]]) and torch.equal(goals, chosen[[3, 4, 6]])


def test_without_classes_images_are_taken_in_turn():
    split = some_images(7)
    starts, goals, cond = _pairs(SPEC, split)
    chosen = split.batch(torch.arange(7)).images
    assert cond is None and torch.equal(starts, chosen[0:6:2]) and torch.equal(goals, chosen[1:6:2])
