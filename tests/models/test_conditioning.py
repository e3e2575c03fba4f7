"""An encoder's vectors as a condition: kept, checked, drawn for a picture, and drawn by a prior."""

import pytest
import torch
from PIL import Image

import genzoo
from genzoo.cli.sample_command import main as sample
from genzoo.cli.train_command import main as train
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.conditioning import condition_vectors, encoded
from genzoo.models.gan.generator_model import GANConfig
from genzoo.models.prior.with_prior import WithPriorConfig, flow_of_vectors
from genzoo.models.vae.vector_vae import VAEConfig
from genzoo.nn.gan_nets import DenseGANNetworks
from genzoo.nn.mlp import MLPConfig

TRAINING = TrainConfig(batch_size=8, precision="fp32")


@pytest.fixture(scope="module")
def digits():
    return genzoo.load_data("digits")


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("runs") / "encoder"
    genzoo.create_encoder("simclr", digits.spec, "tiny", seed=1).save(folder)
    return folder


def test_vectors_are_those_of_the_encoder(encoder_run, digits):
    data = encoded(digits, encoder_run)
    encoder = genzoo.load(encoder_run)
    assert data.spec == DataSpec((1, 8, 8), 17, "vector", encoder.width)
    first = encoder.embed(digits.test.images[:5])
    expected = first / first.norm(dim=1, keepdim=True) * encoder.width**0.5
    torch.testing.assert_close(data.test.labels[:5], expected)
    batch = data.train.batch(torch.tensor([7, 3]))
    assert torch.equal(batch.images, digits.train.images[[7, 3]])
    torch.testing.assert_close(batch.cond, condition_vectors(encoder, digits.train.images[[7, 3]]))
    assert data.protocol["test_id"] != digits.protocol["test_id"] and data.protocol["encoder"]["weights"]


def test_vectors_of_clip_are_those_shared_with_texts(tmp_path, digits):
    encoder = genzoo.create_encoder("clip", digits.spec, "tiny", seed=1)
    encoder.save(tmp_path)
    data = encoded(digits, tmp_path)
    assert encoder.shared_width != encoder.width
    assert data.spec == DataSpec((1, 8, 8), 17, "vector", encoder.shared_width)
    shared = encoder.embed_images_shared(digits.test.images)
    torch.testing.assert_close(data.test.labels, shared * encoder.shared_width**0.5)
    assert data.protocol["test_id"].endswith("-shared")
    kept = sorted((tmp_path / "vectors").iterdir())
    for path in kept:  # vectors of the backbone, as they would be called, are not taken for these
        path.rename(path.with_name(path.name.replace("-shared", "")))
    encoded(digits, tmp_path)
    assert len(kept) == 3 and len(list((tmp_path / "vectors").iterdir())) == 6


def test_vectors_are_computed_once_and_anew_where_the_file_is_damaged(encoder_run, digits):
    first = encoded(digits, encoder_run)
    kept = sorted((encoder_run / "vectors").iterdir())
    assert len(kept) == 3
    times = [path.stat().st_mtime_ns for path in kept]
    encoded(digits, encoder_run)
    assert [path.stat().st_mtime_ns for path in kept] == times
    kept[0].write_bytes(b"cut short")
    again = encoded(digits, encoder_run)
    assert all(
        torch.equal(again.split(name).labels, first.split(name).labels) for name in ("train", "val", "test")
    )


def test_runs_that_are_no_fitting_encoder_are_refused(tmp_path, encoder_run, digits):
    genzoo.create("vae", digits.spec, "tiny").save(tmp_path)
    with pytest.raises(GenzooError, match="holds no encoder"):
        encoded(digits, tmp_path)
    with pytest.raises(GenzooError, match="takes images"):
        encoded(genzoo.load_data("stacked-digits"), encoder_run)


