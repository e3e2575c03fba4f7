"""Gibbs at full size: on data whose density is known, no model is better than the truth."""

import torch

from genzoo import create, load_data


def excess_nats(name: str, **overrides) -> tuple[float, float]:
    """Mean and standard error of log P_true - log P_model over the test images, after a short training."""
    data = load_data(name)
    torch.manual_seed(0)
    model = create("pixelcnn", data.spec, "tiny", **overrides)
    model.fit(data.train, steps=100, progress=False)
    images = data.test.images[:500]
    difference = data.log_prob(images) - model.log_likelihood(images).nats
    return difference.mean().item(), difference.std().item() / len(images) ** 0.5


def test_no_model_beats_the_bernoulli_templates():
    """...and a trained one comes near: an untrained one is hundreds of nats away."""
    excess, stderr = excess_nats("toy:bernoulli-templates")
    assert excess >= -3 * stderr
    assert excess < 60


def test_no_model_beats_the_discretised_mixture():
    excess, stderr = excess_nats("toy:discretised-mixture", group=4)
    assert excess >= -3 * stderr
    assert excess < 600
