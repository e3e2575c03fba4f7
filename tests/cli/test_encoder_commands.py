"""The commands on runs of encoders: what they print, write and refuse; which images serve for what."""

import json
import sys
from dataclasses import dataclass, field

import pytest
import torch
from PIL import Image
from torch import nn

import genzoo
from benchmarks import mnist_few_shot
from genzoo.__main__ import main
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.core.trainable import Loss
from genzoo.data.augmentations import RandomCrop
from genzoo.data.image_data import ImageData, protocol
from genzoo.data.split import TensorSplit
from genzoo.evaluation.evaluator import measured
from genzoo.evaluation.fine_tuning import FineTuning
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.rendering import report_pictures
from genzoo.models.base import Encoder, EncoderConfig
from genzoo.models.registry import list_encoders, list_models

DESCRIPTIONS = list_models()
ENCODER_DESCRIPTIONS = list_encoders()

SHORT = ["--size", "tiny", "--no-progress", "--device", "cpu"]
QUICK = ["--training.validations", "1", "--training.batch-size", "32"]


def run(*argv):
    """The exit code of a command, however it ends."""
    try:
        return main([str(a) for a in argv])
    except SystemExit as stop:
        return stop.code


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "simclr"
    assert run("train", "simclr", "--steps", 20, "--out", out, *SHORT, *QUICK) == 0
    return out


# --- train ---------------------------------------------------------------------------------------------------


def test_training_ends_with_probes(tmp_path, capsys):
    """Without labels asked for: they are the data's own, and only probes see them."""
    out = tmp_path / "run"
    assert run("train", "simclr", "--steps", 4, "--out", out, *SHORT, *QUICK) == 0
    text = capsys.readouterr().out
    test_id = genzoo.load_data("digits").protocol["test_id"]
    for words in (
        "20 nearest neighbours",
        "similarity to 10 per class",
        "linear probe",
        "effective rank",
        "collapsed",
    ):
        assert words in text
    figures = report_of(out)["probes"][test_id]
    assert f"{100 * figures['knn']['value']:.1f}% [" in text and 0.5 < figures["knn"]["value"] <= 1
    assert figures["images"] == 359 and figures["examples"] == 10
    assert not (out / "samples" / "final.png").exists()
    stored = json.loads((out / "config.json").read_text())
    assert stored["preset"] == "simclr" and stored["config"]["training"]["batch_size"] == 32
    assert isinstance(genzoo.load(out), Encoder)


def test_a_run_continues(trained):
    before = json.loads((trained / "config.json").read_text())["budget"]
    assert run("train", "--resume", "--out", trained, "--steps", 22, "--no-progress") == 0
    assert json.loads((trained / "config.json").read_text())["budget"] == {"steps": 22} != before


