"""Sampling by a text: resampling against enumeration, and a small clip encoder whose prior is asked for a three."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare
from small_models import built, rng
from torch.nn import functional as F

import genzoo
from genzoo.cli.sample_command import main as sample
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.core.spec import DataSpec
from genzoo.data.augmentations import Compose
from genzoo.data.image_grid import image_grid
from genzoo.models.conditioning import condition_vectors
from genzoo.models.encoders.clip import ClipConfig
from genzoo.models.gan.generator_model import GANConfig
from genzoo.models.prior.text_prior import (
    ENOUGH,
    effective_size,
    resampled,
    text_logits,
    vectors_for_text,
    without_replacement,
)
from genzoo.models.prior.with_prior import WithPriorConfig, flow_of_vectors
from genzoo.models.registry import get_preset
from genzoo.models.run_data import DataArguments
from genzoo.nn.backbones import ProjectionConfig, ResNetConfig
from genzoo.nn.conv_unet import ConvUNetConfig
from genzoo.nn.gan_nets import DenseGANNetworks
from genzoo.nn.mlp import MLPConfig
from genzoo.nn.text_tower import TextTowerConfig
from genzoo.objectives.image_text import Clip, SigLIP
from genzoo.training.trainer import Budget, RunOptions, Trainer

DIGITS = DataSpec((1, 8, 8), levels=17, cond="class", cond_size=10)


def clip(objective=None, widths=(8, 16), **training):
    training = TrainConfig(batch_size=64, learning_rate=3e-3, precision="fp32", warmup_steps=10, **training)
    text, head = TextTowerConfig(width=32, blocks=2, head_width=16), ProjectionConfig(16, 12, layers=1)
    objective = objective or Clip()
    return ClipConfig(Compose(), ResNetConfig(widths), text, head, objective, training=training)


# --- resampling ----------------------------------------------------------------------------------------------------

PRIOR = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64)
SCORES = torch.tensor([-1.0, 0.5, 0.0, 1.5, 2.0], dtype=torch.float64)
POSTERIOR = PRIOR * SCORES.exp() / (PRIOR * SCORES.exp()).sum()


def kept(n, pool, generator, scores=SCORES):
    """Values 0..4 that are kept, long `[n]`, where the prior draws from them by `PRIOR`."""

    def draw(count):
        return torch.multinomial(PRIOR, count, replacement=True, generator=generator)[:, None].double()

    found = resampled(draw, lambda v: scores[v[:, 0].long()], n, pool=pool, generator=generator)
    return found.vectors[:, 0].long()


def test_one_vector_has_the_law_of_the_posterior():
    generator = rng(1)
    values = torch.cat([kept(1, 400, generator) for _ in range(2500)])
    counts = values.bincount(minlength=5).numpy()
    assert chisquare(counts, 2500 * POSTERIOR.numpy()).pvalue > 0.01
    assert chisquare(counts, 2500 * PRIOR.numpy()).pvalue < 1e-9


def test_many_vectors_have_nearly_the_law_of_the_posterior():
    generator = rng(2)
    values = torch.cat([kept(50, 4000, generator) for _ in range(60)])
    torch.testing.assert_close(values.bincount(minlength=5) / 3000, POSTERIOR.float(), rtol=0, atol=0.03)


def test_equal_scores_leave_the_prior_as_it_is():
    generator = rng(3)
    values = torch.cat([kept(1, 200, generator, torch.zeros(5)) for _ in range(2000)])
    assert chisquare(values.bincount(minlength=5).numpy(), 2000 * PRIOR.numpy()).pvalue > 0.01


def test_draws_without_replacement_by_enumeration():
    """P(i, then j) = w_i w_j / (1 - w_i) of all ordered pairs of four."""
    w = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    expected = w[:, None] * w / (1 - w[:, None])
    generator, found = rng(4), torch.zeros(4, 4)
    for _ in range(4000):
        i, j = without_replacement(w.log() + 7, 2, generator)
        found[i, j] += 1
    apart = ~torch.eye(4, dtype=torch.bool)
    assert not found[~apart].any()
    assert chisquare(found[apart].numpy(), 4000 * expected[apart].numpy()).pvalue > 0.01


def test_effective_size_of_known_weights():
    assert effective_size(torch.full((7,), 80.0)) == pytest.approx(7)
    assert effective_size(torch.tensor([3.0, 1.0]).log()) == pytest.approx(16 / 10)
    scores = 0.8 * torch.randn(200_000, generator=rng(5))  # log-normal weights: share exp(-sigma^2)
    assert effective_size(scores) / 200_000 == pytest.approx(torch.tensor(-0.64).exp().item(), rel=0.03)


@pytest.mark.parametrize(
    ("share", "pool"), [(0.5, 64), (0.06, 256), (0.0, 2048)], ids=["common", "rare", "absent"]
)
def test_the_pool_grows_until_enough_fit(share, pool):
    generator = rng(6)

    def draw(count):
        return (torch.rand(count, 1, generator=generator) < share).float()

    found = resampled(draw, lambda v: 30 * v[:, 0], 2, pool=64, generator=generator)
    assert found.pool in (pool, 2 * pool) if share == 0.06 else found.pool == 64
    assert found.effective >= ENOUGH * 2 and (share == 0 or found.vectors.all())


def test_a_pool_that_never_suffices_is_told():
    """One vector outweighs all others, however many there are."""
    generator = rng(7)
    found = resampled(
        lambda count: torch.randn(count, 1, generator=generator), lambda v: 1e4 * v[:, 0], 3, pool=16
    )
    assert found.pool == 16 * 2**5 and found.effective < 2 and found.vectors.shape == (3, 1)


# --- what a text says of vectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [Clip(), SigLIP()], ids=["clip", "siglip"])
def test_logits_are_the_encoders_own(objective):
    encoder = built(clip(objective), DIGITS, spread=0.2)
    vectors = torch.randn(9, 12, generator=rng(8))
    text = encoder.embed_text(["a three"])[0]
    cosine = torch.tensor([F.cosine_similarity(v, text, dim=0) for v in vectors])
    expected = cosine * encoder.logits.log_scale.exp().item()
    found = text_logits(encoder, 5 * vectors, "a three")
    torch.testing.assert_close(found - found[0], expected - expected[0], rtol=1e-4, atol=1e-4)


def with_prior(generator=None, width=12):
    generator = generator or GANConfig(4, DenseGANNetworks(8, 1))
    config = WithPriorConfig(generator, flow_of_vectors(MLPConfig(width=32, blocks=1)))
    return built(config, DataSpec((1, 8, 8), 17, "vector", width), spread=0.1)


def test_vectors_are_the_priors_and_the_weight_counts():
    model, encoder = with_prior(), built(clip(), DIGITS, spread=0.2)
    first = model.prior.sample(100, generator=rng(9))
    found = {
        (text, weight): vectors_for_text(
            model, encoder, text, 5, pool=100, weight=weight, generator=rng(9)
        ).vectors
        for text in ("three", "eight")
        for weight in (0.0, 0.1)
    }
    for vectors in found.values():
        assert vectors.shape == (5, 12) and (vectors[:, None] == first).all(2).sum() == 5
    assert torch.equal(found["three", 0.0], found["eight", 0.0])
    assert not torch.equal(found["three", 0.1], found["eight", 0.1])
    whole = vectors_for_text(model, encoder, "three", 5, pool=100, weight=0.0, generator=rng(9))
    assert whole.effective == pytest.approx(100) and whole.pool == 100


@pytest.mark.parametrize(
    ("text", "width", "weight", "said"),
    [
        (" ", 12, 1.0, "is empty"),
        ("three", 16, 1.0, "train it anew"),
        ("three", 12, 1e5, "fits next to none of 1152 vectors"),
    ],
)
def test_texts_that_cannot_be_drawn(text, width, weight, said):
    model, encoder = with_prior(width=width), built(clip(), DIGITS, spread=0.2)
    with pytest.raises(GenzooError, match=said):
        vectors_for_text(model, encoder, text, 9, pool=2, weight=weight, generator=rng())


# --- the command, on digits ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return genzoo.load_data("digits")


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory, digits):
    """The run of a clip encoder that knows digits by their names."""
    folder = tmp_path_factory.mktemp("runs") / "clip"
    built(clip(widths=(16, 32)), digits.spec).fit(digits.train, steps=150, progress=False).save(folder)
    return folder


def generator_run(folder, encoder_run, generator, steps, prior=True):
    """A run folder as `genzoo train --cond encoder:RUN [--prior]` leaves it."""
    arguments = DataArguments("digits", cond=f"encoder:{encoder_run}")
    data = arguments.load()
    config = WithPriorConfig(generator, flow_of_vectors(MLPConfig(128, 2))) if prior else generator
    options = RunOptions(device="cpu", protocol=arguments.protocol(data))
    model = built(config, data.spec)
    Trainer(model, Budget(steps=steps), out=folder, progress=False, options=options).fit(data.train)
    return folder


def training(**fields):
    return TrainConfig(batch_size=64, precision="fp32", warmup_steps=10, **fields)


@pytest.fixture(scope="module")
def gan_run(tmp_path_factory, clip_run):
    gan = GANConfig(8, DenseGANNetworks(32, 1), training=training(learning_rate=2e-3))
    return generator_run(tmp_path_factory.mktemp("runs") / "gan", clip_run, gan, 200)


@pytest.fixture(scope="module")
def flow_run(tmp_path_factory, clip_run):
    network = ConvUNetConfig(fine=8, channels=(16, 16), blocks=1, attention=0)
    flow = replace(get_preset("flow").config("tiny", DIGITS), network=network, training=training())
    return generator_run(tmp_path_factory.mktemp("runs") / "flow", clip_run, flow, 20)


@pytest.mark.slow
def test_vectors_for_three_are_those_of_threes(digits, clip_run, gan_run):
    """Evaluated by the nearest class mean of the training images in the shared space."""
    model, encoder = genzoo.load(gan_run), genzoo.load(clip_run)
    vectors = condition_vectors(encoder, digits.train.images)
    means = torch.stack([vectors[digits.train.labels == k].mean(0) for k in range(10)])

    def share(drawn, k):
        return (F.normalize(drawn, dim=1) @ F.normalize(means, dim=1).T).argmax(1).eq(k).float().mean().item()

    assert share(model.prior.sample(256, generator=rng()), 3) < 0.25
    for k, text in ((3, "a photo of a three"), (7, "seven")):
        found = vectors_for_text(model, encoder, text, 32, generator=rng(1))
        assert share(found.vectors, k) > 0.8
        assert 32 * ENOUGH <= found.effective < 0.5 * found.pool


@pytest.mark.slow
def test_the_command_draws_by_a_text(gan_run, clip_run, capsys):
    assert sample([str(gan_run), "--text", "A three!", "--n", "4"]) == 0
    shown = capsys.readouterr().out
    assert '"A three!": 2048 vectors of the prior, ' in shown and "4 images" in shown
    picture = gan_run / "samples" / "n4-texta_three-seed0.png"
    assert Image.open(picture).size == (2 * 65 + 1, 2 * 65 + 1)
    first = picture.read_bytes()
    assert sample([str(gan_run), "--text", "a three!", "--n", "4"]) == 0  # letters of either case are one
    assert picture.read_bytes() == first
    assert sample([str(gan_run), "--text", "eight", "--n", "4"]) == 0
    assert (gan_run / "samples" / "n4-texteight-seed0.png").read_bytes() != first


def test_guidance_and_steps_reach_the_generator(flow_run, clip_run):
    out = flow_run / "guided.png"
    flags = ["--text", "three", "--n", "4", "--steps", "3", "--guidance", "2.5", "--out", str(out)]
    assert sample([str(flow_run), *flags]) == 0
    model, encoder = genzoo.load(flow_run), genzoo.load(clip_run)
    vectors = vectors_for_text(model, encoder, "three", 4, generator=seeded("cpu", "text", 0)).vectors
    sampling = model.generator.config.sampling
    for guidance, same in ((2.5, True), (1.0, False)):
        images = model.generator.draw(
            4, vectors, sampling=replace(sampling, steps=3, guidance=guidance), generator=seeded("cpu", "sample", 0)
        )  # fmt: skip
        assert np.array_equal(np.array(Image.open(out)), image_grid(images, 17).numpy()) == same


def refused(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        sample([str(a) for a in argv])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    return error


def test_one_thing_is_asked_for_at_a_time(gan_run, capsys):
    for other in (["--cond", "3"], ["--like", "three.png"]):
        assert "give one of them" in refused([gan_run, "--text", "three", *other], capsys)
    assert "is empty" in refused([gan_run, "--text", ""], capsys)
    assert "--guidance is for diffusion" in refused([gan_run, "--text", "three", "--guidance", "2"], capsys)


def test_runs_that_cannot_draw_by_a_text(tmp_path, digits, clip_run, capsys):
    vae = get_preset("vae").config("tiny", DIGITS)
    plain = generator_run(tmp_path / "plain", clip_run, vae, 1, prior=False)
    assert f"encoder:{clip_run} --prior" in refused([plain, "--text", "three"], capsys)
    genzoo.create_encoder("simclr", digits.spec, "tiny").save(tmp_path / "simclr")
    other = generator_run(tmp_path / "other", tmp_path / "simclr", vae, 1)
    genzoo.create("vae", digits.spec, "tiny").save(tmp_path / "alone")
    for run in (other, tmp_path / "alone"):
        assert "a run of clip" in refused([run, "--text", "three"], capsys)
