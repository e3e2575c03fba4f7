"""Decoding by the mean: closed forms, what it leaves alone, and which models have none."""

import pytest
import torch
from small_models import built, images, rng

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.models.base import decoded
from genzoo.models.prior.with_prior import WithPriorConfig
from genzoo.models.registry import get_preset
from genzoo.models.vae.hierarchical_vae import HVAEConfig
from genzoo.models.vae.vector_vae import VAEConfig
from genzoo.models.vq.vqvae import VQVAEConfig
from genzoo.nn.quantisers import QuantiserConfig
from genzoo.objectives.decoding import Decoding
from genzoo.objectives.pixels import Bernoulli, Categorical, LogisticMixture

SMALL = DataSpec((1, 4, 4), levels=4)
VAE = VAEConfig(latent_dim=2, channels=(4,), blocks=1, prior_components=0)
HVAE = HVAEConfig(
    top=2, prior_components=0, channels=(4,), latent_channels=(2,), groups=(1,), blocks=1, head=4
)
VQVAE = VQVAEConfig(channels=(4,), blocks=1, quantiser=QuantiserConfig(codebook_size=4))
WITH_DECODER = {"vae": VAE, "hvae": HVAE, "vqvae": VQVAE}
PRESETS_WITH_DECODER = ("vae", "hvae", "vqvae", "vq-transformer", "vqgan")
OTHERS = {
    "pixelcnn": "draws each pixel given those before it",
    "pixel-transformer": "draws each pixel given those before it",
    "gan": "its generator gives images",
    "ddpm": "ends at a clean image",
    "flow": "ends at a clean image",
    "shortcut": "ends at a clean image",
}


def model_of(name):
    return built(WITH_DECODER[name], SMALL, spread=0.3)


# --- closed forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", [Bernoulli(), Categorical(5), LogisticMixture(9, 2)], ids=repr)
def test_a_mean_is_the_nearest_level_to_the_expectation_over_all_levels(distribution):
    levels = torch.arange(distribution.levels)
    params = 2 * torch.randn(50, distribution.n_params, generator=rng(), dtype=torch.float64)
    each = params[:, None].expand(-1, len(levels), -1)
    expected = distribution.log_prob(each, levels.expand(50, -1)).exp() @ levels.double()
    found = Decoding.MEAN.images(distribution, params)
    assert found.dtype == torch.uint8 and torch.equal(found, expected.round().to(torch.uint8))


@pytest.mark.parametrize("distribution", [Bernoulli(), Categorical(5), LogisticMixture(17, 2)], ids=repr)
def test_of_a_point_mass_draw_and_mean_are_one(distribution):
    params = torch.zeros(60, distribution.n_params)
    if isinstance(distribution, LogisticMixture):
        params[:, 0] = 1e4  # the first of two components ...
        params[:, 2] = torch.linspace(-1, 2, 60)  # ... in places all over the range and beyond it ...
        params[:, 4:] = -1e4  # ... as narrow as they can be
    else:
        params[torch.arange(60), torch.arange(60) % distribution.n_params] = 1e4
        params[::7] *= -1 if distribution.n_params == 1 else 1
    draw, mean = (how.images(distribution, params, rng()) for how in (Decoding.DRAW, Decoding.MEAN))
    assert torch.equal(draw, mean) and len(mean.unique()) > 1


@pytest.mark.parametrize("name", WITH_DECODER)
def test_a_decoder_that_is_certain_draws_its_mean(name):
    model = model_of(name)
    with torch.no_grad():
        layers = [m for m in model.decoder.modules() if isinstance(m, torch.nn.Conv2d)]
        last = next(m for m in reversed(layers) if m.out_channels == 4)
        last.weight.mul_(1e6)
        last.bias.mul_(1e6)
    draw = model.sample(20, generator=rng())
    model.decoding = "mean"
    assert torch.equal(model.sample(20, generator=rng()), draw) and len(draw.unique()) > 1


