"""Latent models: bounds below the exact sum over tokens, two stages that leave each other alone, exact resume."""

import contextlib
import itertools
import math
from dataclasses import replace

import pytest
import torch
from enumeration import all_images, perturbed

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.autoregressive.pixel_models import HeadConfig, PixelCNNConfig, PixelTransformerConfig
from genzoo.models.vq.latent_model import LatentConfig, LatentModel
from genzoo.models.vq.vqvae import VQVAEConfig
from genzoo.nn.embeddings import CodeFeatures
from genzoo.nn.quantisers import QuantiserConfig
from genzoo.training.trainer import Budget, RunOptions, Trainer

HEAD = HeadConfig(width=16, code_width=6, output="categorical")
PRIOR = PixelTransformerConfig(group=1, width=16, head_width=16, blocks=1, head=HEAD)
AUTOENCODER = VQVAEConfig(
    channels=(8,), blocks=1, quantiser=QuantiserConfig(codebook_size=4, width=3), neighbours=2
)
TRAINING = TrainConfig(batch_size=16, precision="fp32", learning_rate=1e-2, weight_decay=0.1, validations=2)
TINY = LatentConfig(AUTOENCODER, PRIOR, training=TRAINING)
BINARY = DataSpec((1, 2, 3), 2)  # two tokens


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def every_token_image(model):
    h, w = model.autoencoder.grid
    values = itertools.product(range(model.autoencoder.quantiser.codebook_size), repeat=h * w)
    return torch.tensor(list(values)).view(-1, 1, h, w)


def exact_nats(model, images, cond=None):
    """log sum_z P(z) P(x|z) over all token images."""
    tokens = every_token_image(model)
    of_tokens = None if cond is None else torch.full((len(tokens),), cond)
    log_prior = model.prior.log_likelihood(tokens, of_tokens).nats
    everything = tokens[:, 0].expand(len(images), -1, -1, -1)
    return (log_prior + model.autoencoder.log_prob_given(everything, images).double()).logsumexp(1)


# --- likelihood ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prior", [PRIOR, PixelCNNConfig(group=1, width=8, blocks=1, vertical=(8,), head=HEAD)]
)
def test_bounds_lie_below_the_exact_sum_which_is_normalised(prior):
    model = perturbed(replace(TINY, prior=prior).build(BINARY), 0.5)
    images = all_images(BINARY)
    exact = exact_nats(model, images)
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-5)
    codes = model.autoencoder.nearby_codes(images, count=0)
    alone = model.prior.log_likelihood(codes).nats + model.autoencoder.log_prob_given(codes, images)[:, 0]
    bound = model.log_likelihood(images)
    assert bound.kind is model.likelihood is LikelihoodKind.LOWER_BOUND and bound.stderr is None
    assert (alone <= bound.nats + 1e-4).all() and (bound.nats <= exact + 1e-4).all()  # float32 rounding
    assert alone.mean() < bound.nats.mean() - 0.01 < exact.mean() - 0.02


def test_samples_follow_the_exact_sum():
    spec = DataSpec((1, 2, 3), 2)
    model = perturbed(TINY.build(spec), 0.5)
    p = exact_nats(model, all_images(spec)).exp()
    samples = model.sample(8000, generator=seeded(0)).flatten(1).long()
    counts = torch.bincount(samples @ (2 ** torch.arange(5, -1, -1)), minlength=64)
    chi_square = ((counts - 8000 * p) ** 2 / (8000 * p).clamp_min(1)).sum()
    assert chi_square < 114  # the 1 - 1e-4 quantile at 63 degrees of freedom


