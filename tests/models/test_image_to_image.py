"""Image-to-image: the contract, what each player is shown, and what the pixel loss alone asks for."""

import json
from dataclasses import replace

import pytest
import torch
from commands import run
from PIL import Image
from small_models import built

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.spec import Batch, DataSpec
from genzoo.data import load_data
from genzoo.evaluation.translation import l1_distances
from genzoo.models.gan.image_to_image import ImageToImageConfig, given_channels
from genzoo.models.input_pictures import input_images
from genzoo.models.registry import create, every_preset
from genzoo.nn.conv_unet import ConvUNetConfig
from genzoo.nn.patch_discriminator import PatchDiscriminatorConfig
from genzoo.objectives.adversarial import R1, R2, Hinge, Lazy, LeastSquares, RelativisticPaired
from genzoo.testing import check_model

PRESETS = every_preset()

NETWORK = ConvUNetConfig(fine=4, channels=(8,), blocks=1, attention=0)
JUDGE = PatchDiscriminatorConfig(channels=(8, 8))
GREY = DataSpec((1, 4, 4), 2, "vector", 16)
COLOURED = DataSpec((3, 5, 6), 256, "vector", 30)
PLAIN = TrainConfig(batch_size=16, learning_rate=1e-2, weight_decay=0.0, ema_fraction=0.0, precision="fp32")


def config(**fields):
    return ImageToImageConfig(network=NETWORK, discriminator=JUDGE, **fields)


def example(spec, n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(spec.levels, (n, *spec.shape), generator=generator).to(torch.uint8)
    return Batch(images, 2 * torch.rand(n, spec.cond_size, generator=generator) - 1)


# --- the contract --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "spec"),
    [
        ({}, GREY),
        ({"adversarial_weight": 0.0}, GREY),
        ({"loss": Hinge(), "penalties": (Lazy(R1(), every=2),)}, COLOURED),
        ({"adversarial_weight": 0.0, "residual": False}, DataSpec((1, 1, 9), 17, "vector", 27)),
        (
            {"loss": LeastSquares(), "pixel_weight": 0.0, "penalties": ()},
            DataSpec((3, 3, 4), 256, "vector", 36),
        ),
    ],
    ids=["grey", "l1", "from one channel to three", "from three channels to one", "adversarial alone"],
)
def test_conformance(fields, spec):
    check_model(built(config(**fields), spec))


def test_no_likelihood_says_why_and_what_instead():
    with pytest.raises(NoLikelihood, match=r"probability 0.*same --cond"):
        built(config(), GREY).log_likelihood(*example(GREY))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DataSpec((1, 4, 4), 2), "image-to-image needs an input image: give --cond mask"),
        (DataSpec((1, 4, 4), 2, "class", 3), "needs an input image"),
        (DataSpec((1, 4, 4), 2, "vector", 15), "15 is no multiple of 16"),
        (DataSpec((4,), None, "vector", 4), "needs images"),
    ],
)
def test_specs_that_hold_no_input_image(spec, message):
    for preset in ("image-to-image", "image-to-image-l1"):
        with pytest.raises(GenzooError, match=message):
            create(preset, spec, "tiny")


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -1.0), (0.0, 0.0)])
def test_weights_that_cannot_be(weights):
    with pytest.raises(GenzooError, match="weights of at least 0"):
        config(pixel_weight=weights[0], adversarial_weight=weights[1]).build(GREY)


def test_the_vector_is_the_input_image():
    assert [given_channels(s) for s in (GREY, COLOURED, DataSpec((1, 2, 3), 9, "vector", 18))] == [1, 1, 3]


# --- losses --------------------------------------------------------------------------------------------------------


def test_the_losses_are_those_of_their_parts():
    """Both turns put together by hand from the model's own networks."""
    rule, penalties = RelativisticPaired(), (Lazy(R1(0.7)), Lazy(R2(0.2)))
    model = built(
        config(loss=rule, penalties=penalties, pixel_weight=3.0, adversarial_weight=0.5), GREY, spread=0.2
    )
    batch = example(GREY)
    real, y = (2 * batch.images.float() + 1) / 2 - 1, batch.cond.view(6, 1, 4, 4)
    fake = (model.network(y, torch.zeros(6)) + y).detach()

    def critic(x):
        return model.discriminator(x, y)

    found = model.loss(batch, "discriminator")
    price = R1(0.7)(critic, real, fake) + R2(0.2)(critic, real, fake)
    torch.testing.assert_close(found.parts["penalty"], price)
    by_hand = rule.discriminator(critic(real), critic(fake)).flatten(1).mean(1) + price
    torch.testing.assert_close(found.total, by_hand)
    found = model.loss(batch, "generator")
    torch.testing.assert_close(found.parts["l1"], (real - fake).abs().mean((1, 2, 3)))
    torch.testing.assert_close(
        found.parts["adversarial"], rule.generator(critic(real), critic(fake)).flatten(1).mean(1)
    )
    torch.testing.assert_close(found.total, 3 * found.parts["l1"] + 0.5 * found.parts["adversarial"])


