"""Images and captions: the text tower by itself, the loss put together by hand, what the shared space is good for."""

import dataclasses

import pytest
import torch
from PIL import Image
from small_models import built, images, rng
from torch.nn import functional as F

import genzoo
from genzoo.core.config import TrainConfig, from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.text import byte_codes
from genzoo.data import load_data
from genzoo.data.augmentations import Compose, RandomCrop
from genzoo.data.captions import TEMPLATES, CaptionedSplit, caption, class_names
from genzoo.data.split import TensorSplit
from genzoo.models.encoders.clip import ClipConfig
from genzoo.models.vae.vector_vae import VAEConfig
from genzoo.nn.backbones import ProjectionConfig, ResNetConfig, ViTConfig
from genzoo.nn.text_tower import TextTowerConfig
from genzoo.objectives.image_text import Clip, SigLIP
from genzoo.testing.encoder_checks import yield_encoder_checks

PLAIN, CROP = Compose(()), RandomCrop(scale=(0.6, 1.0))
RESNET, VIT = ResNetConfig((8, 16)), ViTConfig(width=32, blocks=1, head_width=16)
TEXT, HEAD = TextTowerConfig(width=32, blocks=2, head_width=16), ProjectionConfig(16, 12, layers=1)
DIGITS = DataSpec((1, 8, 8), levels=17, cond="class", cond_size=10)
RGB = DataSpec((3, 5, 6), levels=256)


def clip(backbone=RESNET, augmentation=PLAIN, **fields):
    return ClipConfig(augmentation, backbone, TEXT, HEAD, **fields)


MODELS = {
    "clip": (clip(augmentation=CROP), DIGITS),
    "siglip": (clip(objective=SigLIP()), DIGITS),
    "named": (clip(VIT, class_names=("cat", "dog", "ankle boot")), DataSpec((3, 5, 6), 256, "class", 3)),
    "rgb": (clip(), RGB),
}
LAWS = [
    pytest.param(check, id=f"{name}-{check}")
    for name, (config, spec) in MODELS.items()
    for check in yield_encoder_checks(built(config, spec))
]


@pytest.mark.parametrize("check", LAWS)
def test_conformance(check):
    result = check.run()
    assert result.ok, result.message


def test_configurations_are_json():
    config = clip(class_names=("cat", "dog"), objective=SigLIP())
    types = [ClipConfig, Compose, ResNetConfig, TextTowerConfig, ProjectionConfig, SigLIP, TrainConfig]
    assert from_json(to_json(config), types) == config


# --- the text tower ------------------------------------------------------------------------------------------------


@pytest.fixture
def tower():
    torch.manual_seed(0)
    tower = TEXT.build()
    with torch.no_grad():
        for p in tower.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return tower.double().eval()


def test_padding_does_not_matter(tower):
    texts = ["a", "a cat", "", "a photo of a cat on a chair"]
    together = tower(byte_codes(texts))
    for text, vector in zip(texts, together, strict=True):
        alone = tower(byte_codes([text], max(1, len(text.encode()))))[0]
        torch.testing.assert_close(alone, vector, rtol=0, atol=1e-6)


def test_every_byte_and_its_place_matter(tower):
    texts = ["cat", "act", "cats", "dat", "cat cat", "", "\x00", "c"]
    vectors = tower(byte_codes(texts))
    gaps = torch.cdist(vectors, vectors) + torch.eye(len(texts), dtype=vectors.dtype)
    assert gaps.min() > 1e-3


def test_equal_texts_have_equal_vectors_and_order_does_not_matter(tower):
    texts = ["b", "a", "b", "c", "a"]
    vectors = tower(byte_codes(texts))
    assert torch.equal(vectors[0], vectors[2]) and torch.equal(vectors[1], vectors[4])
    torch.testing.assert_close(tower(byte_codes(texts[::-1])).flip(0), vectors)


