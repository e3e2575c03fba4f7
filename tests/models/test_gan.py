"""GANs: the contract, what the players are shown, latents there and back, and exact resume with lazy penalties."""

import copy
from dataclasses import replace

import pytest
import torch
from crashes import Crash, assert_same_runs, crashing
from small_models import built, images, rng

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.gan.generator_model import GANConfig
from genzoo.nn.gan_nets import ConvGANNetworks, DenseGANNetworks, Waves
from genzoo.objectives.adversarial import (
    R1,
    R2,
    GradientPenalty,
    Hinge,
    Lazy,
    LeastSquares,
    NonSaturating,
    RelativisticPaired,
    Wasserstein,
)
from genzoo.testing import yield_checks
from genzoo.training.checkpoint import load_state
from genzoo.training.trainer import Budget, RunOptions, Trainer

CONV, DENSE = ConvGANNetworks((8, 8), 1), DenseGANNetworks(16, 1)
RGB = DataSpec((3, 5, 6), levels=256, cond="class", cond_size=3)
VECTORS = DataSpec((3,), levels=None)
BINARY = DataSpec((1, 4, 4), levels=2)
PLAIN = TrainConfig(batch_size=16, learning_rate=3e-3, betas=(0.0, 0.9), weight_decay=0.0, precision="fp32")


def gan(networks=CONV, **fields):
    return GANConfig(latent_dim=4, networks=networks, **fields)


# --- the contract --------------------------------------------------------------------------------------------------


MODELS = {
    "binary": (gan(augmentation_probability=0.5), BINARY),
    "binary dense": (gan(DENSE), BINARY),
    "rgb class": (gan(loss=Hinge(), penalties=(Lazy(R1(), every=2),)), RGB),
    "rgb vector": (gan(loss=NonSaturating()), DataSpec((3, 3, 2), cond="vector", cond_size=2)),
    "vectors": (gan(DENSE, loss=Wasserstein(), penalties=(Lazy(GradientPenalty()),)), VECTORS),
    "vectors class": (
        gan(DENSE, loss=LeastSquares(), penalties=()),
        DataSpec((2,), levels=None, cond="class", cond_size=4),
    ),
    "spectral": (gan(ConvGANNetworks((8,), 1, spectral=True), loss=Hinge(), penalties=()), BINARY),
}
CHECKS = [
    pytest.param(check, id=f"{name}-{check}")
    for name, (config, spec) in MODELS.items()
    for check in yield_checks(built(config, spec))
]


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check):
    result = check.run()
    assert result.ok, result.message


def test_no_likelihood_says_why_and_what_instead():
    with pytest.raises(NoLikelihood, match=r"surface without volume.*objectives.likelihood.decoder"):
        built(gan(), BINARY).log_likelihood(images(2, BINARY))


@pytest.mark.parametrize(
    "config",
    [GANConfig(latent_dim=0), gan(augmentation_probability=1.5)],
    ids=["latent_dim", "augmentation_probability"],
)
def test_configurations_that_cannot_be(config):
    with pytest.raises(GenzooError, match="at least one latent"):
        config.build(BINARY)


def test_convolutions_refuse_vectors():
    with pytest.raises(GenzooError, match="use DenseGANNetworks"):
        gan(CONV).build(VECTORS)


# --- losses --------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_its_parts():
    """The discriminator's turn, put together by hand from the model's own networks and the same noise."""
    rule, penalties = RelativisticPaired(), (Lazy(R1(0.7), every=3), Lazy(R2(0.2)))
    model = built(gan(DENSE, loss=rule, penalties=penalties), VECTORS, spread=0.3)
    real = torch.randn(6, 3, generator=rng(1))
    found = model.loss(Batch(real), "discriminator", generator=rng(2))
    fake = model.generator(model.noise(6, rng(2)), None).detach()
    critic = lambda x: model.discriminator(x, None)  # noqa: E731
    price = R1(0.7)(critic, real, fake) + R2(0.2)(critic, real, fake)  # outside of training each counts once
    torch.testing.assert_close(found.parts["penalty"], price)
    torch.testing.assert_close(found.parts["gap"], critic(real) - critic(fake))
    torch.testing.assert_close(found.total, rule.discriminator(critic(real), critic(fake)) + price)
    other = model.loss(Batch(real), "generator", generator=rng(2))
    torch.testing.assert_close(other.total, rule.generator(critic(real), critic(fake)))


