"""The benchmarks of conditioning: their parts, and their tables on digits after a few steps."""

import sys

import pytest
import torch
from small_models import rng

import genzoo
from benchmarks import budget, class_conditional, variations
from genzoo.core.errors import GenzooError
from genzoo.data.split import TensorSplit
from genzoo.evaluation.classifier import Classifier, fit_classifier
from genzoo.models.registry import every_preset

PRESETS = every_preset()


@pytest.fixture(scope="module")
def digits():
    return genzoo.load_data("digits", cond="class")


def run(monkeypatch, benchmark, *argv):
    monkeypatch.setattr(sys, "argv", [benchmark.__name__, *argv])
    benchmark.main()


def refused(monkeypatch, capsys, benchmark, *argv):
    with pytest.raises(SystemExit):
        run(monkeypatch, benchmark, *argv)
    return capsys.readouterr().err


# --- budget --------------------------------------------------------------------------------------------------------


def test_minutes_become_steps(monkeypatch):
    """Steps of a quarter of a second after a start of two: a minute on three threads is 720 of them."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert budget.steps_for(lambda steps: 2 + 0.25 * steps, 1.0) == 720
    assert budget.steps_for(lambda steps: 2 + 1000.0 * steps, 0.1) == 1
    with pytest.raises(GenzooError, match="above 0"):
        budget.steps_for(lambda steps: 1.0 * steps, 0.0)


# --- classes -------------------------------------------------------------------------------------------------------


def test_every_way_of_conditioning_is_in_the_table():
    """What is left out are twins; what takes input images has no classes."""
    everything, own = class_conditional.chosen("all"), class_conditional.chosen(None)
    assert {*own, *class_conditional.TWINS} == {*everything}
    assert {*PRESETS} - {*everything} == {"image-to-image", "image-to-image-l1"}
    kinds = {type(PRESETS[name].sizes["tiny"]).__name__ for name in everything}
    assert {type(PRESETS[name].sizes["tiny"]).__name__ for name in own} == kinds
    assert class_conditional.chosen("gan,edm") == ("gan", "edm")


def test_samples_are_judged_by_the_class_asked_for(digits):
    """A model that draws the surest image of a class, but that of 1 for 7: right nine times of ten, 7 is worst."""
    classifier = fit_classifier(digits.train, digits.spec, steps=200)
    surest = classifier.probabilities(digits.test.images).argmax(0)

    class Copies:
        spec, device = digits.spec, torch.device("cpu")

        def sample(self, n, cond, *, generator):
            return digits.test.images[surest[torch.where(cond == 7, 1, cond)]]

    found, samples = class_conditional.judged(Copies(), classifier, 4, seed=0)
    assert torch.equal(samples[::4], digits.test.images[surest[[0, 1, 2, 3, 4, 5, 6, 1, 8, 9]]])
    assert found.worst == 7 and found.shares[7] == 0.0 and found.overall.value == pytest.approx(0.9)


def test_guidance_is_set_where_there_is_some(digits):
    flow = genzoo.create("flow", digits.spec, "tiny")
    assert class_conditional.guided(flow, None) == 1.0 == flow.config.sampling.guidance
    assert class_conditional.guided(flow, 2.5) == 2.5 == flow.config.sampling.guidance
    assert class_conditional.guided(genzoo.create("vae", digits.spec, "tiny"), 2.5) is None


def test_table_of_classes(monkeypatch, capsys, tmp_path):
    argv = ["--presets", "vqvae,shortcut", "--size", "tiny", "--steps", "3", "--each", "3"]
    monkeypatch.setattr(class_conditional, "fit_classifier", lambda train, spec, seed: quick(train, spec))
    run(monkeypatch, class_conditional, *argv, "--out", str(tmp_path / "pictures"))
    head, *rows = capsys.readouterr().out.splitlines()
    assert "asked class" in head and [row[:18].strip() for row in rows] == [
        "real test images",
        "vqvae",
        "shortcut",
    ]
    assert all(0 <= float(row[18:].split()[0]) <= 100 for row in rows) and "below the target" in rows[1]
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["shortcut.png", "vqvae.png"]


def quick(train, spec) -> Classifier:
    return fit_classifier(train, spec, steps=20)


def test_presets_without_classes_are_refused(monkeypatch, capsys):
    assert "from an image" in refused(monkeypatch, capsys, class_conditional, "--presets", "image-to-image")
    assert "no preset" in refused(monkeypatch, capsys, class_conditional, "--presets", "gna")
    assert "no labels" in refused(monkeypatch, capsys, class_conditional, "--data", "toy:bernoulli-templates")


# --- variations ----------------------------------------------------------------------------------------------------


def test_others_of_the_class_are_of_it_and_never_those_judged():
    labels = torch.arange(40) % 4
    split = TensorSplit(torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1), labels)
    chosen = torch.tensor([0, 5, 10, 3, 4])
    found = variations.of_class(split, chosen, 6, rng())
    assert found.shape == (5, 6, 1, 1, 1)
    places = found.flatten(1).long()
    assert torch.equal(labels[places], labels[chosen][:, None].expand(-1, 6))
    assert not set(places.flatten().tolist()) & set(chosen.tolist())
    with pytest.raises(GenzooError, match="fewer --images"):
        variations.of_class(split, torch.arange(40), 1, rng())


def test_variations_are_drawn_image_by_image():
    """Each image's own lie beside each other: a model that shows the first number of its vector."""

    class Shows:
        device = torch.device("cpu")

        def sample(self, n, cond, *, generator):
            return cond[:, :1, None, None].to(torch.uint8).expand(n, 1, 2, 2)

    found = variations.drawn(Shows(), torch.tensor([[3.0, 0], [5, 0], [9, 0]]), 4, seed=0)
    assert found.shape == (3, 4, 1, 2, 2)
    assert found[:, :, 0, 0, 0].tolist() == [[3] * 4, [5] * 4, [9] * 4]


