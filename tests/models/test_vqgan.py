"""VQGAN: the adaptive weight against autograd by hand, nothing but a VQ-VAE at weight 0, turns that keep apart."""

import copy
from dataclasses import replace

import pytest
import torch
from crashes import Crash, assert_same_runs, crashing
from enumeration import perturbed

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.autoregressive.pixel_models import HeadConfig, PixelTransformerConfig
from genzoo.models.gan.generator_model import GANConfig
from genzoo.models.loading import load_model
from genzoo.models.vq.latent_model import LatentConfig
from genzoo.models.vq.vqgan import MOST_PER_DIM, VQGANConfig, adaptive_weight
from genzoo.models.vq.vqvae import VQVAEConfig
from genzoo.nn.patch_discriminator import PatchDiscriminatorConfig
from genzoo.nn.quantisers import QuantiserConfig
from genzoo.objectives.adversarial import R1, Hinge, Lazy
from genzoo.objectives.perceptual import feature_distance
from genzoo.testing import yield_checks
from genzoo.training.checkpoint import load_state
from genzoo.training.trainer import Budget, RunOptions, Trainer

VQ = VQVAEConfig(channels=(8,), blocks=1, quantiser=QuantiserConfig(codebook_size=4, width=3), neighbours=2)
TRAINING = TrainConfig(batch_size=16, precision="fp32", learning_rate=3e-3, validations=2)
TINY = VQGANConfig(VQ, PatchDiscriminatorConfig((6,)), penalties=(Lazy(R1(1.0), every=3),), training=TRAINING)
HEAD = HeadConfig(width=16, code_width=6, output="categorical")
PRIOR = PixelTransformerConfig(group=1, width=16, head_width=16, blocks=1, head=HEAD)
LATENT = LatentConfig(TINY, PRIOR, training=TRAINING)
SPEC = DataSpec((1, 6, 5), 8)
RGB = DataSpec((3, 4, 4), 256, cond="class", cond_size=3)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def built(config=TINY, spec=SPEC, spread=0.3):
    torch.manual_seed(0)
    return perturbed(config.build(spec), spread).train()


def images(n=8, spec=SPEC, seed=0):
    return torch.randint(spec.levels, (n, *spec.shape), generator=rng(seed)).to(torch.uint8)


def snapshot(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


# --- the contract --------------------------------------------------------------------------------------------------


MODELS = {
    "binary": (TINY, DataSpec((1, 4, 4), 2)),
    "rgb class": (replace(TINY, loss=Hinge(), feature_weight=0.0), RGB),
    "latent": (LATENT, DataSpec((1, 4, 4), 2, cond="class", cond_size=2)),
}
CHECKS = [
    pytest.param(check, id=f"{name}-{check}")
    for name, (config, spec) in MODELS.items()
    for check in yield_checks(built(config, spec, 0.0))
]


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check):
    result = check.run()
    assert result.ok, result.message


def test_everything_but_training_is_the_autoencoders():
    model = built().eval()
    inner, x = model.autoencoder, images()
    assert model.likelihood is inner.likelihood is LikelihoodKind.LOWER_BOUND
    assert torch.equal(model.sample(5, generator=rng(1)), inner.sample(5, generator=rng(1)))
    assert torch.equal(model.log_likelihood(x).nats, inner.log_likelihood(x).nats)
    assert torch.equal(model.reconstruct(x), inner.reconstruct(x))
    assert model.latent_figures(x) == inner.latent_figures(x)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"adversarial_weight": -1.0}, "adversarial_weight of VQGANConfig must be a number from 0"),
        ({"feature_weight": -1.0}, "feature_weight of VQGANConfig must be a number from 0"),
        ({"adversarial_start": 1.0}, "weights of at least 0"),
    ],
)
def test_configurations_that_cannot_be(fields, message):
    with pytest.raises(GenzooError, match=message):
        replace(TINY, **fields).build(SPEC)


# --- losses --------------------------------------------------------------------------------------------------------