def test_classes_reach_the_prior_and_average():
    spec = DataSpec((1, 2, 3), 2, cond="class", cond_size=3)
    model, images = perturbed(TINY.build(spec), 0.5), all_images(spec)
    assert model.autoencoder.spec.cond is None
    each = [model.log_likelihood(images, torch.full((64,), c)).nats for c in range(3)]
    assert not torch.allclose(each[0], each[1], rtol=1e-2)
    torch.testing.assert_close(
        model.log_likelihood(images).nats, torch.stack(each).logsumexp(0) - math.log(3), rtol=1e-5, atol=1e-5
    )
    assert (each[2] <= exact_nats(model, images, 2) + 1e-4).all()
    with pytest.raises(GenzooError, match="class 3 is out of range"):
        model.log_likelihood(images, torch.full((64,), 3))


class Bounded(torch.nn.Module):
    """A prior that gives noisy numbers of any kind and counts what it is asked for."""

    def __init__(self, prior, kind):
        super().__init__()
        self.prior, self.likelihood, self.asked = prior, kind, []
        self.spec, self.turns = prior.spec, prior.turns

    def log_likelihood(self, images, cond=None, *, generator=None):
        self.asked.append(len(images))
        nats = self.prior.log_likelihood(images, cond).nats
        return LogLikelihood(nats, self.likelihood, self.spec, stderr=torch.full_like(nats, 0.5))


@pytest.mark.parametrize("kind", [LikelihoodKind.LOWER_BOUND, LikelihoodKind.ESTIMATE])
def test_a_prior_that_is_not_exact_gets_no_log_sum(kind):
    exact = perturbed(TINY.build(BINARY), 0.5)
    model = LatentModel(BINARY, TINY, exact.autoencoder, Bounded(exact.prior, kind))
    ll = model.log_likelihood(all_images(BINARY))
    assert ll.kind is model.likelihood is kind
    assert ll.stderr.tolist() == [0.5] * 64 and sum(model.prior.asked) == 64
    assert ll.nats.mean() < exact.log_likelihood(all_images(BINARY)).nats.mean() - 0.01


def test_a_prior_without_likelihood_leaves_none():
    exact = TINY.build(BINARY)
    model = LatentModel(BINARY, TINY, exact.autoencoder, Bounded(exact.prior, LikelihoodKind.NONE))
    assert model.likelihood is LikelihoodKind.NONE
    with pytest.raises(NoLikelihood, match="prior"):
        model.log_likelihood(all_images(BINARY))


# --- two stages ----------------------------------------------------------------------------------------------


SPEC = DataSpec((1, 6, 5), 4)


def images(n, seed):
    return torch.randint(4, (n, *SPEC.shape), generator=seeded(seed), dtype=torch.uint8)


def fresh():
    torch.manual_seed(0)
    return TINY.build(SPEC)


class Stop(Exception):
    """In place of a power cut."""


def fit(out, *, stop_at=None, resume=False, watch=None):
    """Twenty steps; ends in the middle of step `stop_at`."""
    torch.set_num_threads(1)
    model, calls = fresh(), []

    def hook(module, args):
        if not module.training:
            return
        calls.append(args[1])
        if watch is not None:
            watch(module, args[1])
        if stop_at is not None and len(calls) == stop_at:
            raise Stop

    model.register_forward_pre_hook(hook)
    options = RunOptions(device="cpu", save_every=3, resume=resume)
    trainer = Trainer(model, Budget(steps=20), out=out, progress=False, options=options)
    with contextlib.suppress(Stop):
        trainer.fit(images(64, 1), images(16, 2))
    return model, calls


