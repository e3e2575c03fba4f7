"""Samples evaluated: how they are drawn, figures of samples whose quality is known, and the command."""

import json
from dataclasses import replace

import numpy
import pytest
import torch
from banks import Bank, OfClasses
from commands import run
from PIL import Image

import genzoo
import genzoo.evaluation.features.extractor
import genzoo.metrics.quality
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import TensorSplit
from genzoo.evaluation import accuracy_score
from genzoo.evaluation.classifier import STEPS, fit_classifier
from genzoo.evaluation.drawing import draw_for
from genzoo.evaluation.evaluator import measured
from genzoo.evaluation.features.extractor import Extractor, extractor_named
from genzoo.evaluation.features.feature_space import FeatureSpace, pixel_space
from genzoo.evaluation.report.all_sections import SECTIONS
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.evaluated_samples import Inquiry
from genzoo.evaluation.report.picture_places import NEIGHBOURS
from genzoo.evaluation.report.rendering import report_rows
from genzoo.metrics.neighbours import expected_coverage
from genzoo.models.run_data import DataArguments
from genzoo.training.checkpoint import save_model

FIGURES = {
    "frechet", "fidelity", "variety", "frechet_train", "kid", "mmd", "sliced_wasserstein",
    "precision", "recall", "density", "coverage", "vendi", "fld",
}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    """The digits, dealt anew: the source's own splits differ a little, as their writers do."""
    data = genzoo.load_data("digits")
    x = torch.cat([data.train.images, data.val.images, data.test.images])
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    splits = {"train": TensorSplit(x[:700]), "val": TensorSplit(x[700:1400]), "test": TensorSplit(x[1400:])}
    return replace(data, **splits)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, digits):
    """A run folder that says nothing of how its model came to be."""
    folder = tmp_path_factory.mktemp("runs") / "saved"
    genzoo.create("vae", digits.spec, "tiny").save(folder)
    return folder


# --- drawing ---------------------------------------------------------------------------------------------------


def test_more_samples_begin_with_the_same(digits):
    model = Bank(digits.spec).holding(digits.train.images)
    few, many = (draw_for(model, digits, "test", n, seed=3).images for n in (30, 600))
    assert len(few) == 30 and len(many) == 600 and torch.equal(few, many[:30])
    assert [n for n, _ in model.asked] == [10, 20, 10, 20, 40, 80, 160, 250, 40]
    other = draw_for(model, digits, "test", 30, seed=4).images
    assert not torch.equal(few, other)


def test_drawing_ends_when_time_is_up(digits):
    model = Bank(digits.spec).holding(digits.train.images)
    drawn = draw_for(model, digits, "test", 600, max_seconds=0.0)
    assert len(drawn.images) == 10 and drawn.asked == 600 and drawn.cut_short
    assert not draw_for(model, digits, "test", 20, max_seconds=100.0).cut_short


def test_classes_are_drawn_in_the_shares_of_the_data(digits):
    labels = torch.tensor([0] * 30 + [2] * 10)
    data = replace(digits, train=TensorSplit(digits.train.images[:40], labels))
    spec = DataSpec(digits.spec.shape, 17, "class", 3)
    model = Bank(spec).holding(digits.train.images)
    drawn = draw_for(model, data, "test", 80)  # twice through the training images
    asked = torch.cat([cond for _, cond in model.asked])
    assert asked.bincount(minlength=3).tolist() == [60, 0, 20] and "classes" in drawn.conditions
    with pytest.raises(GenzooError, match="no classes"):
        draw_for(model, digits, "test", 20)


def test_vectors_are_those_of_the_judged_images(digits):
    vectors = torch.arange(60.0).view(20, 3)
    data = replace(digits, test=TensorSplit(digits.test.images[:20], vectors))
    model = Bank(DataSpec(digits.spec.shape, 17, "vector", 3)).holding(digits.train.images)
    drawn = draw_for(model, data, "test", 100)
    asked = torch.cat([cond for _, cond in model.asked])
    assert len(drawn.images) == 20 and not drawn.cut_short and "test images" in drawn.conditions
    assert torch.equal(asked[asked[:, 0].argsort()], vectors) and not torch.equal(asked, vectors)


def test_what_cannot_be_judged_is_refused(digits):
    model = Bank(digits.spec).holding(digits.train.images)
    with pytest.raises(GenzooError, match="two or more"):
        draw_for(model, digits, "test", 1)
    with pytest.raises(GenzooError, match="must lie in"):
        draw_for(model.holding(torch.full((1, 1, 8, 8), 17)), digits, "test", 20)
    with pytest.raises(GenzooError, match="must be integers"):
        draw_for(model.holding(torch.full((1, 1, 8, 8), float("nan"))), digits, "test", 20)
    with pytest.raises(GenzooError, match="must have the shape"):
        draw_for(model.holding(images_of(9)), digits, "test", 20)
    with pytest.raises(GenzooError, match="real-valued"):
        draw_for(Bank(DataSpec((2,), None)), digits, "test", 20)