def test_the_autoencoders_loss_by_hand():
    """nll + commitment + features + w lambda adv, from a twin's own networks; lambda is a ratio of two gradients."""
    model, x = built(), images()
    with torch.no_grad():
        model.discriminator.head.weight.mul_(300)  # sure enough of itself to need no clamp
    twin = copy.deepcopy(model)
    found = model.loss(Batch(x), "autoencoder", generator=rng(1))
    plain, params = twin.autoencoder.loss_and_params(Batch(x), rng(1))
    probabilities = params.softmax(-1)
    mean = (probabilities * torch.arange(8)).sum(-1)
    shown = mean + (mean.round() - mean).detach()
    fake, real = (2 * shown + 1) / 8 - 1, (2 * x.float() + 1) / 8 - 1
    distance = feature_distance(twin.discriminator.maps(fake), twin.discriminator.maps(real))
    logits = twin.discriminator(real) - twin.discriminator(fake)
    adv = torch.nn.functional.softplus(logits).mean((1, 2))
    rec = plain.parts["nll"] + TINY.feature_weight * 30 * distance
    layer = twin.autoencoder.decoder.up[0].weight
    sizes = [
        torch.autograd.grad(v.mean(), layer, retain_graph=True)[0].square().sum().sqrt() for v in (rec, adv)
    ]
    balance = sizes[0] / sizes[1]
    assert 1e-3 < balance < MOST_PER_DIM * 30
    torch.testing.assert_close(found.parts["balance"], balance.detach().expand(8))
    torch.testing.assert_close(found.parts["features"], distance)
    torch.testing.assert_close(found.parts["adversarial"], adv)
    total = rec + plain.parts["commitment"] + TINY.adversarial_weight * balance.detach() * adv
    torch.testing.assert_close(found.total, total)
    found.total.mean().backward()
    wanted = torch.autograd.grad(total.mean(), list(twin.autoencoder.parameters()))
    for p, gradient in zip(model.autoencoder.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


def test_the_adversarial_gradient_is_a_set_share_of_the_reconstructions():
    """What the adaptive weight is for: at the last layer, and whatever units the discriminator speaks in."""
    model, x = built(replace(TINY, feature_weight=0.0, adversarial_weight=0.7)), images()
    with torch.no_grad():
        model.discriminator.head.weight.mul_(300)
    found = model.loss(Batch(x), "autoencoder", generator=rng(1))
    layer = model.autoencoder.decoder.up[0].weight
    rest = found.parts["nll"] + found.parts["commitment"]
    parts = (found.total - rest).mean(), found.parts["nll"].mean()
    adv, rec = (torch.autograd.grad(v, layer, retain_graph=True)[0].norm() for v in parts)
    assert (adv / rec).item() == pytest.approx(0.7, rel=1e-3)


def test_the_adaptive_weight_of_known_gradients():
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    ratio = adaptive_weight(6 * w.sum(), (w**2).sum() / 2, w, most=100.0)
    assert ratio.item() == pytest.approx(6 * 2**0.5 / 5) and not ratio.requires_grad
    assert adaptive_weight(6 * w.sum(), (w**2).sum() / 2, w, most=1.5).item() == 1.5
    assert adaptive_weight(w.sum(), 0 * w.sum(), w, most=7.0).item() == 7.0


def test_a_discriminator_at_a_loss_is_not_blown_up():
    model, x = built(), images()
    with torch.no_grad():
        model.discriminator.head.weight.mul_(1e-3)
    found = model.loss(Batch(x), "autoencoder", generator=rng(1))
    assert found.parts["balance"].tolist() == pytest.approx([MOST_PER_DIM * 30] * 8)


def test_weight_0_leaves_a_vqvae():
    """Loss, gradients and codebook bit for bit."""
    model, x = built(replace(TINY, adversarial_weight=0.0, feature_weight=0.0)), images()
    plain = copy.deepcopy(model.autoencoder)
    losses = [
        m.loss(Batch(x), turn, generator=rng(1)) for m, turn in ((model, "autoencoder"), (plain, "model"))
    ]
    for loss in losses:
        loss.total.mean().backward()
    assert torch.equal(losses[0].total, losses[1].total) and losses[0].parts.keys() == losses[1].parts.keys()
    pairs = zip(model.autoencoder.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(p.grad, q.grad) for p, q in pairs)
    assert equal(snapshot(model.autoencoder), snapshot(plain))
    assert all(p.grad is None for p in model.discriminator.parameters())


def test_the_discriminator_judges_what_is_shown_and_touches_nothing_else():
    """Whatever mode the model is in: no gradient for the autoencoder, and none of its buffers moves."""
    model, x = built(), images()
    before = snapshot(model.autoencoder)
    found = model.loss(Batch(x), "discriminator", generator=rng(1))
    found.total.mean().backward()
    assert equal(before, snapshot(model.autoencoder)) and model.autoencoder.training
    assert all(p.grad is None for p in model.autoencoder.parameters())
    assert any(p.grad.any() for p in model.discriminator.parameters())
    fake, real = ((2 * v.float() + 1) / 8 - 1 for v in (model.autoencoder.reconstruct(x), x))
    gap = (model.discriminator(real) - model.discriminator(fake)).mean((1, 2))
    torch.testing.assert_close(found.parts["gap"], gap.detach())
    model.zero_grad()
    before = snapshot(model.discriminator)
    model.loss(Batch(x), "autoencoder", generator=rng(1)).total.mean().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.discriminator.parameters())
    assert equal(before, snapshot(model.discriminator)) and int(model.game.d_steps) == 1


