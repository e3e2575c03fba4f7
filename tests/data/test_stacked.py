"""Stacked images: channels and labels agree, nothing crosses from split to split, and their benchmarks' tables."""

import math

import numpy as np
import pytest
import torch

from benchmarks.gan_digits import Classes
from benchmarks.gan_modes import with_loss
from benchmarks.stacked_digits import Judge
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import TensorSplit, load_data, source_names, stacked, validate
from genzoo.data.image_data import ImageData, protocol
from genzoo.data.stacked_channels import stack_classes
from genzoo.evaluation.classifier import fit_classifier
from genzoo.objectives.adversarial import R1, R2, GradientPenalty, RelativisticPaired, Wasserstein

PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def stacks():
    return load_data("stacked-digits")


def tiny(labels, shape=(1, 2, 3)):
    """Four grey images whose every pixel is ten times the split plus the position in it; three splits alike."""
    splits = tuple(
        TensorSplit(
            (10 * part + torch.arange(4, dtype=torch.uint8))
            .view(-1, 1, 1, 1)
            .expand(-1, *shape)
            .contiguous(),
            labels,
        )
        for part in range(3)
    )
    return ImageData("tiny", *splits, DataSpec(shape), protocol("tiny", splits, "tiny/test"))


def test_every_channel_is_a_digit_of_the_same_split_with_its_class(digits, stacks):
    for part in PARTS:
        single, stack = digits.split(part), stacks.split(part)
        label_of = {
            bytes(x.numpy().ravel()): int(y) for x, y in zip(single.images, single.labels, strict=True)
        }
        assert len(label_of) == len(single)
        channels = stack.images[:3000].flatten(2).numpy()
        found = [[label_of[bytes(c)] for c in image] for image in channels]  # unknown digits would be missing
        assert [100 * a + 10 * b + c for a, b, c in found] == stack.labels[:3000].tolist()


def test_sizes_spec_and_protocol(stacks):
    assert [len(stacks.split(part)) for part in PARTS] == [50_000, 5_000, 10_000]
    assert stacks.spec == DataSpec((3, 8, 8), levels=17) and stacks.train.labels.dtype == torch.long
    assert stacks.train.images.dtype == torch.uint8 and stacks.train.images.shape == (50_000, 3, 8, 8)
    assert stacks.name == stacks.protocol["name"] == "stacked-digits" and "stacked-digits" in source_names()
    assert stacks.protocol["test_id"] == "stacked-digits/test@seed=0,triples=10000,triples_seed=2"
    assert stacks.protocol["sizes"] == {"train": 50_000, "val": 5_000, "test": 10_000}
    assert stacks.protocol["of"]["test_id"] == "digits/test@seed=0"
    validate(stacks.val, stacks.spec)


def test_a_thousand_classes_for_conditional_models(stacks):
    conditional = load_data("stacked-digits", cond="class")
    assert conditional.spec == DataSpec((3, 8, 8), 17, "class", 1000)
    assert torch.equal(conditional.test.labels, stacks.test.labels)
    validate(conditional.train, conditional.spec)


def test_modes_are_as_likely_as_independent_draws_make_them(digits, stacks):
    shares = torch.bincount(digits.train.labels).double() / len(digits.train)
    expected = 50_000 * torch.einsum("a,b,c->abc", shares, shares, shares).flatten()
    counts = torch.bincount(stacks.train.labels, minlength=1000)
    chi = ((counts - expected) ** 2 / expected).sum().item()
    assert counts.min() > 0 and abs(chi - 999) < 4 * math.sqrt(2 * 999)


def test_the_triples_are_the_same_for_ever(digits, stacks):
    triples = np.random.RandomState(0).randint(len(digits.train), size=(50_000, 3))
    assert torch.equal(stacks.train.images[-1], digits.train.images[triples[-1]][:, 0])
    again = load_data("stacked-digits")
    for part in PARTS:
        assert torch.equal(stacks.split(part).images, again.split(part).images)
        assert torch.equal(stacks.split(part).labels, again.split(part).labels)
    assert not torch.equal(stacks.train.labels[:5000], stacks.val.labels)


