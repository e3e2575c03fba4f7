"""Encoders: the checks, losses of views put together by hand, presets, and that training teaches something."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional as F

import genzoo
from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.data.augmentations import Augmentation, views
from genzoo.metrics.probes import Labelled, effective_rank, knn_accuracy
from genzoo.models.encoders.views import ViewsConfig, ViewsEncoder
from genzoo.models.registry import create_encoder, every_encoder_preset, list_encoders
from genzoo.nn.backbones import ProjectionConfig, ResNetConfig
from genzoo.objectives.contrastive import InfoNCE, NTXent
from genzoo.objectives.supervised import Instances, SupCon, Triplet
from genzoo.testing import ConformanceError, check_encoder, yield_encoder_checks

ENCODER_DESCRIPTIONS = list_encoders()
ENCODERS = every_encoder_preset()

SPEC = DataSpec((1, 8, 8), levels=17)
RGB = DataSpec((3, 9, 7), levels=256, cond="class", cond_size=4)
RESNET, HEAD = ResNetConfig((8, 16)), ProjectionConfig(16, 6)
SIZES = ("tiny", "small", "base", "large")


@dataclass(frozen=True)
class Noise(Augmentation):
    """As simple as a view can be."""

    scale: float = 0.3

    def changed(self, x, generator):
        return x + self.scale * torch.randn(x.shape, generator=generator)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def built(objective, spec=SPEC, seed=0, augmentation=Noise(), **fields):
    torch.manual_seed(seed)
    encoder = ViewsConfig(RESNET, HEAD, augmentation, objective, **fields).build(spec)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.1 * torch.randn_like(p))  # residual branches start at zero
    return encoder.eval()


def images(n, spec=SPEC, seed=0):
    return torch.randint(spec.levels, (n, *spec.shape), generator=rng(seed)).to(torch.uint8)


@pytest.fixture(scope="module")
def digits():
    return genzoo.load_data("digits")


# --- the contract --------------------------------------------------------------------------------------------------


CHECKS = [
    pytest.param(check, id=f"{name}-{check}")
    for name in ENCODERS
    for check in yield_encoder_checks(create_encoder(name, SPEC, "tiny"))
]


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check):
    result = check.run()
    assert result.ok, result.message


@pytest.mark.parametrize("objective", [NTXent(), SupCon()])
def test_conformance_in_colour_with_odd_sides(objective):
    assert all(result.ok for result in check_encoder(built(objective, RGB)))


@dataclass(frozen=True)
class BrokenConfig(ViewsConfig):
    fault: str = ""

    def build(self, spec):
        encoder = Broken(spec, self, self.backbone.build(spec.shape))
        encoder.register_buffer("seen", torch.zeros(()), persistent=self.fault != "unsaved")
        if self.fault == "unused":
            encoder.extra = torch.nn.Parameter(torch.zeros(3))
        return encoder


class Broken(ViewsEncoder):
    """Fails one check."""

    def loss(self, batch, turn="model", *, generator=None):
        fault = self.config.fault
        if fault == "global":
            torch.rand(1)
        found = super().loss(batch, turn, generator=None if fault == "unseeded" else generator)
        if fault == "trace" or (fault == "unsaved" and self.training):
            self.seen += 1
        if fault == "mean":
            return Loss(found.total.mean(), found.parts)
        return Loss(found.total + self.seen, found.parts)

    def embed(self, images):
        if self.config.fault == "lenient":
            images = images.long().clamp(max=16).reshape(-1, 1, 8, 8)
        vectors = super().embed(images)
        changes = {
            "neighbours": lambda: vectors - vectors.mean(0),
            "projection": lambda: vectors[:, :3],
            "mode": lambda: vectors * (1 + self.training),
            "half": lambda: vectors.bfloat16(),
            "constant": lambda: vectors * 0,
        }
        return changes.get(self.config.fault, lambda: vectors)()


Broken.embed = Broken.embed.__wrapped__  # what is checked for every encoder would not get in
FAULTS = {
    "": set(),
    "global": {"global_rng_untouched"},
    "unseeded": {"global_rng_untouched", "same_generator_same_loss", "save_and_load"},
    "mean": {"loss_is_finite_per_image"},
    "trace": {"evaluation_leaves_no_trace"},
    "neighbours": {"embeddings_ignore_neighbours"},
    "projection": {"embeddings_are_float_vectors"},
    "mode": {"embeddings_ignore_mode"},
    "half": {"embeddings_are_float_vectors"},
    "constant": {"embeddings_differ"},
    "lenient": {"wrong_images_raise"},
    "unsaved": {"save_and_load"},
    "unused": {"gradients_stay_in_their_turn"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_find_what_is_broken(fault):
    encoder = BrokenConfig(RESNET, HEAD, Noise(), NTXent(), fault=fault).build(SPEC)
    if not fault:
        assert all(result.ok for result in check_encoder(encoder))
        return
    with pytest.raises(ConformanceError, match=r"Broken fails \d of 13 checks") as caught:
        check_encoder(encoder)
    assert {result.name for result in caught.value.results if not result.ok} == FAULTS[fault]


# --- losses --------------------------------------------------------------------------------------------------------


def by_hand(encoder, x, g):
    """Both views' embeddings by the same draws as the loss's."""
    x = (2 * x.float() + 1) / 17 - 1
    return [encoder.projection(encoder.backbone(view)) for view in views(Noise(), x, 2, g)]


def test_the_loss_of_pairs_is_the_objective_of_two_views():
    encoder = built(InfoNCE(0.3))
    a, b = by_hand(encoder, images(5), rng(1))
    found = encoder.loss(Batch(images(5), torch.arange(5)), generator=rng(1))
    torch.testing.assert_close(found.total, InfoNCE(0.3)(a, b))
    torch.testing.assert_close(found.parts["agreement"], F.cosine_similarity(a, b))
    mean = F.normalize(torch.cat([a, b])).mean(0)
    torch.testing.assert_close(found.parts["dispersion"], (1 - mean.square().sum()).expand(5))


def test_the_loss_of_classes_takes_both_views_as_examples():
    encoder, labels = built(SupCon(0.2)), torch.tensor([4, 1, 4, 0, 1])
    z = torch.cat(by_hand(encoder, images(5), rng(1)))
    found = encoder.loss(Batch(images(5), labels), generator=rng(1)).total
    each = SupCon(0.2)(z, torch.cat([labels, labels]))
    torch.testing.assert_close(found, (each[:5] + each[5:]) / 2)
    renamed = encoder.loss(Batch(images(5), 7 - labels), generator=rng(1)).total
    torch.testing.assert_close(renamed, found)
    other = encoder.loss(Batch(images(5), torch.tensor([4, 1, 1, 0, 1])), generator=rng(1)).total
    assert not torch.allclose(other, found)


def test_classes_of_one_image_each_are_no_classes():
    """Supervised contrast with labels all different is NT-Xent, which needs none."""
    labelled, plain, alone = built(SupCon(0.5)), built(NTXent(0.5)), built(Instances(SupCon(0.5)))
    found = labelled.loss(Batch(images(6), torch.arange(6)), generator=rng()).total
    torch.testing.assert_close(found, plain.loss(Batch(images(6)), generator=rng()).total)
    torch.testing.assert_close(found, alone.loss(Batch(images(6)), generator=rng()).total)


@pytest.mark.parametrize("objective", [SupCon(), Triplet()])
def test_classes_are_asked_for_in_one_line(objective):
    encoder = built(objective)
    with pytest.raises(
        GenzooError, match=r"learns from classes, but the data has none: give \(images, labels\)"
    ):
        encoder.loss(Batch(images(4)), generator=rng())
    with pytest.raises(GenzooError, match="has vectors in their place"):
        encoder.loss(Batch(images(4), torch.zeros(4, 2)), generator=rng())
    with pytest.raises(GenzooError, match="learns from classes"):
        encoder.fit(images(40), steps=1, progress=False)


def test_views_of_nothing_and_equal_views():
    """Without augmentation both views are one: they agree entirely."""
    parts = built(NTXent(), augmentation=Noise(0.0)).loss(Batch(images(4)), generator=rng()).parts
    torch.testing.assert_close(parts["agreement"], torch.ones(4))
    flat = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    parts = built(NTXent(), augmentation=Noise(0.0)).loss(Batch(flat), generator=rng()).parts
    torch.testing.assert_close(
        parts["dispersion"], torch.zeros(4), atol=1e-6, rtol=0
    )  # a collapse looks like this


def test_embeddings_are_the_backbones_of_the_images_themselves():
    encoder = built(NTXent())
    x = (2 * images(3).float() + 1) / 17 - 1
    torch.testing.assert_close(encoder.embed(images(3)), encoder.backbone(x))
    with torch.no_grad():
        for p in encoder.projection.parameters():
            p.zero_()
    torch.testing.assert_close(encoder.embed(images(3)), encoder.backbone(x))


@pytest.mark.parametrize("name", [*ENCODERS])
def test_half_precision_gives_nearly_the_same_losses(name):
    encoder = create_encoder(name, SPEC, "tiny").eval()
    batch = Batch(images(16), torch.arange(16) % 4)
    exact = encoder.loss(batch, generator=rng()).total
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder.loss(batch, generator=rng()).total
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.mean(), exact.mean(), rtol=0.05, atol=0.05)


# --- presets -------------------------------------------------------------------------------------------------------


def test_presets_are_described():
    assert set(ENCODERS) == set(ENCODER_DESCRIPTIONS) == set(list_encoders()) == set(genzoo.list_encoders())
    assert all(set(preset.sizes) == set(SIZES) for preset in ENCODERS.values())


@pytest.mark.parametrize("name", [*ENCODERS])
@pytest.mark.parametrize("spec", [SPEC, RGB, DataSpec((3, 64, 64))], ids=["8x8", "9x7 colour", "64x64"])
def test_configurations_survive_json(name, spec):
    for size in SIZES:
        config = ENCODERS[name].config(size, spec)
        assert from_json(json.loads(json.dumps(to_json(config)))) == config
        with torch.device("meta"):
            config.build(spec)


def test_sizes_grow():
    counts = [
        sum(p.numel() for p in create_encoder("simclr", DataSpec((1, 28, 28)), size).backbone.parameters())
        for size in SIZES
    ]
    assert counts == sorted(counts) and 0.9e6 < counts[1] < 1.6e6


def test_views_follow_the_kind_of_images():
    spec = DataSpec((1, 28, 28))
    garments = create_encoder("simclr", spec, "tiny", kind="garments").config.augmentation
    assert garments.parts[0].flip == 0.5
    assert create_encoder("simclr", spec, "tiny").config.augmentation.parts[0].flip == 0.0
    assert create_encoder("inpainting", spec, "tiny", kind="garments").config.augmentation.flip == 0.5
    with pytest.raises(GenzooError, match="did you mean 'digits'"):
        create_encoder("simclr", spec, "tiny", kind="digit")


def test_overrides_and_mistakes():
    encoder = create_encoder("simclr", SPEC, "tiny", objective=InfoNCE(0.3))
    assert encoder.config.objective == InfoNCE(0.3)
    with pytest.raises(GenzooError, match="did you mean 'simclr'"):
        create_encoder("simclear", SPEC)
    with pytest.raises(GenzooError, match="choose tiny, small, base, large"):
        create_encoder("simclr", SPEC, "huge")
    with pytest.raises(GenzooError, match="did you mean 'objective'"):
        create_encoder("simclr", SPEC, "tiny", objectiv=InfoNCE())
    with pytest.raises(GenzooError, match="images of whole numbers"):
        create_encoder("simclr", DataSpec((1, 8, 8), levels=None))


def test_seeds_make_weights_and_leave_the_global_generator():
    state = torch.get_rng_state()
    first, again, other = (create_encoder("moco", SPEC, "tiny", seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ENCODERS])
def test_every_recipe_trains_and_is_loaded(name, digits, tmp_path):
    encoder = genzoo.create_encoder(name, digits.spec, "tiny")
    before = {k: v.clone() for k, v in encoder.backbone.state_dict().items()}
    encoder.fit(digits.train, val=digits.val, steps=2, out=tmp_path / "run", progress=False)
    assert any(not torch.equal(v, before[k]) for k, v in encoder.backbone.state_dict().items())
    loaded = genzoo.load(tmp_path / "run")
    assert isinstance(loaded, genzoo.Encoder) and type(loaded) is type(encoder)
    assert torch.equal(loaded.embed(digits.val.images[:20]), encoder.embed(digits.val.images[:20]))


IN_SMALL_BATCHES = replace(ENCODERS["simclr"].config("tiny", SPEC).training, batch_size=64)


def test_training_teaches_neighbours_who_they_are(digits):
    """A hundred steps of SimCLR on digits without labels: neighbours share classes more often, no collapse."""
    encoder = create_encoder("simclr", digits.spec, "tiny", training=IN_SMALL_BATCHES)

    def judged():
        train, val = (
            Labelled(encoder.embed(split.images), split.labels) for split in (digits.train, digits.val)
        )
        return knn_accuracy(train, val).value, effective_rank(val.vectors)

    before, _ = judged()
    encoder.fit((digits.train.images, None), steps=100, progress=False)
    after, rank = judged()
    assert after > before + 0.01 and after > 0.9 and rank > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swav", "dino"])
def test_clusters_do_not_collapse(name, digits):
    """The usual end of these recipes: all images in one place, every prototype as good as the other."""
    encoder = create_encoder(name, digits.spec, "tiny", training=IN_SMALL_BATCHES)
    encoder.fit(digits.train, steps=40, progress=False)
    found = encoder.loss(Batch(digits.val.images[:128]), generator=rng())
    assert found.parts["dispersion"][0] > 0.3 and found.parts["agreement"].mean() < 0.98
