"""Judging and comparing from Python what has no run folder, and metrics from outside."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from typing import NamedTuple

import pytest
import torch
from banks import Bank
from hand_written_runs import SPEC, cost, hand_written, likelihood, quality

import genzoo
import genzoo.evaluation.features.extractor
import genzoo.metrics.quality
from genzoo.__main__ import main
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.evaluation import compare, evaluate, feature_space, read_report, report_rows, write_report
from genzoo.evaluation.comparison.tables import figure_names
from genzoo.evaluation.features.feature_space import pixel_space
from genzoo.evaluation.report.schema import Report
from genzoo.metrics import frechet_distance, kid, precision, recall, register
from genzoo.metrics.metric_registry import METRICS
from genzoo.models.run_data import DataArguments


@pytest.fixture(scope="module")
def digits():
    return genzoo.load_data("digits")


@pytest.fixture(scope="module")
def model(digits):
    return genzoo.create("vae", digits.spec, "tiny")


QUICK = {"samples": 40, "features": "pixels", "max_images": 60}


@pytest.fixture(scope="module")
def report(model, digits, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("empty"))
        made = evaluate(model, digits, **QUICK)
        assert list(tmp_path_factory.getbasetemp().glob("empty0/*")) == []  # no picture, no file
        return made


# --- evaluate ----------------------------------------------------------------------------------------------------


def test_a_model_in_memory_is_judged(report, model, digits):
    assert [name for name, _ in report.parts()] == [
        "about", "likelihood", "baselines", "latents", "cost", "quality", "memorisation", "classes",
    ]  # fmt: skip
    assert report.test_id == digits.protocol["test_id"] and report.missing == {}
    assert (report.about.name, report.about.data, report.about.shape) == ("VAE", "digits", (1, 8, 8))
    own = model.log_likelihood(digits.test.images)
    reach = 6 * own.bits_per_dim.std().item() / 60**0.5
    assert report.likelihood.bits_per_dim.value == pytest.approx(own.bits_per_dim.mean().item(), abs=reach)
    assert report.likelihood.images == 60 and report.likelihood.kind == "LOWER_BOUND"
    assert report.quality.samples == 40 and report.quality.extractor.name == "pixel components"
    assert report.cost.cost.training is None and report.quality.picture is None
    assert "Fréchet" in report_rows(report) and "test bits/dim" in report_rows(report)


@pytest.mark.slow
def test_the_same_call_gives_the_same_report(report, model, digits):
    again, other = (evaluate(model, digits, seed=seed, **QUICK) for seed in (0, 1))
    for name in ("baselines", "latents", "memorisation", "classes"):
        first, second = (
            replace_times(getattr(r, name)) if name != "baselines" else r.baselines.likelihoods["PNG"].nats
            for r in (report, again)
        )
        assert first == second, name
    assert again.quality.figures == report.quality.figures != other.quality.figures


def replace_times(part):
    times = [f.name for f in fields(part) if f.name.endswith("seconds")]
    return replace(part, **dict.fromkeys(times))


def test_the_command_reports_the_same(report, model, digits, tmp_path):
    """Of a run folder: what costs time aside, part by part."""
    model.save(tmp_path / "run")
    argv = ["--data", "digits", "--samples", "40", "--features", "pixels", "--max-images", "60"]
    assert main(["evaluate", str(tmp_path / "run"), *argv]) == 0
    stored = read_report(tmp_path / "run").report(report.test_id)
    assert stored.quality.figures == report.quality.figures
    assert stored.likelihood.nats == report.likelihood.nats and stored.likelihood.gap == report.likelihood.gap
    assert stored.memorisation.figures == report.memorisation.figures
    assert stored.classes.share_of == report.classes.share_of and stored.latents.rate == report.latents.rate


def test_pictures_are_drawn_where_a_folder_is_named(model, digits, tmp_path):
    report = evaluate(model, digits, out=tmp_path / "out", **{**QUICK, "samples": 20})
    names = {path.name for path in (tmp_path / "out").rglob("*.png")}
    assert names >= {
        "judged.png",
        "nearest-neighbours.png",
        "by-class.png",
        "reconstructions.png",
        "latents.png",
    }
    assert report.quality.picture == str(tmp_path / "out" / "samples" / "judged.png")
    write_report(report, tmp_path / "mine.json")
    assert read_report(tmp_path / "mine.json").report(report.test_id) == report


def test_an_encoder_in_memory_is_probed(digits, tmp_path):
    encoder = genzoo.create_encoder("simclr", digits.spec, "tiny")
    report = evaluate(encoder, digits, max_images=50)
    assert report.probes.images == 50 and 0 <= report.probes.knn.value <= 1 and report.map is None
    assert evaluate(encoder, digits, max_images=50, out=tmp_path).map.picture == str(
        tmp_path / "embeddings.png"
    )


def test_a_model_without_likelihood_says_why(digits):
    gan = genzoo.create("gan", digits.spec, "tiny")
    report = evaluate(gan, digits, samples=0)
    assert report.likelihood is None and "GAN" in report.missing["likelihood"] and report.modes.modes == 10
    assert report.baselines is None and report_rows(report)["likelihood"].startswith("none: ")


def test_weights_that_are_no_numbers_are_refused(digits):
    model = genzoo.create("pixelcnn", digits.spec, "tiny")
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    with pytest.raises(GenzooError, match="hold NaN or infinity"):
        evaluate(model, digits, samples=0, max_images=10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "vae"}, "a model or an encoder is evaluated, got str"),
        ({"data": torch.zeros(3, 1, 8, 8)}, "use genzoo.load_data"),
        ({"split": "exam"}, "test, val or train"),
        ({"samples": 1}, "at least 2"),
        ({"samples": 0, "features": "pixels"}, "nothing to evaluate"),
        ({"features": "nobody"}, "takes encoder:RUN"),
        ({"max_seconds": 0}, "above 0"),
        ({"split": "train", "samples": 20}, "nothing was trained on"),
    ],
)
def test_mistakes_are_one_line(model, digits, change, words):
    arguments = {"model": model, "data": digits, **change}
    with pytest.raises(GenzooError, match=words) as error:
        evaluate(arguments.pop("model"), arguments.pop("data"), **arguments)
    assert "\n" not in str(error.value)


def test_data_that_do_not_fit(model, digits):
    with pytest.raises(GenzooError, match="its levels is 2, the model was made for 17"):
        evaluate(model, replace(digits, spec=DataSpec((1, 8, 8), 2)))


def test_what_helped_to_make_a_model_is_refused_it(digits, tmp_path):
    """In memory too, by what the data say of their conditions."""
    genzoo.create_encoder("simclr", digits.spec, "tiny").save(tmp_path / "e")
    data = DataArguments("digits", cond=f"encoder:{tmp_path / 'e'}").load()
    gan = genzoo.create("gan", data.spec, "tiny")
    with pytest.raises(GenzooError, match="are no evidence"):
        evaluate(gan, data, samples=20, features=f"encoder:{tmp_path / 'e'}")


# --- feature spaces and metrics ----------------------------------------------------------------------------------


def test_a_feature_space_is_a_function_of_images(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(genzoo.evaluation.features.extractor, "STEPS", 2)
    space = feature_space(digits)
    found = space(digits.test.images[:5])
    assert found.shape == (5, space.width) and found.dtype == torch.float64
    assert torch.equal(feature_space(digits)(digits.test.images[:5]), found)  # kept, not trained anew
    assert feature_space(digits, "pixels").name == "pixel components"


def test_metrics_are_functions_of_features():
    real, fake = (torch.randn(200, 4, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1))
    shifted = fake + torch.tensor([3.0, 0, 0, 0])
    assert (
        frechet_distance(real, shifted) == pytest.approx(9, abs=1.5) and frechet_distance(real, real) < 1e-6
    )
    assert kid(real, shifted).value > kid(real, fake).value
    assert precision(real, fake) > 0.8 > 0.2 > precision(real, fake + 30) and recall(real, real) == 1


class Measured(NamedTuple):
    value: float
    stderr: float


@pytest.fixture
def registered():
    """Registers for one test."""
    names = []

    def add(name, function, **options):
        names.append(name)
        register(name, function, **options)

    yield add
    for name in names:
        METRICS.remove(name)


def mean_distance(real, fake):
    assert real.dtype == fake.dtype == torch.float64
    return (real.mean(0) - fake.mean(0)).norm()


def test_a_metric_from_outside_is_in_every_report(registered, digits):
    registered("mean distance", mean_distance)
    registered("with its error", lambda real, fake: Measured(2.0, 0.5), higher_is_better=True)
    model = Bank(digits.spec).holding(digits.val.images)
    figures = evaluate(model, digits, **QUICK).quality.figures
    space, own = pixel_space(digits.train, 5000), figures["mean distance"]
    assert own.low < own.value < own.high and own.samples == 40 and own.references == 60
    assert "random halves" in own.interval and 0 < own.reference < 3 * own.value and not own.higher_is_better
    error = figures["with its error"]
    assert (error.value, error.stderr, error.reference, error.higher_is_better) == (2.0, 0.5, 2.0, True)
    assert (error.low, error.high) == pytest.approx((2 - 0.98, 2 + 0.98))
    black = Bank(digits.spec).holding(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    far = evaluate(black, digits, **QUICK).quality.figures["mean distance"]
    real, fake = (space(images).mean(0) for images in (digits.test.images, torch.zeros(2, 1, 8, 8).byte()))
    assert far.value > 3 * own.value and far.value == pytest.approx((real - fake).norm().item(), rel=0.2)


def test_a_metric_from_outside_is_compared(registered, model, digits, tmp_path):
    registered("mean distance", mean_distance)
    report = evaluate(model, digits, **QUICK)
    write_report(report, tmp_path)
    assert read_report(tmp_path).report(report.test_id).quality == report.quality
    comparison = compare([report, report])
    assert "mean distance" in figure_names(comparison.entries) and "mean distance" in report_rows(report)


def test_a_metric_that_fails_costs_itself_only(registered, model, digits):
    registered("broken", lambda real, fake: 1 / 0)
    registered("not finite", lambda real, fake: float("nan"))
    registered("a word", lambda real, fake: "good")
    quality = evaluate(model, digits, **QUICK).quality
    assert "frechet" in quality.figures and not {"broken", "not finite", "a word"} & set(quality.figures)
    assert "ZeroDivisionError" in quality.missing["broken"] and "nan" in quality.missing["not finite"]
    assert all("\n" not in reason for reason in quality.missing.values())


def test_what_cannot_be_registered(registered):
    for name, function, words in (
        ("kid", mean_distance, "genzoo's own"), ("", mean_distance, "needs a name"),
        ("a\nb", mean_distance, "needs a name"), ("mine", 5, "is a function"),
    ):  # fmt: skip
        with pytest.raises(GenzooError, match=words):
            register(name, function)
    registered("mine", mean_distance)
    registered("mine", frechet_distance)  # the last one counts
    assert METRICS.rows["mine"].function is frechet_distance


# --- compare -----------------------------------------------------------------------------------------------------


def test_runs_reports_and_models_beside_each_other(model, report, tmp_path):
    data = genzoo.load_data("digits")
    run = hand_written(tmp_path / "run", "pixelcnn", quality(5.0), likelihood(2.0), cost(10.0))
    page = tmp_path / "page.html"
    comparison = compare([run, report, ("mine", model, data), report], html=page, samples=0, max_images=20)
    assert [e.name for e in comparison.entries] == [
        "run",
        "VAE",
        "mine",
        "VAE 2",
    ] and comparison.data == "digits"
    assert comparison.entries[1].report is report and comparison.entries[2].report.quality is None
    assert comparison.entries[0].parameters != comparison.entries[1].parameters == report.about.parameters
    bits = f"<= {report.likelihood.bits_per_dim.value:.3f}"
    assert bits in str(comparison) and "on digits" in str(comparison) and "VAE 2" in str(comparison)
    text = page.read_text(encoding="utf-8")
    assert "a model in memory" in text and "genzoo.evaluation.evaluate" in text and ">mine<" in text


def test_pictures_of_a_report_are_on_the_page(model, digits, tmp_path):
    report = evaluate(model, digits, out=tmp_path / "out", **{**QUICK, "samples": 20})
    compare([report], html=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") >= 4 and "Images beside their reconstructions" in text


def test_what_cannot_be_compared(report, digits, model, tmp_path):
    run, other = hand_written(tmp_path / "run"), replace(report.about, data="mnist")
    encoder = genzoo.create_encoder("simclr", SPEC, "tiny")
    for items, words in (
        ([], "takes a list"), ("runs/vae", "takes a list"), ([run, run], "named twice"), ([5], "got int"),
        ([report, replace(report, about=other)], "compare runs of one data set"),
        ([Report("x")], "does not say which model"), ([("e", encoder, digits)], "is an encoder"),
        ([("m", model, digits, 3)], "got tuple"), ([tmp_path / "nowhere"], "no run folder"),
        ([evaluate(encoder, digits, max_images=20)], "is an encoder"),
    ):  # fmt: skip
        with pytest.raises(GenzooError, match=words) as error:
            compare(items)
        assert "\n" not in str(error.value)


# --- imports -----------------------------------------------------------------------------------------------------


def test_names_are_there_and_torch_waits():
    code = """
import sys, json
import genzoo.evaluation, genzoo.metrics
assert "torch" not in sys.modules
known = {*dir(genzoo.evaluation), *dir(genzoo.metrics)}
assert {"evaluate", "compare", "feature_space", "frechet_distance", "register"} <= known
for room in (genzoo.evaluation, genzoo.metrics):
    for name in room.__all__:
        assert getattr(room, name) is getattr(room, name), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_reports_are_json(report, tmp_path):
    write_report(report, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert content["format"] == 2 and content["likelihood"][report.test_id]["bits_per_dim"]["value"] > 0