def test_each_turn_trains_its_player_only():
    model = built(config(), GREY, spread=0.2)
    for turn, own, other in [
        ("discriminator", model.discriminator, model.network),
        ("generator", model.network, model.discriminator),
    ]:
        model.zero_grad(set_to_none=True)
        model.loss(example(GREY), turn).total.mean().backward()
        assert any(p.grad is not None and p.grad.any() for p in own.parameters())
        assert all(p.grad is None for p in other.parameters())


def test_without_adversarial_weight_it_is_regression():
    """No discriminator; the same loss, step for step, as the mean distance under plain Adam."""
    model = built(config(adversarial_weight=0.0, pixel_weight=1.0), GREY)
    assert model.discriminator is None and model.turns == ("generator",)
    with pytest.raises(ValueError, match="unknown turn"):
        model.loss(example(GREY), "discriminator")
    torch.manual_seed(0)
    network = NETWORK.build((1, 4, 4), 1, 0)
    batch = example(GREY)
    real, y = batch.images.float() - 0.5, batch.cond.view(6, 1, 4, 4)
    optimisers = [torch.optim.Adam(m.parameters(), 1e-2) for m in (model, network)]
    for _ in range(20):
        losses = [model.loss(batch).total.mean(), (network(y, torch.zeros(6)) + y - real).abs().mean()]
        torch.testing.assert_close(*losses)
        for loss, optimiser in zip(losses, optimisers, strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert losses[0] < 0.6


def test_an_adversarial_weight_of_nearly_0_changes_nothing_but_the_turns():
    plain, with_judge = (built(config(adversarial_weight=w), GREY, spread=0.0) for w in (0.0, 1e-12))
    gradients = []
    for model in (plain, with_judge):
        model.loss(example(GREY), "generator").total.mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.network.parameters()]))
    torch.testing.assert_close(*gradients)


def test_the_discriminator_sees_the_input():
    """Pairs that are told apart by whether they belong together only: x = y or x = -y, each as likely."""
    spec = DataSpec((1, 4, 4), 2, "vector", 16)
    model = built(config(penalties=()), spec).train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.discriminator.parameters(), 3e-3)
    for _ in range(150):
        y = torch.randint(2, (32, 1, 1, 1), generator=generator).expand(-1, 1, 4, 4) - 0.5
        right, wrong = model.discriminator(y, y), model.discriminator(-y, y)
        loss = RelativisticPaired().discriminator(right, wrong).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (right > wrong).float().mean() > 0.9 and loss < 0.3
    batch = Batch((y > 0).to(torch.uint8), y.flatten(1))
    with torch.no_grad():  # the model predicts y, for its network is 0 yet: nothing tells the two apart
        assert model.eval().loss(batch, "discriminator").parts["gap"].abs().max() < 1e-5
        swapped = Batch(batch.images, -batch.cond)
        assert (model.loss(swapped, "discriminator").parts["gap"] < 0).all()  # now only the fakes belong


# --- what the pixel loss asks for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "median"), [(0.75, 16), (0.25, 0)])
def test_the_best_constant_under_l1_is_the_median(share, median):
    """Images of level 16 with probability `share`, else 0, and an input that says nothing; means would be between."""
    spec = DataSpec((1, 4, 4), 17, "vector", 16)
    generator = torch.Generator().manual_seed(0)
    images = 16 * (torch.rand(400, 1, 1, 1, generator=generator) < share).expand(-1, 1, 4, 4).to(torch.uint8)
    model = built(config(adversarial_weight=0.0, training=PLAIN), spec)
    model.fit((images.contiguous(), torch.zeros(400, 16)), steps=150, progress=False)
    drawn = model.sample(3, torch.zeros(3, 16))
    assert (drawn.long() - median).abs().max() <= 1