def test_help_lists_encoders(capsys):
    assert run("train", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f" {name} " in text for name in (*ENCODER_DESCRIPTIONS, *DESCRIPTIONS))
    assert run("train", "simclr", "--help") == 0
    text = capsys.readouterr().out
    assert "--projection.hidden" in text and "--training.learning-rate" in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["simclrr"], ["simclrr", "did you mean 'simclr'"]),
        (["simclr", "--projectoin.out", "3"], ["did you mean --projection"]),
        (["simclr", "--size", "huge"], ["huge", "tiny"]),
        (["simclr", "--data", "toy:gaussian-mixture"], ["encoders take images"]),
        (["simclr", "--steps", "3", "--epochs", "1"], ["exactly one"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_mistakes_in_training_are_told_in_one_line(tmp_path, monkeypatch, capsys, argv, words):
    monkeypatch.chdir(tmp_path)
    assert run("train", *argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("genzoo: error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error
    assert list(tmp_path.iterdir()) == []


def test_images_without_classes(tmp_path, monkeypatch, capsys):
    """They can be learnt from and told of, but not probed; what needs classes says so."""
    images = genzoo.load_data("digits").train.images[:80, 0] * 15
    (tmp_path / "images").mkdir()
    for n, image in enumerate(images):
        Image.fromarray(image.numpy()).save(tmp_path / "images" / f"{n}.png")
    monkeypatch.chdir(tmp_path)
    data = ["--data", "folder:images", "--steps", "2", *SHORT, *QUICK]
    assert run("train", "simclr", *data, "--out", "run") == 0
    assert run("evaluate", "run") == 0
    text = capsys.readouterr().out
    assert "effective rank" in text and "neighbours" not in text and "(images of a class)" not in text
    assert (tmp_path / "run" / "embeddings.png").exists() and "probes" not in report_of(tmp_path / "run")
    for command in (["evaluate", "run", "--fine-tune", "2"], ["train", "supcon", *data, "--out", "other"]):
        assert run(*command) == 2
        error = capsys.readouterr().err
        assert "genzoo: error: " in error and "classes" in error


# --- evaluate ------------------------------------------------------------------------------------------------


def test_evaluate_probes_and_draws_a_map(trained, capsys):
    assert run("evaluate", trained, "--max-images", 200, "--fine-tune", 30) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    report, test_id = report_of(trained), genzoo.load_data("digits").protocol["test_id"]
    figures = {name: report[name][test_id] for name in ("probes", "space", "fine_tuning", "map")}
    assert "200 of 359 images" in text and "fine-tuned, 30 steps" in text
    assert (
        figures["probes"]["images"] == figures["space"]["images"] == figures["fine_tuning"]["images"] == 200
    )
    assert figures["space"]["width"] == 64 and not figures["space"]["collapsed"]
    assert (
        figures["space"]["alignment"]["value"] < figures["space"]["class_alignment"]["value"]
    )  # what SimCLR trains
    assert Image.open(trained / "embeddings.png").size == (840, 720)
    assert run("evaluate", trained, "--max-images", 200) == 0
    assert report_of(trained)["probes"] == report["probes"]  # equal seeds


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--ood", "digits"], "--ood"),
        (["--ais", "5"], "--ais"),
        (["--split", "train"], "--split test or val"),
        (["--max-images", "1"], "2 images or more"),
        (["--fine-tune", "0"], "--fine-tune must be a whole number from 1"),
        (["--data", "digitz"], "did you mean 'digits'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_in_evaluation_are_told_in_one_line(trained, capsys, argv, words):
    assert run("evaluate", trained, *argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("genzoo: error: ") and error.count("\n") == 1 and words in error


def test_an_encoder_draws_nothing_and_a_generator_is_not_tuned(trained, tmp_path, capsys):
    assert run("sample", trained) == 2
    assert "draws nothing" in capsys.readouterr().err
    genzoo.create("pixelcnn", DataSpec((1, 8, 8), levels=17), "tiny").save(tmp_path / "drawing")
    assert run("evaluate", tmp_path / "drawing", "--data", "digits", "--fine-tune", "3") == 2
    assert "for encoders" in capsys.readouterr().err


# --- which images serve for what -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PixelsConfig(EncoderConfig):
    augmentation: RandomCrop = field(default_factory=lambda: RandomCrop((1.0, 1.0), (1.0, 1.0)))
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec):
        return Pixels(spec, self)


class Pixels(Encoder):
    """An image's pixels are its vector."""

    def __init__(self, spec, config):
        super().__init__()
        self.spec, self.config, self.width = spec, config, spec.dims
        self.gain = nn.Parameter(torch.ones(()))

    def loss(self, batch, turn="model", *, generator=None):
        total = self.gain * batch.images.float().flatten(1).mean(1)
        return Loss(total, {})

    def embed(self, images):
        return images.float().flatten(1)


def numbered(labels=True):
    """100 + 40 + 30 images, the first pixel of which is their number; the others tell the class."""
    n = torch.arange(170)
    images = torch.zeros(170, 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = n
    images[n, 0, 1, n % 2] = 200
    parts = [
        TensorSplit(images[a:b], n[a:b] % 2 if labels else None)
        for a, b in ((0, 100), (100, 140), (140, 170))
    ]
    return ImageData(
        "numbered", *parts, DataSpec((1, 2, 2)), protocol("numbered", tuple(parts), "numbered/test")
    )


def numbers(labelled):
    return set(labelled.vectors[:, 0].long().tolist())


def case_of(split="test", data=None, **options):
    data = data or numbered()
    return EncoderCase(PixelsConfig().build(data.spec), data, split, **options)


def test_test_images_are_only_judged():
    bank, held, queries = case_of().parts
    assert (numbers(bank), numbers(held), numbers(queries)) == (
        set(range(100)), set(range(100, 140)), set(range(140, 170)),
    )  # fmt: skip
    for part in (bank, held, queries):
        assert torch.equal(part.labels, part.vectors[:, 0].long() % 2)
    bank, _, queries = case_of(max_images=7, bank_images=20).parts
    assert len(bank) == 20 and len(queries) == 7 and numbers(bank) < set(range(100))


def test_choices_for_the_validation_split_are_made_on_training_images():
    bank, held, queries = case_of("val").parts
    assert numbers(queries) == set(range(100, 140)) and len(held) == 10
    assert numbers(bank) | numbers(held) == set(range(100)) and not numbers(bank) & numbers(held)
    with pytest.raises(GenzooError, match="--split test or val"):
        case_of("train")


def test_figures_of_an_encoder_that_is_known(tmp_path):
    """Two classes at right angles but for the number: all probes are right, views are the image itself."""
    report = measured(case_of(out=tmp_path))
    probes, space = report.probes, report.space
    assert [figure.value for figure in (probes.knn, probes.few_shot, probes.linear)] == [1.0, 1.0, 1.0]
    assert probes.held_out_images == 40 and probes.examples == 10
    assert space.alignment.value == pytest.approx(0, abs=1e-4) and 1 < space.effective_rank.value < 2
    assert 0 < space.class_alignment.value < 0.5
    assert report_pictures(report) == [str(tmp_path / "embeddings.png")]


def test_sections_without_classes_and_without_a_backbone(tmp_path):
    case = case_of(data=numbered(labels=False))
    assert [name for name, _ in measured(case).parts()] == ["about", "space"]
    for data in (numbered(), numbered(labels=False)):
        report = measured(case_of(data=data, fine_tuning=FineTuning(steps=1)))
        assert "--fine-tune" in report.missing["fine_tuning"]


# --- the benchmark -------------------------------------------------------------------------------------------


def test_few_shot_benchmark_prints_a_row_each(monkeypatch, capsys):
    argv = [
        "--data",
        "digits",
        "--size",
        "tiny",
        "--steps",
        "2",
        "--objectives",
        "simclr,margin",
        "--examples",
        "5",
    ]
    monkeypatch.setattr(sys, "argv", ["mnist_few_shot", *argv])
    mnist_few_shot.main()
    head, *rows = capsys.readouterr().out.splitlines()
    assert "5 per class" in head and [row[:12].strip() for row in rows] == ["raw pixels", "simclr", "margin"]
    assert all(0 < float(row.split("±")[0].split()[-1]) <= 100 for row in rows)


def test_few_shot_benchmark_refuses_unknown_objectives(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mnist_few_shot", "--objectives", "simcrl"])
    with pytest.raises(SystemExit):
        mnist_few_shot.main()
    assert "unknown objective 'simcrl'" in capsys.readouterr().err


def test_budget_is_turned_into_steps(monkeypatch):
    """Steps of half a second after a start of three: a minute on two threads is 240 of them."""
    seconds = lambda name, data, size, steps, seed: (None, 3 + 0.5 * steps)  # noqa: E731
    monkeypatch.setattr(mnist_few_shot, "trained", seconds)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert mnist_few_shot.steps_for("simclr", None, "small", 1.0) == 240