def images_of(side):
    return torch.zeros(4, 1, side, side, dtype=torch.uint8)


# --- figures of samples whose quality is known -----------------------------------------------------------------


PIXELS = extractor_named("pixels")


def sections_of(samples, data, saved, *, judge=PIXELS, split="test", samples_asked=None, **options):
    inquiry = Inquiry(judge, samples_asked)
    model = Bank(data.spec).holding(samples)
    return of_samples(Case(model, data, split, run=saved, out=saved, inquiry=inquiry, **options))


def of_samples(case):
    return measured(case, [section for section in SECTIONS if section.of_samples])


def results_of(*args, **options):
    report = sections_of(*args, **options)
    return report.quality, report.memorisation


def test_real_images_are_as_good_as_real_images(digits, saved):
    """Held-out images as samples, each at most once."""
    quality, _ = results_of(digits.val.images, digits, saved)
    figures = quality.figures
    assert set(figures) == FIGURES
    assert list(quality.missing) == ["frechet_infinity"] and "512" in quality.missing["frechet_infinity"]
    n = len(digits.test)
    for figure in figures.values():
        assert figure.samples == n and figure.references == n
        assert figure.reference is not None
    for name in ("frechet", "frechet_train", "sliced_wasserstein"):
        assert figures[name].value < 2 * figures[name].reference
    for name in ("precision", "recall", "density", "coverage"):
        assert figures[name].value == pytest.approx(figures[name].reference, abs=0.1)
    # drawn with replacement, so that there are fewer different ones
    different = round(n * (1 - 1 / 2.718281828))
    assert figures["coverage"].value > expected_coverage(n, different) - 0.1
    assert figures["coverage"].reference == pytest.approx(expected_coverage(n, n), abs=0.03)
    assert quality.extractor.name == "pixel components" and quality.extractor.width == 64
    assert quality.samples == n and quality.seed == 0 and quality.seconds > 0