def test_the_mean_is_what_many_draws_average_to():
    """Of one code: 20,000 draws against the mean before it is rounded."""
    model = model_of("vqvae")
    codes = torch.randint(4, (1, *model.grid), generator=rng())
    many = model.decode(codes.expand(20_000, -1, -1), generator=rng()).double().mean(0)
    model.decoding = Decoding.MEAN
    mean = model.decode(codes)[0].double()
    assert ((many - mean).abs() < 0.5 + 0.03).all()


# --- samples -----------------------------------------------------------------------------------------------------


def test_means_do_not_depend_on_other_images():
    """All latents come before the first pixel, and nothing is drawn after them: parts of any size are alike."""
    vae, vqvae = model_of("vae"), model_of("vqvae")
    vae.decoding = vqvae.decoding = "mean"
    together = vae.sample(5, generator=rng())
    vae.chunk = 1
    assert torch.equal(vae.sample(5, generator=rng()), together)
    codes = torch.randint(4, (5, *vqvae.grid), generator=rng())
    alone = torch.cat([vqvae.decode(row[None]) for row in codes])
    assert torch.equal(vqvae.decode(codes), alone)


@pytest.mark.parametrize("name", PRESETS_WITH_DECODER)
def test_presets_with_a_decoder_give_means(name):
    model = genzoo.create(name, SMALL, "tiny")
    assert model.decoding is Decoding.DRAW
    model.decoding = "mean"
    assert model.decoding is Decoding.MEAN and model.decoder_part._decoding is Decoding.MEAN
    found = model.sample(3, generator=rng())
    assert found.shape == (3, 1, 4, 4) and found.dtype == torch.uint8 and int(found.max()) < 4


def test_likelihoods_and_reconstructions_are_left_alone():
    model, x = model_of("vae"), images(4, SMALL)
    before = model.log_likelihood(x, generator=rng()).nats, model.reconstruct(x)
    with decoded(model, Decoding.MEAN):
        after = model.log_likelihood(x, generator=rng()).nats, model.reconstruct(x)
    assert all(map(torch.equal, before, after)) and model.decoding is Decoding.DRAW


def test_the_prior_of_a_latent_model_draws_in_any_case():
    """Its tokens have no mean: they are names of codes."""
    config = get_preset("vq-transformer").config("tiny", SMALL)
    model = built(config, SMALL, spread=0.3)
    model.decoding = "mean"
    tokens = model.prior.sample(6, generator=rng())
    assert model.prior.decoding is Decoding.DRAW and len(tokens.unique()) > 1
    assert torch.equal(model.sample(6, generator=rng()), model.tokenizer.decode(tokens))


def test_a_model_with_a_prior_decodes_as_its_generator():
    spec = DataSpec((1, 4, 4), levels=4, cond="vector", cond_size=3)
    model = built(WithPriorConfig(VAE), spec)
    model.decoding = "mean"
    assert model.generator.decoding is Decoding.MEAN
    other = built(WithPriorConfig(get_preset("flow").config("tiny", spec)), spec)
    with pytest.raises(GenzooError, match="ends at a clean image"):
        other.decoding = "mean"


def test_decoding_is_not_saved(tmp_path):
    model = genzoo.create("vae", SMALL, "tiny")
    model.decoding = "mean"
    model.save(tmp_path / "run")
    assert genzoo.load(tmp_path / "run").decoding is Decoding.DRAW


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_models_without_a_decoder_say_why(name):
    model = genzoo.create(name, SMALL, "tiny")
    with pytest.raises(GenzooError, match=OTHERS[name]) as refusal:
        model.decoding = "mean"
    assert "\n" not in str(refusal.value) and model.decoding is Decoding.DRAW
    model.decoding = "draw"  # which is what they do
    assert model.decoding is Decoding.DRAW


@pytest.mark.parametrize("name", ["median", "", None, 1, "MEAN", ["mean"]])
def test_other_decodings_are_refused(name):
    model = genzoo.create("vae", SMALL, "tiny")
    with pytest.raises(GenzooError, match="decoding is draw or mean, got"):
        model.decoding = name