def test_before_its_start_the_discriminator_says_nothing():
    model, x = built(replace(TINY, adversarial_start=0.4)), images()
    assert model.span_of("discriminator") == (0.4, 1.0) and model.span_of("autoencoder") == (0.0, 1.0)
    model.progress = 0.39
    early = model.loss(Batch(x), "autoencoder", generator=rng(1))
    assert {"adversarial", "features", "balance"}.isdisjoint(early.parts)
    torch.testing.assert_close(early.total, early.parts["nll"] + early.parts["commitment"])
    model.progress = 0.4
    assert {"adversarial", "features", "balance"} <= model.loss(Batch(x), "autoencoder").parts.keys()


def test_outside_of_training_the_last_lambda_counts():
    model, x = built(), images()
    balance = model.loss(Batch(x), "autoencoder", generator=rng(1)).parts["balance"]
    model.eval()
    with torch.no_grad():
        found = model.loss(Batch(images(4, seed=5)), "autoencoder")
    assert found.parts["balance"].tolist() == balance[:4].tolist() and balance[0] > 0
    twin = built()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval().loss(Batch(images(4, seed=5)), "autoencoder").total, found.total)


# --- features from outside -----------------------------------------------------------------------------------------


class Edges(torch.nn.Module):
    """A network with weights of its own."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 4, 3)

    def maps(self, x):
        return [self.layer(x), self.layer(x).tanh()]


def test_given_features_replace_the_discriminators_and_stay_outside(tmp_path):
    model, x, edges = built(), images(), Edges()
    names = list(model.state_dict())
    model.features = edges
    model.progress = 0.0  # no discriminator yet
    model.eval()
    found = model.loss(Batch(x), "autoencoder")
    real, fake = ((2 * v.float() + 1) / 8 - 1 for v in (x, model.reconstruct(x)))
    wanted = feature_distance(edges.maps(real), edges.maps(fake))
    torch.testing.assert_close(found.parts["features"], wanted, rtol=1e-3, atol=1e-5)
    found.total.sum().backward()
    assert all(p.grad is None for p in edges.parameters())
    assert list(model.state_dict()) == names
    assert not {id(p) for p in edges.parameters()} & {id(p) for p in model.parameters()}
    model.save(tmp_path)
    assert load_model(tmp_path).features is None
    model.features = None
    assert "features" not in model.loss(Batch(x), "autoencoder").parts


# --- with a prior --------------------------------------------------------------------------------------------------


def test_turns_and_spans_with_a_prior():
    model = built(
        replace(LATENT, autoencoder_fraction=0.8, autoencoder=replace(TINY, adversarial_start=0.25))
    )
    assert model.turns == ("autoencoder discriminator", "autoencoder", "prior")
    spans = {turn: model.span_of(turn) for turn in model.turns}
    assert spans == {
        "autoencoder discriminator": pytest.approx((0.2, 0.8)), "autoencoder": (0.0, 0.8), "prior": (0.8, 1.0)
    }  # fmt: skip
    seen = {0.0: [None, 0.0, None], 0.5: [0.5, 0.625, None], 0.9: [None, None, 0.5], 1.0: [None, None, 1.0]}
    for progress, shares in seen.items():
        model.progress = progress
        wanted = [None if s is None else pytest.approx(s) for s in shares]
        assert [model.progress_of(turn) for turn in model.turns] == wanted
    owners = [set(model.parameters_of(turn)) for turn in model.turns]
    assert owners[0] == set(model.autoencoder.discriminator.parameters())
    assert owners[1] == set(model.codec.parameters()) and owners[2] == set(model.prior.parameters())


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 0.9])
def test_spans_end_where_the_parts_do(share):
    model = built(replace(LATENT, autoencoder_fraction=share))
    assert [model.span_of(turn)[1] for turn in model.turns] == [share, share, 1.0]


def test_the_parts_are_told_their_own_progress():
    model, batch = built(LATENT), Batch(images())
    for progress, shares in {0.1: (0.2, 1.0), 0.25: (0.5, 1.0), 0.75: (1.0, 0.5), 1.0: (1.0, 1.0)}.items():
        model.progress = progress
        for turn in model.turns:
            model.loss(batch, turn, generator=rng())
        assert (model.autoencoder.progress, model.prior.progress) == pytest.approx(shares)


def test_the_prior_learns_the_tokens_of_the_autoencoder_inside():
    model, x = built(LATENT).eval(), images()
    tokens = model.codec.encode(x)[:, None]
    found = model.loss(Batch(x), "prior").total.double()
    torch.testing.assert_close(found, -model.prior.log_likelihood(tokens).nats)
    codes = model.codec.nearby_codes(x, count=0)
    alone = model.prior.log_likelihood(tokens).nats + model.codec.log_prob_given(codes, x)[:, 0]
    assert (alone <= model.log_likelihood(x).nats + 1e-4).all()


def test_an_autoencoder_without_codes_is_refused():
    with pytest.raises(GenzooError, match="GAN has none"):
        replace(LATENT, autoencoder=GANConfig()).build(SPEC)


def train(out, *, crash=None, resume=False):
    """40 steps, saved every 7: ten of the VQ-VAE alone, ten with the discriminator, twenty of the prior."""
    config = replace(LATENT, autoencoder=replace(TINY, adversarial_start=0.5))
    model = crashing(built(config, spread=0.0), crash)
    options = RunOptions(device="cpu", save_every=7, resume=resume)
    Trainer(model, Budget(steps=40), out=out, progress=False, options=options).fit(images(50))
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


@pytest.mark.parametrize(
    ("crash", "saved"),
    [
        pytest.param(9, 7, marks=pytest.mark.slow),
        (10 + 2 * 6 + 1, 14),
        pytest.param(10 + 20 + 9, 28, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_crashed_resumes_bit_for_bit(tmp_path, whole, crash, saved):
    with pytest.raises(Crash):
        train(tmp_path, crash=crash)
    assert load_state(tmp_path)["step"] == saved
    train(tmp_path, resume=True)
    assert_same_runs(whole, tmp_path)
    assert int(load_state(whole)["model"]["autoencoder.game.d_steps"]) == 10