def test_tower_is_a_transformer_of_torchs_own_parts(tower):
    """One text through torch's multi-head attention with the same weights."""
    codes = byte_codes(["boot"], 4)
    x = torch.cat([tower.first[None], tower.byte(codes[0]) + tower.place[:4]])
    for block in tower.blocks:
        y, _ = F.multi_head_attention_forward(
            *[block.norm_attention(x)[:, None]] * 3, 32, 2, block.qkv.weight, block.qkv.bias, None, None, False, 0.0,
            block.out.weight, block.out.bias,
        )  # fmt: skip
        x = x + y[:, 0]
        x = x + block.mlp(block.norm_mlp(x))
    expected = tower.norm(x).mean(0)
    torch.testing.assert_close(tower(codes)[0], expected.to(tower(codes)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "codes", [torch.zeros(2, 49, dtype=torch.long), torch.zeros(2, 4), torch.zeros(3, dtype=torch.long)]
)
def test_towers_take_codes_only(tower, codes):
    with pytest.raises(GenzooError, match="codes long"):
        tower(codes)


# --- the loss ------------------------------------------------------------------------------------------------------


def test_loss_is_the_objective_of_both_towers():
    """CLIP's loss by a loop over the batch, from the model's own vectors; classes repeat."""
    model = built(clip(), DIGITS, spread=0.2)
    pictures, labels = images(6, DIGITS), torch.tensor([3, 1, 3, 0, 1, 3])
    loss = model.loss(Batch(pictures, labels))  # without a generator: the first template, the bare name
    a = model.embed_images_shared(pictures).double()
    b = model.embed_text([["zero", "one", "two", "three"][k] for k in labels]).double()
    logits = a @ b.T * model.logits.log_scale.exp().item()
    for i in range(6):
        right = (labels == labels[i]).nonzero().flatten().tolist()
        to_text = -sum(logits[i].log_softmax(0)[j] for j in right) / len(right)
        to_image = -sum(logits[:, i].log_softmax(0)[j] for j in right) / len(right)
        assert loss.total[i].item() == pytest.approx(((to_text + to_image) / 2).item(), rel=1e-4)
    told = (labels[logits.argmax(1)] == labels).float()
    assert torch.equal(loss.parts["accuracy"], told)


def test_captions_of_classes_are_drawn_from_all_templates():
    model = built(clip(class_names=("cat", "ankle boot")), RGB)
    labels = torch.tensor([0, 1]).repeat(200)
    codes, groups = model.captions(labels, rng())
    assert torch.equal(groups, labels)
    for k, name in enumerate(("cat", "ankle boot")):
        texts = byte_codes([caption(template, name) for template in TEMPLATES])
        counts = (codes[labels == k][:, None] == texts).all(2).sum(0)
        assert counts.sum() == 200 and counts.min() > 10  # 29 each, standard deviation 5
    again, _ = model.captions(labels, rng())
    assert torch.equal(again, codes)


def test_equal_captions_are_right_for_each_other():
    model = built(clip(), RGB, spread=0.2)
    pictures, codes = images(4, RGB), byte_codes(["a cat", "a dog", "a cat", "a hen"])
    captions, groups = model.captions(codes, rng())
    assert torch.equal(captions, codes)
    assert (groups[:, None] == groups).tolist() == (codes[:, None] == codes).all(2).tolist()
    expected = Clip()(
        model.embed_images_shared(pictures), model.embed_text(["a cat", "a dog", "a cat", "a hen"]),
        model.logits, torch.tensor([0, 1, 0, 2]),
    )  # fmt: skip
    torch.testing.assert_close(model.loss(Batch(pictures, codes)).total, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("cond", "said"),
    [
        (None, "captions or classes"),
        (torch.zeros(2, 3), "captions or classes"),
        (torch.tensor([0, 2]), "class 2 has no name"),
    ],
)
def test_batches_without_captions(cond, said):
    model = built(clip(class_names=("cat", "dog")), RGB)
    with pytest.raises(GenzooError, match=said):
        model.loss(Batch(images(2, RGB), cond))


@pytest.mark.parametrize(
    ("fields", "spec", "said"),
    [
        ({"templates": ()}, RGB, "templates"),
        ({"templates": ("a photo",)}, RGB, "templates"),
        ({"class_names": ("cat",)}, DIGITS, "10 classes need as many class_names, got 1"),
        ({}, DataSpec((4,), levels=None), "levels"),
    ],
)
def test_configurations_that_cannot_be(fields, spec, said):
    with pytest.raises(GenzooError, match=said):
        clip(**fields).build(spec)


def test_runs_are_told_of_captions(tmp_path, digits):
    config = clip()
    named, same = config.adapted(digits)
    assert same is digits and named.class_names == class_names(digits)
    named_otherwise = clip(class_names=("a",) * 10)
    assert named_otherwise.adapted(digits)[0] is named_otherwise
    other = VAEConfig()  # no configuration of clip's
    assert other.adapted(digits) == (other, digits)
    for i in range(4):
        Image.new("L", (4, 4), 60 * i).save(tmp_path / f"{i}.png")
    lines = [f'{{"file": "{i}.png", "text": "shade {i}"}}\n' for i in range(4)]
    with pytest.raises(GenzooError, match=r"captions\.jsonl"):
        config.adapted(load_data(f"folder:{tmp_path}"))
    (tmp_path / "captions.jsonl").write_text("".join(lines))
    unnamed, folder = config.adapted(load_data(f"folder:{tmp_path}"))
    assert unnamed is config and folder.train.batch(torch.tensor([0])).cond.shape == (1, TEXT.length)


# --- vectors -------------------------------------------------------------------------------------------------------


def test_which_vectors_are_which():
    model = built(clip(), DIGITS, spread=0.2)
    pictures = images(5, DIGITS)
    own, shared, said = (
        model.embed(pictures),
        model.embed_images_shared(pictures),
        model.embed_text(["a", "b"]),
    )
    assert own.shape == (5, 16) and shared.shape == (5, 12) and said.shape == (2, 12)
    centres = pictures.float() * (2 / 17) + 1 / 17 - 1
    with torch.no_grad():
        torch.testing.assert_close(own, model.backbone(centres))
        torch.testing.assert_close(shared, F.normalize(model.image_projection(own), dim=1))
    for vectors in (shared, said):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
        assert vectors.dtype == torch.float32 and not vectors.requires_grad


def test_texts_are_cut_and_compared_as_people_read_them():
    model = built(clip(), DIGITS, spread=0.2)
    long = "a very long caption that goes on and on about one thing, and then another"
    a, b, c, d, e = model.embed_text([long, long[:48], long[:47], "A  Cat", "a cat"])
    assert torch.equal(a, b) and torch.equal(d, e) and not torch.allclose(a, c, atol=1e-4)
    assert model.embed_text([]).shape == (0, 12)
    with pytest.raises(GenzooError, match="a list of strings"):
        model.embed_text("a cat")


def test_names_are_means_over_templates():
    model = built(clip(), DIGITS, spread=0.2)
    found = model.embed_names(["cat", "apple"])
    for vector, name in zip(found, ("cat", "apple"), strict=True):
        mean = model.embed_text([caption(template, name) for template in TEMPLATES]).mean(0)
        torch.testing.assert_close(vector, mean / mean.norm())


# --- learning ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def trained(config, data, split, steps):
    config = dataclasses.replace(
        config, training=TrainConfig(batch_size=64, learning_rate=3e-3, precision="fp32", warmup_steps=10)
    )
    return built(config, data.spec).fit(split, steps=steps, progress=False)


def told(model, data, names):
    """The share of test images whose own class's name is nearest in the shared space."""
    scores = model.embed_images_shared(data.test.images) @ model.embed_names(names).T
    return (scores.argmax(1) == data.test.labels).float().mean().item()


@pytest.mark.parametrize("objective", [Clip(), SigLIP(bias=-2.0)], ids=["clip", "siglip"])
def test_digits_are_found_by_their_names(digits, objective):
    config = clip(ResNetConfig((16, 32)), objective=objective)
    names = class_names(digits)
    assert told(built(config, digits.spec), digits, names) < 0.35
    assert told(trained(config, digits, digits.train, 100), digits, names) > 0.75  # chance: 0.1


def test_captions_of_a_split_teach_as_well(digits):
    """Words of the user's own, two per digit; a word of one class is never near another's images."""
    words = [
        "nought",
        "single",
        "pair",
        "triple",
        "quartet",
        "hand",
        "half dozen",
        "week",
        "octopus",
        "cat lives",
    ]
    texts = [[words[k], f"it shows {words[k]}"] for k in digits.train.labels.tolist()]
    split = CaptionedSplit(TensorSplit(digits.train.images, digits.train.labels), texts)
    model = trained(clip(ResNetConfig((16, 32)), templates=("{}", "it shows {}")), digits, split, 80)
    assert told(model, digits, words) > 0.8
    assert told(model, digits, words[::-1]) < 0.2


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_views_of_a_captioned_folder_keep_what_captions_say(shape):
    """A mark at one end of one side stays there, whatever is drawn; its colour stays, too."""
    encoder = genzoo.create_encoder("clip", DataSpec(shape, 256), "tiny")
    x = torch.full((200, *shape), -0.5)
    x[:, 0, : shape[1] // 4, : shape[2] // 4] = 0.9
    seen = encoder.config.augmentation(x, torch.Generator().manual_seed(0))
    corner = seen[:, :, : shape[1] // 4, : shape[2] // 4].mean((2, 3))
    elsewhere = seen[:, :, shape[1] // 2 :].mean((2, 3))
    assert (corner[:, 0] > elsewhere[:, 0] + 0.5).all()
    assert shape[0] == 1 or (corner[:, 1:] - elsewhere[:, 1:]).abs().max() < 0.1