def test_accuracy_and_gap_tell_who_wins():
    model = built(gan(DENSE, penalties=()), VECTORS)
    real = torch.full((8, 3), 50.0)
    start = model.loss(Batch(real), generator=rng()).parts
    assert start["accuracy"].tolist() == [0.5] * 8 and start["gap"].tolist() == [0.0] * 8
    head = model.discriminator.head.logit
    with torch.no_grad():
        h = model.discriminator.body(real[:1], None)
        head.weight.copy_(torch.nn.functional.leaky_relu(h, 0.2))
    won = model.loss(Batch(real), generator=rng()).parts
    assert won["accuracy"].tolist() == [1.0] * 8 and (won["gap"] > 0).all()


def test_penalties_are_paid_when_due_and_in_the_discriminators_turns_only():
    model = built(gan(DENSE, penalties=(Lazy(R1(), every=3),)), VECTORS, spread=0.3).train()
    paid = []
    for _ in range(7):
        paid.append(bool(model.loss(Batch(torch.ones(2, 3)), generator=rng()).parts["penalty"].any()))
        model.loss(Batch(torch.ones(2, 3)), "generator", generator=rng())
    assert paid == [True, False, False, True, False, False, True]
    assert int(model.game.d_steps) == 7
    model.eval().loss(Batch(torch.ones(2, 3)), generator=rng())
    assert int(model.game.d_steps) == 7  # looking at a loss is no turn


def test_the_counter_is_saved():
    model = built(gan(DENSE), VECTORS).train()
    model.loss(Batch(torch.ones(2, 3)), generator=rng())
    twin = built(gan(DENSE), VECTORS)
    twin.load_state_dict(model.state_dict())
    assert int(twin.game.d_steps) == 1


def test_the_generators_turn_sees_the_discriminator_of_now():
    model = built(gan(DENSE, penalties=()), VECTORS, spread=0.3)
    before = model.loss(Batch(torch.ones(2, 3)), "generator", generator=rng()).total
    with torch.no_grad():
        model.discriminator.head.logit.weight.add_(1)
    assert not torch.equal(model.loss(Batch(torch.ones(2, 3)), "generator", generator=rng()).total, before)


def test_class_projection_matters_in_both_networks():
    model = built(gan(), RGB, spread=0.2)
    x = torch.randn(1, 3, 5, 6, generator=rng()).expand(3, -1, -1, -1)
    classes = model.discriminator_condition(torch.arange(3), 3)
    logits = model.discriminator(x, classes)
    assert len(set(logits.tolist())) == 3
    h = model.discriminator.hidden(
        torch.nn.functional.leaky_relu(model.discriminator.body(x).flatten(1), 0.2)
    )
    h = torch.nn.functional.leaky_relu(h, 0.2)
    matched = ((classes @ model.discriminator.head.match.weight.T) * h).sum(1) / h.shape[1] ** 0.5
    plain = h @ model.discriminator.head.logit.weight[0] + model.discriminator.head.logit.bias
    torch.testing.assert_close(logits, plain + matched)
    z = model.noise(1, rng()).expand(3, -1)
    assert len(model.decode(z, torch.arange(3)).unique(dim=0)) == 3


