"""No encoder collapses: every recipe, trained for a moment on digits, still tells held-out images apart.

The bounds, each on vectors of images that were not trained on:

- *Effective rank* of at least nine, as many directions as it takes to hold ten classes apart, and at least half of what
  the network has with random weights, which bounds what its build and the data allow.
- *Standard deviation* of each dimension at least a twentieth of the mean one, but for one dimension in sixteen: the
  ResNet's last rectifier may leave a unit at zero for all images. The ViT ends in a norm: there all must vary.
- *Neighbours* agree with their classes as often as those of the random network, less two standard errors of
  the difference.
"""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import genzoo
from genzoo.metrics.probes import Collapse, Labelled, knn_accuracy
from genzoo.models.registry import create_encoder, every_encoder_preset
from genzoo.nn.backbones import ResNetConfig
from genzoo.nn.text_tower import TextTowerConfig
from genzoo.objectives.contrastive import PairObjective

ENCODERS = every_encoder_preset()

BATCH = 64
STEPS, MORE_STEPS = (
    60,
    {"inpainting": 100},
)  # enough that what pulls without pushing collapses; pixels teach slowest
LEAST_RANK, RANK_SHARE = 9.0, 0.5
LEAST_STD = 1 / 20
DEAD_SHARE = 1 / 16


@dataclass(frozen=True)
class Vectors:
    """Of training and held-out images by one encoder."""

    train: Labelled
    held: Labelled
    rectified: bool = True


@pytest.fixture(scope="module")
def digits():
    return genzoo.load_data("digits")


def encoder_of(name, data):
    """The preset at its smallest, with fewer images per step."""
    config, data = ENCODERS[name].config("tiny", data.spec).adapted(data)
    fields = {"training": replace(config.training, batch_size=BATCH)}
    if name == "clip":
        fields |= {
            "class_names": config.class_names,
            "text": TextTowerConfig(width=32, blocks=1, head_width=16),
        }
    return create_encoder(name, data.spec, "tiny", **fields)


def vectors_of(encoder, data):
    train, held = (Labelled(encoder.embed(s.images[:]), s.labels) for s in (data.train, data.val))
    return Vectors(train, held, isinstance(encoder.config.backbone, ResNetConfig))


def dead_dimensions(vectors):
    """How many of the dimensions of `[n, d]` vary by less than `LEAST_STD` of what they do on average."""
    deviations = vectors.double().std(0, correction=0)
    return int((deviations <= LEAST_STD * deviations.mean()).sum())


def complaints(trained, untrained):
    """What is wrong with vectors against those of the same network before training: a set of words."""
    found, before = Collapse.of(trained.held.vectors), Collapse.of(untrained.held.vectors)
    after, chance = (knn_accuracy(v.train, v.held) for v in (trained, untrained))
    most_dead = int(DEAD_SHARE * found.width) if trained.rectified else 0
    wrong = {
        "collapsed": found.collapsed,
        "rank": found.effective_rank < max(LEAST_RANK, RANK_SHARE * before.effective_rank),
        "dead": dead_dimensions(trained.held.vectors) > most_dead,
        "neighbours": after.value < chance.value - 2 * math.hypot(after.stderr, chance.stderr),
    }
    return {word for word, is_so in wrong.items() if is_so}


QUICK = {"simclr", "swav", "dino"}
"""One of each kind of remedy against collapse; the second tier trains them all."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ENCODERS]
)
def test_no_recipe_collapses(name, digits):
    encoder = encoder_of(name, digits)
    untrained = vectors_of(encoder, digits)
    encoder.fit(digits.train, steps=MORE_STEPS.get(name, STEPS), progress=False)
    trained = vectors_of(encoder, digits)
    moved = (trained.held.vectors - untrained.held.vectors).norm(dim=1).mean()
    assert moved > 0.1 * untrained.held.vectors.norm(dim=1).mean()  # it is a trained one that is evaluated
    assert complaints(trained, untrained) == set()


# --- the bounds can be missed --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PullOnly(PairObjective):
    """1 - cosine of the two views: SimSiam without its stop-gradient (Chen & He 2021, section 4.1)."""

    def of_views(self, a, b):
        return 1 - F.cosine_similarity(a, b)


def test_pulling_without_pushing_collapses(digits):
    """Views drawn together and nothing that holds images apart.

    It acts on the representation itself: a projection could give in in its place.
    """
    encoder = encoder_of("simclr", digits)
    encoder.config = replace(encoder.config, objective=PullOnly())
    encoder.projection = nn.Identity()
    untrained = vectors_of(encoder, digits)
    encoder.fit(digits.train, steps=STEPS, progress=False)
    trained = vectors_of(encoder, digits)
    assert "collapsed" in complaints(trained, untrained)


def spoilt(vectors, change):
    """`change(rows, rows of training images)` done to the vectors of both splits."""
    train = vectors.train.vectors
    parts = (Labelled(change(part.vectors, train), part.labels) for part in (vectors.train, vectors.held))
    return Vectors(*parts, vectors.rectified)


def flattened(count):
    """The first `count` dimensions constant."""

    def change(rows, train):
        rows = rows.clone()
        rows[:, :count] = train[0, :count]
        return rows

    return change


def principal(dimensions):
    """Onto the first so many principal directions around the mean."""

    def change(rows, train):
        mean = train.mean(0)
        directions = torch.linalg.svd(train - mean, full_matrices=False)[2][:dimensions]
        return mean + (rows - mean) @ directions.T @ directions

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows, _: rows + 0, set()),
        (lambda rows, _: rows * 0 + 1, {"collapsed", "rank", "dead", "neighbours"}),
        (lambda rows, _: rows + 1, {"collapsed"}),
        (principal(1), {"collapsed", "rank", "neighbours"}),
        (principal(16), {"rank"}),
        (flattened(4), set()),
        (flattened(5), {"dead"}),
    ],
    ids=["as they are", "one point", "far away", "a line", "sixteen dimensions", "four dead", "five dead"],
)
def test_each_bound_can_be_missed(change, said, digits):
    """Vectors spoilt by hand."""
    untrained = vectors_of(create_encoder("simclr", digits.spec, "tiny"), digits)
    assert complaints(spoilt(untrained, change), untrained) == said


def test_no_dimension_of_a_norm_may_die(digits):
    rows = replace(vectors_of(create_encoder("simclr", digits.spec, "tiny"), digits), rectified=False)
    assert complaints(rows, rows) == set()
    assert complaints(spoilt(rows, flattened(1)), rows) == {"dead"}