def test_variations_of_a_picture(tmp_path, encoder_run, digits, capsys):
    run, picture = tmp_path / "run", tmp_path / "three.png"
    Image.fromarray((digits.test.images[0, 0] * 15).numpy()).resize((40, 40)).save(picture)
    flags = ["--size", "tiny", "--steps", "2", "--out", str(run), "--no-progress"]
    assert train(["vae", "--cond", f"encoder:{encoder_run}", *flags]) == 0
    assert sample([str(run), "--n", "4", "--like", str(picture)]) == 0
    assert (run / "samples" / "n4-likethree-seed0.png").exists()
    capsys.readouterr()
    for argv, words in (
        ([str(run), "--n", "4"], "--like"),
        ([str(run), "--like", str(tmp_path / "none.png")], "cannot read image"),
    ):
        with pytest.raises(SystemExit):
            sample(argv)
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_run_with_a_prior_draws_on_its_own(tmp_path, encoder_run, capsys):
    run = tmp_path / "run"
    flags = ["--size", "tiny", "--steps", "2", "--out", str(run), "--no-progress"]
    assert train(["vae", "--cond", f"encoder:{encoder_run}", "--prior", *flags]) == 0
    assert sample([str(run), "--n", "4"]) == 0
    assert (run / "samples" / "final.png").exists() and (run / "samples" / "n4-seed0.png").exists()
    assert train(["--resume", "--steps", "3", "--out", str(run), "--no-progress"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train(["vae", "--prior", "--steps", "2", "--out", str(tmp_path / "other")])
    assert "encoder:RUN" in capsys.readouterr().err


# --- a prior over the vectors --------------------------------------------------------------------------------------


SPEC = DataSpec((1, 4, 4), 4, "vector", 3)


def with_prior(generator=None):
    generator = generator or VAEConfig(
        latent_dim=2, channels=(8,), blocks=1, prior_components=2, training=TRAINING
    )
    prior = flow_of_vectors(MLPConfig(width=16, blocks=1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WithPriorConfig(generator, prior).build(SPEC).eval()


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=6):
    images = torch.randint(4, (n, 1, 4, 4), generator=rng(1), dtype=torch.uint8)
    return Batch(images, torch.randn(n, 3, generator=rng(2)))


def test_each_part_learns_what_it_would_learn_alone():
    model = with_prior()
    assert model.turns == ("prior", "model")
    found = model.loss(batch(), "prior", generator=rng())
    assert torch.equal(found.total, model.prior.loss(Batch(batch().cond), generator=rng()).total)
    found = model.loss(batch(), "model", generator=rng())
    assert torch.equal(found.total, model.generator.loss(batch(), generator=rng()).total)
    gan = with_prior(GANConfig(4, DenseGANNetworks(8, 1), training=TRAINING))
    assert gan.turns == ("prior", "discriminator", "generator")


def test_it_draws_with_and_without_vectors():
    model, cond = with_prior(), batch().cond
    assert torch.equal(
        model.sample(6, cond, generator=rng()), model.generator.sample(6, cond, generator=rng())
    )
    both = rng()
    drawn = model.generator.sample(6, model.prior.sample(6, generator=both), generator=both)
    assert torch.equal(model.sample(6, generator=rng()), drawn)


def test_the_prior_learns_the_law_of_the_vectors(tmp_path):
    model = with_prior()
    vectors = torch.randn(400, 3, generator=rng(3)) * 0.2 + torch.tensor([1.0, -1.0, 0.5])
    images = torch.zeros(400, 1, 4, 4, dtype=torch.uint8)
    model.fit((images, vectors), steps=150, progress=False)
    drawn = model.prior.sample(500, generator=rng())
    assert (drawn.mean(0) - vectors.mean(0)).abs().max() < 0.25
    model.save(tmp_path)
    assert torch.equal(genzoo.load(tmp_path).sample(3, generator=rng()), model.sample(3, generator=rng()))


def test_a_prior_needs_vectors():
    with pytest.raises(GenzooError, match="encoder:RUN"):
        WithPriorConfig(VAEConfig()).build(DataSpec((1, 4, 4), 4))