def test_any_grey_labelled_source_is_stacked():
    data = tiny(torch.tensor([0, 1, 2, 1]))
    found = stacked(data, cond="class", sizes=(50, 40, 30))
    assert found.spec == DataSpec((3, 2, 3), 256, "class", 27) and found.name == "stacked-tiny"
    assert found.protocol["test_id"] == "stacked-tiny/test@triples=30,triples_seed=2"
    for part, (name, n) in enumerate(zip(PARTS, (50, 40, 30), strict=True)):
        split = found.split(name)
        positions = split.images[:, :, 0, 0].long() - 10 * part
        assert split.images.shape == (n, 3, 2, 3) and positions.min() == 0 and positions.max() == 3
        classes = torch.tensor([0, 1, 2, 1])[positions]
        assert torch.equal(split.labels, 9 * classes[:, 0] + 3 * classes[:, 1] + classes[:, 2])
        assert len(split.labels.unique()) > 9


def test_stacked_mnist(genzoo_data):
    mnist = load_data("mnist", genzoo_data)
    found = stacked(mnist, sizes=(30, 20, 10))
    assert found.spec == DataSpec((3, 28, 28), 256)
    triple = np.random.RandomState(2).randint(10_000, size=(10, 3))[7]
    assert torch.equal(found.test.images[7], mnist.test.images[triple][:, 0])
    assert found.test.labels[7] == int("".join(str(int(y)) for y in mnist.test.labels[triple]))


def test_what_is_not_stacked(stacks):
    with pytest.raises(GenzooError, match=r"only grey images .* shape \(3, 8, 8\)"):
        stacked(stacks)
    with pytest.raises(GenzooError, match=r"only grey images .* no levels"):
        stacked(load_data("toy:gaussian"))
    with pytest.raises(GenzooError, match="tiny has no classes to stack"):
        stacked(tiny(None))
    with pytest.raises(GenzooError, match='cond must be None or "class"'):
        load_data("stacked-digits", cond="vector")


# --- the benchmarks on them ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stacks_are_judged_channel_by_channel(digits, stacks):
    judge = Judge(fit_classifier(digits.train, digits.spec, steps=400))
    right = (judge.modes_of(stacks.test.images) == stacks.test.labels).double().mean().item()
    assert right == pytest.approx(judge.classifier.accuracy(digits.test) ** 3, abs=0.02) and right > 0.9
    one_mode = stacks.test.images[:1].expand(50, -1, -1, -1)
    found = judge.coverage(one_mode)
    assert (found.covered, found.modes) == (1, 1000)
    assert found.divergence == pytest.approx(math.log(1000), abs=1e-9)
    two = judge.coverage(torch.cat([stacks.train.images[:1].expand(999, -1, -1, -1), stacks.test.images[:1]]))
    assert two.covered == 2  # a single sample is enough


def test_the_preset_takes_each_loss(stacks):
    gan = with_loss("relativistic", stacks.spec, "tiny")
    assert isinstance(gan.loss, RelativisticPaired)
    assert [type(p.penalty) for p in gan.penalties] == [R1, R2]
    gan = with_loss("wasserstein", stacks.spec, "tiny")
    assert isinstance(gan.loss, Wasserstein) and [type(p.penalty) for p in gan.penalties] == [GradientPenalty]
    assert with_loss("unpenalised", stacks.spec, "tiny").penalties == ()


def test_classes_are_drawn_when_enough_samples_surely_show_them():
    sure, unsure = [0.95, 0.03, 0.02], [0.2, 0.8, 0.0]
    rows = [sure] * 96 + [[0.0, 0.0, 1.0]] * 2 + [unsure] * 2
    found = Classes.of(torch.tensor(rows, dtype=torch.float64))
    assert found.drawn == 2 and found.shares == (0.96, 0.02, 0.02)
    assert found.sure == pytest.approx(0.96 * 0.95 + 0.02 * 1 + 0.02 * 0.8)
    assert Classes.of(torch.tensor(rows[:-3] + [unsure] * 3)).drawn == 1
    assert "1/3" in Classes.of(torch.tensor([sure] * 3)).row("0", 1.0)


def test_labels_are_numbers_in_base_k():
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    assert stack_classes(every, 4).tolist() == list(range(64))