def test_copies_are_sure_and_classes_alone_are_not(digits):
    judge = genzoo.create_encoder("barlow", digits.spec, "tiny", seed=3)
    images, classes = digits.test.images[:60], digits.test.labels[:60]
    case = variations.Case(images, classes, judge)
    copies = case.figures(images[:, None].repeat(1, 2, 1, 1, 1))
    assert [found.value for found in copies] == [1.0] * 4
    others = case.figures(variations.of_class(digits.test, torch.arange(60), 2, rng()))
    assert 0.6 < others[2].value < 0.95 and abs(others[3].value - 0.5) < 4 * others[3].stderr
    assert variations.Case(images, None, judge).figures(images[:, None])[1] is None


def test_table_of_variations(monkeypatch, capsys, tmp_path):
    argv = [
        "--data",
        "digits",
        "--preset",
        "flow,vae",
        "--size",
        "tiny",
        "--encoder-size",
        "tiny",
        "--steps",
        "2",
    ]
    argv += ["--encoder-steps", "2", "--images", "30", "--each", "2", "--split", "val"]
    run(monkeypatch, variations, *argv, "--picture", str(tmp_path / "new" / "rows.png"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    names = ["", "simclr", "barlow", "", "others of its class", "flow, dealt out wrongly", "flow", "vae"]
    assert [line[:26].strip() for line in lines] == names
    assert all(len(line[26:].split("±")) == 5 for line in lines[4:])
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["rows-flow.png", "rows-vae.png"]


def test_a_judge_of_the_same_recipe_is_refused(monkeypatch, capsys):
    assert "not independent" in refused(monkeypatch, capsys, variations, "--features", "simclr")
    assert "did you mean 'flow'" in refused(monkeypatch, capsys, variations, "--preset", "flwo")
    assert "input image" in refused(monkeypatch, capsys, variations, "--preset", "image-to-image")
    assert "fewer --images" in refused(monkeypatch, capsys, variations, "--data", "digits")