def snapshot(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_each_stage_leaves_the_other_part_alone(tmp_path):
    """Weights, momentum and decay, codebook and frequencies: bit for bit, while the part that plays moves."""
    seen = {"autoencoder": [], "prior": []}

    def watch(model, turn):
        seen[turn].append((snapshot(model.autoencoder), snapshot(model.prior)))

    _, calls = fit(tmp_path, watch=watch)
    assert calls == ["autoencoder"] * 10 + ["prior"] * 10
    start = fresh()
    assert all(equal(autoencoder, seen["prior"][0][0]) for autoencoder, _ in seen["prior"])
    assert all(equal(prior, snapshot(start.prior)) for _, prior in seen["autoencoder"])
    first, last = seen["autoencoder"][0][0], seen["prior"][0][0]
    assert all(not torch.equal(v, last[k]) for k, v in first.items() if "centres" not in k)
    assert not equal(seen["prior"][0][1], seen["prior"][-1][1])


@pytest.mark.parametrize("stop_at", [5, 15])
def test_a_run_stopped_in_either_stage_resumes_bit_for_bit(tmp_path, stop_at):
    whole, _ = fit(tmp_path / "whole")
    fit(tmp_path / "cut", stop_at=stop_at)
    resumed, calls = fit(tmp_path / "cut", resume=True)
    assert len(calls) < 20
    assert equal(snapshot(whole), snapshot(resumed))


def test_spans_of_the_turns():
    model = replace(TINY, autoencoder_fraction=0.25).build(SPEC)
    assert model.span_of("autoencoder") == (0.0, 0.25) and model.span_of("prior") == (0.25, 1.0)
    wanted = {0.0: (0.0, None), 0.125: (0.5, None), 0.25: (None, 0.0), 0.625: (None, 0.5), 1.0: (None, 1.0)}
    for progress, shares in wanted.items():
        model.progress = progress
        assert (model.progress_of("autoencoder"), model.progress_of("prior")) == shares
    with pytest.raises(ValueError, match="unknown turn"):
        model.span_of("model")


def test_the_learning_rate_runs_down_in_each_stage(tmp_path):
    """Linear decay over each turn's own span after a warm-up over its first tenth."""
    rates = {"autoencoder": [], "prior": []}
    model = fresh()
    trainer = Trainer(model, Budget(steps=40), progress=False, options=RunOptions(device="cpu"))
    from genzoo.training import step

    def record(self, turn, batch, n, rate, generator, result):
        rates[turn.name].append(rate)
        return play(self, turn, batch, n, rate, generator, result)

    play = step.Stepper._play
    step.Stepper._play = record
    try:
        trainer.fit(images(64, 1))
    finally:
        step.Stepper._play = play
    by_hand = [1e-2 * min(1, max(1 / 100, k / 20 / 0.1)) * (1 - k / 20) for k in range(20)]
    assert rates["autoencoder"] == pytest.approx(by_hand) and rates["prior"] == pytest.approx(by_hand)


def test_the_prior_learns_the_tokens_and_only_them():
    model = perturbed(TINY.build(SPEC), 0.3)
    batch = Batch(images(8, 3))
    tokens = model.tokenizer.encode(batch.images)
    torch.testing.assert_close(
        model.eval().loss(batch, "prior").total.double(), -model.prior.log_likelihood(tokens).nats
    )
    model.train().loss(batch, "prior").total.sum().backward()
    assert all(p.grad is None for p in model.autoencoder.parameters())


# --- parts ---------------------------------------------------------------------------------------------------


def test_codes_are_names_and_not_amounts():
    """Swapping two codes' embeddings is the same as swapping the codes; no such thing holds for values."""
    features = CodeFeatures(5, 3)
    x = torch.tensor([[0, 1, 4], [1, 1, 0]])
    swapped = torch.tensor([1, 0, 2, 3, 4])[x]
    before = features(x).clone()
    with torch.no_grad():
        features.embed.weight[[0, 1]] = features.embed.weight[[1, 0]].clone()
    assert before.shape == (2, 3, 3) and torch.equal(features(swapped), before)


def test_mistakes_are_named():
    model = TINY.build(SPEC)
    with pytest.raises(GenzooError, match="prior is made for"):
        LatentModel(SPEC, TINY, model.autoencoder, PRIOR.build(DataSpec((1, 2, 2), 4)))
    with pytest.raises(GenzooError, match="between 0 and 1"):
        replace(TINY, autoencoder_fraction=1.0).build(SPEC)