def test_bad_samples_are_worse_in_every_figure(digits, saved):
    noise = torch.randint(17, (300, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    figures = results_of(noise, digits, saved)[0].figures
    for name in FIGURES - {"vendi"}:  # diversity is what noise does not lack
        figure = figures[name]
        value, floor = figure.value, figure.reference
        assert value > floor if figure.direction == "lower" else value < floor, name
        assert name == "fld" or figure.low <= value <= figure.high


def test_one_image_again_and_again_lacks_diversity(digits, saved):
    figures = results_of(digits.val.images[:1], digits, saved)[0].figures
    assert figures["vendi"].value == pytest.approx(1, abs=1e-6) and figures["vendi"].reference > 2
    assert figures["recall"].value == 0 and figures["coverage"].value < 0.1


@pytest.mark.slow
def test_copies_of_training_images_are_found(digits, saved):
    quality, copies = results_of(digits.train.images, digits, saved)
    fresh = results_of(digits.val.images, digits, saved)[1]
    assert copies.figures["authenticity"].value == 0
    assert fresh.figures["authenticity"].value > 0.3
    assert copies.figures["ct"].value < -3 and abs(fresh.figures["ct"].value) < 3
    assert quality.figures["frechet_train"].value < quality.figures["frechet"].value
    picture = saved / NEIGHBOURS
    assert copies.picture == str(picture) and Image.open(picture).width > 64


def test_enough_images_have_an_extrapolated_distance(digits, saved):
    """Of 16 features, which 128 images suffice for: unlike the distance itself it has no bias."""
    space = replace(pixel_space(digits.train), width=16)
    narrow = Extractor(lambda data: replace(space, embed=lambda x: pixel_features(space, x)))
    figures = results_of(digits.val.images, digits, saved, judge=narrow)[0].figures
    assert abs(figures["frechet_infinity"].value) < figures["frechet"].value
    assert figures["frechet_infinity"].low < 0 < figures["frechet_infinity"].high


def pixel_features(space: FeatureSpace, x):
    return space.embed(x)[:, :16]


def test_few_samples_are_told(digits, saved):
    """Some figures need more than others; those that cannot be had say why, and the others are there."""
    quality, memorisation = results_of(digits.val.images, digits, saved, samples_asked=5)
    assert {"frechet", "kid"} <= set(quality.figures) and quality.samples == 5
    assert (
        "generated" in quality.missing["frechet_infinity"] or "images" in quality.missing["frechet_infinity"]
    )
    assert "ct" in memorisation.missing and all(
        "\n" not in reason for reason in memorisation.missing.values()
    )
    assert "two or more" in sections_of(digits.val.images, digits, saved, samples_asked=1).missing["quality"]
    assert (
        "two images or more" in sections_of(digits.val.images, digits, saved, max_images=1).missing["quality"]
    )


def test_judges_without_sense_are_one_line(digits, saved):
    broken = Extractor(lambda data: replace(pixel_space(data.train), scale=float("nan")))
    assert "NaN or infinite" in sections_of(digits.val.images, digits, saved, judge=broken).missing["quality"]
    constant = Extractor(lambda data: replace(pixel_space(data.train), scale=0.0))
    assert (
        "sees no difference"
        in sections_of(digits.val.images, digits, saved, judge=constant).missing["quality"]
    )
    assert (
        "nothing was trained on"
        in sections_of(digits.val.images, digits, saved, split="train").missing["quality"]
    )


def test_figures_do_not_change_from_run_to_run(digits, saved):
    first, again, other = (
        results_of(digits.val.images, digits, saved, seed=seed, samples_asked=40, max_images=60)[0].figures
        for seed in (2, 2, 3)
    )
    assert first == again != other


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "encoder"
    genzoo.create_encoder("simclr", genzoo.load_data("digits").spec, "tiny", seed=1).save(folder)
    return folder


def saved_run(folder, preset, cond=None, **options):
    """A fresh model in a run folder, as `genzoo train` begins one."""
    arguments = DataArguments("digits", cond=cond)
    data = arguments.load()
    save_model(
        genzoo.create(preset, data.spec, "tiny", **options), folder, facts={"data": arguments.protocol(data)}
    )
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(genzoo.evaluation.features.extractor, "STEPS", 2)
    return tmp_path / "cache"


def test_the_command_judges_samples(tmp_path, cache, capsys):
    folder = saved_run(tmp_path / "gan", "gan")
    assert run("evaluate", folder, "--samples", 60) == 0
    out = capsys.readouterr().out
    report = json.loads((folder / "report.json").read_text())
    test_id = genzoo.load_data("digits").protocol["test_id"]
    quality, memorisation = report["quality"][test_id], report["memorisation"][test_id]
    assert set(quality["figures"]) == FIGURES and set(memorisation["figures"]) == {"authenticity", "ct"}
    assert quality["samples"] == 60 and quality["figures"]["frechet"]["references"] == 359
    assert quality["extractor"]["name"] == "own encoder" and len(quality["extractor"]["identity"]) == 16
    for words in (
        "training the feature extractor",
        "Fréchet",
        "KID",
        "authenticity",
        quality["extractor"]["identity"],
        "real ",
    ):
        assert words in out
    assert Image.open(memorisation["picture"]).size == (8 * 65 + 1, 8 * 65 + 1)
    assert run("evaluate", folder, "--samples", 60) == 0
    assert "training the feature extractor" not in capsys.readouterr().out
    again = json.loads((folder / "report.json").read_text())["quality"][test_id]
    assert again["figures"] == quality["figures"] and again["extractor"] == quality["extractor"]


def test_nothing_is_drawn_where_nobody_wants_it(tmp_path, cache, capsys):
    folder = saved_run(tmp_path / "gan", "gan")
    assert run("evaluate", folder, "--samples", 0) == 0
    assert "quality" not in json.loads((folder / "report.json").read_text()) and not cache.exists()
    assert "Fréchet" not in capsys.readouterr().out


def test_samples_alone_leave_the_rest_of_the_report(tmp_path, cache):
    folder = saved_run(tmp_path / "vae", "vae")
    (folder / "report.json").write_text(json.dumps({"likelihood": {"a": 1}, "cost": {"b": 2}}))
    asked = ("--samples", 30, "--features", "random", "--max-images", 50)
    assert run("evaluate", folder, "--samples-only", *asked) == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["likelihood"] == {"a": 1} and report["cost"] == {"b": 2}
    assert report.keys() == {
        "format", "about", "likelihood", "cost", "quality", "memorisation", "classes", "illustrations",
    }  # fmt: skip
    (pictures,) = report["illustrations"].values()
    drawn = [*pictures["pictures"], *(folder / "samples" / name for name in ("judged.png", "by-class.png"))]
    assert len(drawn) == 4 and all(Image.open(path).size > (50, 50) for path in drawn)


def fitting_classifiers_in(most, monkeypatch):
    """In at most so many steps each."""

    def quick(train, spec, *, steps=STEPS, seed=0):
        return fit_classifier(train, spec, steps=min(steps, most), seed=seed)

    monkeypatch.setattr(accuracy_score, "fit_classifier", quick)


def test_classes_and_vectors(tmp_path, cache, encoder, monkeypatch):
    fitting_classifiers_in(20, monkeypatch)
    for cond in ("class", f"encoder:{encoder}"):
        folder = saved_run(tmp_path / cond[:5], "gan", cond)
        assert run("evaluate", folder, "--samples", 30, "--features", "random", "--max-images", 50) == 0
        (quality,) = json.loads((folder / "report.json").read_text())["quality"].values()
        assert quality["samples"] == 30 and quality["figures"]["frechet"]["references"] == 50
        assert ("classes" if cond == "class" else "test images") in quality["conditions"]
        assert quality["extractor"]["name"] == "random convolutions"


def test_the_encoder_of_the_condition_is_refused(tmp_path, cache, encoder, capsys):
    folder = saved_run(tmp_path / "gan", "gan", f"encoder:{encoder}")
    assert (
        run("evaluate", folder, "--samples", 20, "--max-images", 20, "--features", f"encoder:{encoder}") == 2
    )
    error = capsys.readouterr().err
    assert "are no evidence" in error and error.count("\n") == 1
    assert not (folder / "report.json").exists()


@pytest.mark.parametrize(("argv", "words"), [
    (["--samples", "1"], "at least 2"), (["--samples", "-3"], "--samples must be a whole number"),
    (["--features", "nobody"], "--features takes"),
    (["--samples", "0", "--samples-only"], "nothing to evaluate"), (["--ais", "9", "--samples-only"], "leaves alone"),
    (["--samples", "0", "--features", "pixels"], "nothing to evaluate"),
    (["--features", "encoder:nowhere"], "no run folder"),
    (["--split", "train", "--samples", "20"], "nothing was trained on"),
])  # fmt: skip
def test_mistakes_are_one_line(tmp_path, cache, capsys, argv, words):
    folder = saved_run(tmp_path / "gan", "gan")
    assert run("evaluate", folder, *argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_split_without_a_judgement_says_why(tmp_path, cache, capsys):
    """Nobody asked for samples, so that their lack is no mistake."""
    folder = saved_run(tmp_path / "gan", "gan")
    assert run("evaluate", folder, "--split", "train") == 0
    assert "sample quality" in capsys.readouterr().out


def test_encoders_draw_nothing(encoder, capsys):
    assert run("evaluate", encoder, "--data", "digits", "--samples", 10) == 2
    assert "models that draw images" in capsys.readouterr().err


# --- classes -----------------------------------------------------------------------------------------------------


def test_classes_of_samples_that_nobody_asked_for(saved):
    data = genzoo.load_data("digits")
    threes = data.val.images[data.val.labels == 3]
    classes = sections_of(threes, data, saved, samples_asked=36).classes
    assert classes.share_of["three"].value > 0.9 and classes.share_of["three"].reference < 0.2
    assert classes.shift.value > 0.8
    tiles = Image.open(classes.picture)
    assert tiles.size == (8 * 65 + 1, 10 * 65 + 1)
    row = numpy.asarray(tiles.convert("L"))[3 * 65 + 1 : 4 * 65, 1:65]
    assert row.max() > 200 and numpy.asarray(tiles.convert("L"))[1:65, 1:65].max() == 0  # no zero was drawn


@pytest.mark.parametrize(
    ("steps", "right"),
    [pytest.param(100, 0.8, marks=pytest.mark.slow), pytest.param(STEPS, 0.97, marks=pytest.mark.slow)],
    ids=["quick", "full"],
)
def test_samples_of_classes_are_held_against_what_was_asked(saved, steps, right, monkeypatch):
    fitting_classifiers_in(steps, monkeypatch)
    data = genzoo.load_data("digits", cond="class")
    figures = {}
    for shift in (0, 1):
        model = OfClasses(data.spec).drawing(data.train, shift)
        inquiry = Inquiry(Extractor(lambda data: pixel_space(data.train)), 300)
        report = of_samples(Case(model, data, "test", run=saved, out=saved, inquiry=inquiry))
        figures[shift] = report.quality.figures
        assert "accuracy score" in " ".join(report_rows(report)) and report.classes is None
    asked, other = figures[0]["class_accuracy"], figures[1]["class_accuracy"]
    assert asked.value > right > 1 - right > other.value and asked.reference > right - 0.02
    taught, mistaught = figures[0]["accuracy_score"], figures[1]["accuracy_score"]
    assert abs(taught.value - taught.reference) < 0.1 and mistaught.value < 0.1