# --- samples and training ------------------------------------------------------------------------------------------


def test_predictions_do_not_depend_on_how_many_fit_into_a_pass():
    model, cond = built(config(), COLOURED, spread=0.1), example(COLOURED, 7).cond
    whole = model.sample(7, cond)
    model.chunk = 3
    assert (model.sample(7, cond).long() - whole.long()).abs().max() <= 1
    assert model.sample(0, cond[:0]).shape == (0, 3, 5, 6)


def test_half_precision_gives_nearly_the_same_losses():
    model = built(config(), COLOURED, spread=0.1)
    for turn in model.turns:
        exact = model.loss(example(COLOURED), turn).total
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.loss(example(COLOURED), turn).total
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)
        rough.mean().backward()


def test_the_presets_differ_in_the_adversarial_term_alone():
    for size, both in PRESETS["image-to-image"].sizes.items():
        assert replace(both, adversarial_weight=0.0) == PRESETS["image-to-image-l1"].sizes[size]
        assert both.adversarial_weight > 0


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["image-to-image", "image-to-image-l1"])
def test_presets_learn_to_sharpen(preset):
    """Digits in four blocks of means: after a short training much nearer to the truth than those are."""
    data = load_data("digits", cond="downsample")
    model = create(preset, data.spec, "tiny")
    model.fit(data.train, val=data.val, steps=50, progress=False)
    images, cond = data.test.batch(torch.arange(300))
    found = l1_distances(model.sample(300, cond), images, data.spec).mean()
    assert (
        found < 0.7 * l1_distances(input_images(cond.view(300, 1, 8, 8), data.spec), images, data.spec).mean()
    )


# --- commands ------------------------------------------------------------------------------------------------------


SHORT = ["--size", "tiny", "--no-progress", "--device", "cpu", "--training.batch-size", 8]
SHORT += ["--training.validations", 1, "--training.validation-images", 64]
TILE = 65  # an image of 8 pixels, enlarged, and the line beside it


def test_a_run_on_pairs_is_trained_resumed_and_shown(tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", "image-to-image", "--cond", "mask", "--steps", 3, "--out", out, *SHORT) == 0
    assert "probability 0" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["arguments"]["cond"] == "mask" and config["data"]["input"]["cond"] == "mask"
    assert Image.open(out / "samples" / "final.png").size == (
        12 * TILE + 1,
        8 * TILE + 1,
    )  # 32 threes, 4 in a row
    assert Image.open(out / "samples" / "step_0000003.png").size == (12 * TILE + 1, 2 * TILE + 1)
    assert run("train", "--resume", "--steps", 5, "--out", out) == 0
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 5
    png = tmp_path / "five.png"
    assert run("sample", out, "--n", 5, "--seed", 1, "--out", png) == 0
    assert Image.open(png).size == (12 * TILE + 1, 2 * TILE + 1)
    assert run("sample", out, "--n", 9999) == 2
    assert "only 359 input images" in capsys.readouterr().err


def test_samples_for_vectors_that_no_run_knows_are_refused(tmp_path, capsys):
    create("image-to-image-l1", GREY, "tiny").save(tmp_path / "model")
    assert run("sample", tmp_path / "model") == 2
    assert "model.sample(n, cond=vectors)" in capsys.readouterr().err


def test_any_family_trains_on_pairs(tmp_path):
    out = tmp_path / "pixels"
    assert run("train", "pixelcnn", "--cond", "edges", "--steps", 2, "--out", out, *SHORT) == 0
    (test_id,) = json.loads((out / "report.json").read_text())["likelihood"]
    assert test_id.endswith(",input=edges")  # P(image | input) is not to be compared with P(image)
    assert Image.open(out / "samples" / "final.png").size == (12 * TILE + 1, 8 * TILE + 1)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["image-to-image"], ["needs an input image: give --cond mask"]),
        (["image-to-image", "--cond", "class"], ["needs an input image"]),
        (["image-to-image", "--cond", "blur"], ["'blur'", "class", "mask", "folder:INPUTS"]),
        (["image-to-image", "--cond", "grey"], ["nothing to colour"]),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch, capsys, argv, words):
    monkeypatch.chdir(tmp_path)
    assert run("train", *argv, "--steps", 2) == 2
    error = capsys.readouterr().err
    assert error.startswith("genzoo: error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error
    assert list(tmp_path.iterdir()) == []