def test_spectral_normalisation_bounds_every_layer():
    network = built(gan(ConvGANNetworks((8, 8), 1, spectral=True)), BINARY).discriminator.train()
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(5)
        for _ in range(200):
            network(torch.zeros(1, 1, 4, 4), None)
    network.eval()
    layers = [m for m in network.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    norms = torch.stack([torch.linalg.matrix_norm(m.weight.flatten(1), 2) for m in layers])
    assert len(layers) == 8
    torch.testing.assert_close(norms, torch.ones(8), atol=0.02, rtol=0)


def test_waves_tell_near_points_apart_as_a_gaussian_kernel_does():
    """The mean product of sines of random phase is exp(-|spread (x - y)|^2 / 2) (Rahimi & Recht 2007)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        waves = Waves(1, 6_000, std=3.0)
    x = torch.tensor([[0.0], [0.2], [0.5], [3.0]])
    features = 2**0.5 * waves.phase(x).sin()
    kernel = (features @ features.T / features.shape[1])[0]
    torch.testing.assert_close(kernel, torch.exp(-((3 * x[:, 0]) ** 2) / 2), atol=0.02, rtol=0)
    torch.testing.assert_close(waves(x), waves.mix(features))


def test_small_data_have_no_more_latents_than_numbers():
    made = [GANConfig(networks=DENSE).build(DataSpec(shape, None)).latent_dim for shape in ((2,), (3, 30))]
    assert made == [2, 64] and GANConfig(latent_dim=5, networks=DENSE).build(VECTORS).latent_dim == 5


# --- samples and latents -------------------------------------------------------------------------------------------


def test_truncated_latents_follow_the_truncated_normal():
    model = built(gan(), BINARY)
    z = model.noise(5000, rng(), truncation=0.7)
    assert z.abs().max() <= 0.7 + 1e-6
    edge = torch.distributions.Normal(0, 1).cdf(torch.tensor(0.7))
    u = (torch.distributions.Normal(0, 1).cdf(z.flatten()) - (1 - edge)) / (2 * edge - 1)
    assert abs(u.mean().item() - 0.5) < 0.01 and abs(u.var().item() - 1 / 12) < 0.003
    torch.testing.assert_close(model.noise(9, rng(3), truncation=8.0), model.noise(9, rng(3)))
    with pytest.raises(GenzooError, match="positive"):
        model.noise(2, truncation=0.0)


def test_truncation_narrows_what_is_drawn():
    model = built(gan(DENSE), VECTORS, spread=0.3)
    wide, narrow = model.draw(500, generator=rng()), model.draw(500, truncation=0.1, generator=rng())
    assert narrow.var(0).sum() < 0.05 * wide.var(0).sum()
    assert torch.equal(wide, model.sample(500, generator=rng()))


def test_draws_do_not_depend_on_how_many_fit_into_a_pass():
    model = built(gan(), RGB, spread=0.1)
    z, classes = model.noise(7, rng()), torch.arange(7) % 3
    whole = model.decode(z, classes)
    model.chunk = 3
    assert (model.decode(z, classes).long() - whole.long()).abs().max() <= 1
    assert model.decode(z[:0], classes[:0]).shape == (0, 3, 5, 6)


def test_interpolation_ends_where_it_should():
    model = built(gan(DENSE), DataSpec((2,), levels=None, cond="class", cond_size=3), spread=0.3)
    z_0, z_1, classes = model.noise(2, rng(0)), model.noise(2, rng(1)), torch.tensor([0, 2])
    path = model.interpolate(z_0, z_1, 5, classes)
    assert path.shape == (2, 5, 2)
    torch.testing.assert_close(path[:, 0], model.decode(z_0, classes))
    torch.testing.assert_close(path[:, -1], model.decode(z_1, classes))
    assert (path.diff(dim=1).abs().sum(2) > 0).all()


def test_inversion_finds_images_that_the_generator_can_make():
    model = built(gan(DenseGANNetworks(32, 1)), DataSpec((6,), levels=None), spread=0.2)
    weights = copy.deepcopy(model.state_dict())
    drawn = model.decode(model.noise(5, rng(7)))
    model.chunk = 16  # two images at a time
    z = model.train().invert(drawn, starts=8, generator=rng(1))
    assert z.shape == (5, 4) and model.training and not z.requires_grad
    gap = (model.decode(z) - drawn).square().sum(1)
    assert (gap < 1e-2 * (drawn - drawn.mean(0)).square().sum(1).mean()).all()
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_inversion_keeps_its_condition_and_refuses_nonsense():
    model = built(gan(), RGB)
    assert model.invert(images(2, RGB), torch.tensor([0, 2]), steps=2, starts=2).shape == (2, 4)
    with pytest.raises(GenzooError, match="give cond"):
        model.invert(images(2, RGB), steps=2)
    with pytest.raises(GenzooError, match="steps and starts"):
        model.invert(images(2, RGB), torch.tensor([0, 2]), starts=0)
    assert all(p.requires_grad for p in model.parameters())


# --- training ------------------------------------------------------------------------------------------------------


def test_augmentation_is_for_training_and_for_both_players():
    plain, augmented = (built(gan(augmentation_probability=a), BINARY, spread=0.2) for a in (0.0, 1.0))
    batch = Batch(images(8, BINARY))
    for turn in plain.turns:
        assert torch.equal(
            plain.loss(batch, turn, generator=rng()).total, augmented.loss(batch, turn, generator=rng()).total
        )
    for turn in plain.turns:
        losses = [m.train().loss(batch, turn, generator=rng()).total for m in (plain, augmented)]
        assert not torch.equal(*losses)


@pytest.mark.parametrize("networks", [CONV, DENSE], ids=["conv", "dense"])
def test_half_precision_gives_nearly_the_same_losses(networks):
    model = built(gan(networks), RGB, spread=0.05)
    batch = Batch(images(8, RGB), torch.arange(8) % 3)
    for turn in model.turns:
        exact = model.loss(batch, turn, generator=rng()).total
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.loss(batch, turn, generator=rng()).total
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.02)
        assert not torch.equal(rough, exact)
        rough.mean().backward()


def train(out, *, crash=None, resume=False):
    """40 steps with penalties every 4 and every 3 turns, saved every 7; `crash` ends it in so many passes."""
    penalties = (Lazy(R1(0.5), every=4), Lazy(R2(0.5), every=3))
    model = built(gan(CONV, penalties=penalties, augmentation_probability=0.5, training=PLAIN), RGB)
    crashing(model, crash)
    options = RunOptions(device="cpu", save_every=7, resume=resume)
    trainer = Trainer(model, Budget(steps=40), out=out, progress=False, options=options)
    trainer.fit((images(50, RGB), torch.arange(50) % 3))
    return model


def test_a_run_that_crashed_resumes_bit_for_bit(tmp_path):
    with pytest.raises(Crash):
        train(
            tmp_path / "crashed", crash=2 * 25 + 1
        )  # in the middle of step 26, four and a half after a save
    assert load_state(tmp_path / "crashed")["step"] == 21  # no multiple of 4
    train(tmp_path / "crashed", resume=True)
    whole = train(tmp_path / "whole")
    assert_same_runs(tmp_path / "whole", tmp_path / "crashed")
    assert int(load_state(tmp_path / "whole")["model"]["game.d_steps"]) == 40 == int(whole.game.d_steps)


@pytest.mark.slow
def test_training_moves_the_samples_to_the_data():
    """A shifted Gaussian: mean and spread of the samples come near those of the data."""
    data = torch.randn(4000, 2, generator=rng()) * 0.5 + torch.tensor([2.0, -1.0])
    training = replace(PLAIN, batch_size=128, betas=(0.0, 0.99))
    penalties = (Lazy(R1(0.1)), Lazy(R2(0.1)))
    config = gan(DenseGANNetworks(32, 1), penalties=penalties, training=training)
    model = built(config, DataSpec((2,), levels=None))
    model.fit(data, steps=300, progress=False)
    drawn = model.sample(2000, generator=rng())
    assert (drawn.mean(0) - data.mean(0)).abs().max() < 0.15
    assert ((drawn.std(0) - 0.5).abs() < 0.15).all()
