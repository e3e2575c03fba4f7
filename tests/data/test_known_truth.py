"""Gibbs: on data whose density is known, no model is better than the truth, and a trained one comes near it."""

import pytest
import torch

from genzoo import create
from genzoo.data.toy import BernoulliTemplates, DiscretisedMixture

FULL_SIZE = pytest.mark.slow


@pytest.mark.parametrize(
    ("density", "overrides", "untrained", "near"),
    [
        (BernoulliTemplates(size=8, components=4), {}, 18, 4),
        (DiscretisedMixture(size=6), {"group": 4}, 90, 25),
        pytest.param(BernoulliTemplates(), {}, 250, 60, marks=FULL_SIZE),
        pytest.param(DiscretisedMixture(), {"group": 4}, 1800, 600, marks=FULL_SIZE),
    ],
    ids=["templates", "mixture", "templates 28x28", "mixture 28x28"],
)
def test_no_model_beats_the_truth_and_a_trained_one_comes_near(density, overrides, untrained, near):
    """The excess log P_true - log P_model in nats: far above 0 before training, still above 0 after it."""
    generator = torch.Generator().manual_seed(0)
    train, test = density.sample(4000, generator), density.sample(300, generator)
    model = create("pixelcnn", density.spec, "tiny", **overrides)

    def excess():
        found = density.log_prob(test) - model.log_likelihood(test).nats
        return found.mean().item(), found.std().item() / len(test) ** 0.5

    assert excess()[0] > untrained
    model.fit(train, steps=100 if density.size > 8 else 60, progress=False)
    mean, stderr = excess()
    assert -3 * stderr <= mean < near
