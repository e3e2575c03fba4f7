"""The commands, on digits with tiny models: what they print, write and refuse. Exit codes are theirs.

Most call `main` in this process, which is what the console script does; what depends on a process of its own
(streams, signals) runs in one.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import genzoo
from genzoo.__main__ import main
from genzoo.cli.shared import class_condition, fresh_folder
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import DataSpec
from genzoo.core.trainable import Loss
from genzoo.data import TensorSplit
from genzoo.data.class_rows import STRIP
from genzoo.evaluation.likelihood import evaluate_likelihood, subset
from genzoo.evaluation.report.likelihood_section import likelihood_result
from genzoo.models.base import GenerativeModel

ROOT = Path(__file__).parents[2]
SHORT = ["--size", "tiny", "--steps", "6", "--no-progress", "--device", "cpu"]
QUICK = ["--training.validations", "1", "--training.batch-size", "16"]


def alone():
    """The environment of a process of its own, when the test begins: with the session's cache and threads."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*argv):
    """The exit code of a command, however it ends."""
    try:
        return main([str(a) for a in argv])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A class-conditional run with a field of its own."""
    out = tmp_path_factory.mktemp("runs") / "classes"
    assert (
        run("train", "pixelcnn", "--cond", "class", "--width", 24, "--seed", 3, "--out", out, *SHORT, *QUICK)
        == 0
    )
    return out


# --- train ---------------------------------------------------------------------------------------------------


def test_train_as_a_process(tmp_path):
    """The default preset and data in a fresh folder; everything that a person is shown and left with."""
    command = [sys.executable, "-m", "genzoo.train", *SHORT, *QUICK]
    done = subprocess.run(command, cwd=tmp_path, env=alone(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "pixelcnn-digits"
    for name in ("config.json", "model.safetensors", "metrics.jsonl", "state/state.pt", "samples/final.png"):
        assert (folder / name).is_file(), name
    test_id = genzoo.load_data("digits").protocol["test_id"]
    figures = json.loads((folder / "report.json").read_text())["likelihood"][test_id]
    bits = figures["bits_per_dim"]
    shown = f"= {bits['value']:.4f} ± {bits['stderr']:.4f}"
    for words in ("runs/pixelcnn-digits/samples/final.png", shown, test_id, "exact"):
        assert words in done.stdout, done.stdout
    assert Image.open(folder / "samples" / "final.png").size == (8 * 65 + 1, 8 * 65 + 1)


def test_flags_reach_the_configuration(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["preset"] == "pixelcnn"
    assert config["seed"] == 3
    assert config["config"]["width"] == 24
    assert config["config"]["training"]["batch_size"] == 16
    assert config["config"]["group"] == 1  # what the preset adapts to small images
    assert config["spec"]["cond"] == "class"
    assert config["budget"] == {"steps": 6}
    assert config["data"]["arguments"]["name"] == "digits"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["pixelcn"], ["pixelcn", "did you mean 'pixelcnn'"]),
        (["--data", "digitz"], ["digitz", "did you mean 'digits'"]),
        (["--data", "folder:nowhere"], ["nowhere"]),
        (["pixelcnn", "--blcks", "3"], ["--blcks", "did you mean --blocks"]),
        (["pixelcnn", "--trainin.batch-size=3"], ["did you mean --training.batch-size"]),
        (["--mintes", "3"], ["did you mean --minutes"]),
        (["--width", "wide"], ["--width", "wide"]),
        (["--size", "huge"], ["huge", "tiny"]),
        (["--cond", "colour"], ["colour", "class"]),
        (["pixelcnn", "pixel-transformer"], ["unexpected", "pixel-transformer"]),
        (["--steps", "3", "--epochs", "2"], ["exactly one", "steps and epochs"]),
        (["--minutes", "0"], ["--minutes", "above 0"]),
        (["--epochs", "-1"], ["--epochs", "above 0"]),
        (["--save-every", "0", *SHORT], ["--save-every", "from 1"]),
        (["--resume"], ["--out"]),
        (["--resume", "--out", "nowhere"], ["no run folder at nowhere"]),
        (["--data", "digits", "--image-size", "9"], ["--image-size"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_told_in_one_line(at, capsys, argv, words):
    assert run("train", *argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("genzoo: error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error
    assert list(at.iterdir()) == []  # nothing is left behind


def test_unknown_command(capsys):
    assert run("trian") == 2
    assert "did you mean 'train'" in capsys.readouterr().err


def test_help_on_a_preset_shows_its_fields(capsys):
    assert run("train", "pixel-transformer", "--help") == 0
    text = capsys.readouterr().out
    for words in (
        "--expansion",
        "--training.learning-rate",
        "--head.output",
        "--minutes",
        "Transformer blocks",
    ):
        assert words in text


# --- resume --------------------------------------------------------------------------------------------------


def test_another_run_in_the_folder(trained, capsys):
    before = (trained / "model.safetensors").read_bytes()
    assert run("train", "--out", trained, *SHORT) == 2
    assert "holds another run" in capsys.readouterr().err
    assert (trained / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--width", 32], "config.width was 24, is 32"),
        (["pixel-transformer"], 'preset was "pixelcnn", is "pixel-transformer"'),
        (["--seed", 5], "seed was 3, is 5"),
        (["--size", "base"], "leave --size out"),
        (["--blocs", 2], "did you mean --blocks"),
    ],
    ids=lambda value: str(value),
)
def test_a_resumed_run_stays_what_it_was(trained, capsys, argv, words):
    assert run("train", *argv, "--resume", "--out", trained, "--steps", 9, "--no-progress") == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_interrupted_run_continues(tmp_path):
    """Ctrl-C saves, says how to go on and ends with 130, so that `&&` stops; --resume alone finds the rest."""
    command = [sys.executable, "-u", "-m", "genzoo.train", "--size", "tiny", "--minutes", "5", "--out", "r"]
    command += ["--cond", "class", "--save-every", "2", *QUICK]
    process = subprocess.Popen(command, cwd=tmp_path, env=alone(), stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "r" / "state" / "state.pt").exists():  # until it trains
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 130, rest
    assert "continue with: genzoo train --resume --out r" in rest
    assert "test set" not in rest and not (tmp_path / "r" / "report.json").exists()
    step = max(json.loads(row)["step"] for row in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines())

    assert run("train", "--resume", "--out", tmp_path / "r", "--steps", step + 2, "--no-progress") == 0
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["spec"]["cond"] == "class" and config["budget"] == {"steps": step + 2}
    assert (tmp_path / "r" / "report.json").exists()


# --- sample --------------------------------------------------------------------------------------------------


def test_sample_writes_what_the_model_draws(trained, tmp_path, capsys):
    out = tmp_path / "grid.png"
    assert run("sample", trained, "--n", 5, "--cond", "3,4", "--seed", 1, "--out", out) == 0
    first = out.read_bytes()
    text = capsys.readouterr().out
    assert "5 images" in text and "images/s" in text and str(out) in text
    # beside a row for each class its name
    assert Image.open(out).size == (STRIP + 3 * 65 + 1, 2 * 65 + 1)
    for seed, same in ((1, True), (2, False)):
        assert run("sample", trained, "--n", 5, "--cond", "3,4", "--seed", seed, "--out", out) == 0
        assert (out.read_bytes() == first) == same


def test_sample_names_its_file(trained):
    assert run("sample", trained, "--n", 2, "--cond", "7") == 0
    assert (trained / "samples" / "n2-cond7-seed0.png").is_file()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--cond", "10"], "choose 0 .. 9"),
        (["--cond", "-1"], "choose 0 .. 9"),
        (["--cond", "dozen"], "'dozen' is no class of this model: choose 0 .. 9 (0: zero, 1: one"),
        (["--n", "0"], "--n must be a whole number from 1"),
        (["--sed", "1"], "did you mean --seed"),
    ],
    ids=str,
)
def test_sample_refuses(trained, capsys, argv, words):
    assert run("sample", trained, *argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_classes_come_in_equal_blocks():
    spec = DataSpec((1, 2, 2), 2, "class", 5)
    assert class_condition("4,0", 5, spec).tolist() == [4, 4, 4, 0, 0]
    assert class_condition("2", 3, spec).tolist() == [2, 2, 2]
    with pytest.raises(GenzooError, match="no classes"):
        class_condition("2", 3, DataSpec((1, 2, 2), 2))


def test_a_folder_that_is_no_run(at, capsys):
    for command in ("sample", "evaluate"):
        assert run(command, at) == 2
        assert "not a run folder" in capsys.readouterr().err


# --- evaluate ------------------------------------------------------------------------------------------------


def test_evaluate_reports_the_likelihood_of_the_loaded_model(trained, capsys):
    assert run("evaluate", trained, "--samples", 0) == 0
    text = capsys.readouterr().out
    data = genzoo.load_data("digits", cond="class")
    test_id = data.protocol["test_id"]
    report = json.loads((trained / "report.json").read_text())["likelihood"][test_id]
    own = genzoo.load(trained).log_likelihood(data.test.images, data.test.labels)
    n = len(data.test)
    assert report["images"] == n and report["kind"] == "EXACT"
    assert report["nats"]["value"] == pytest.approx(own.nats.mean().item(), rel=1e-5)
    bits = report["bits_per_dim"]
    assert bits["value"] == pytest.approx(own.bits_per_dim.mean().item(), rel=1e-5)
    assert bits["stderr"] == pytest.approx(own.bits_per_dim.std().item() / n**0.5, rel=1e-4)
    assert report["protocol"]["test_id"] == test_id
    gap = report["gap"]
    assert gap["bits_per_dim"]["value"] == pytest.approx(bits["value"] - gap["train_bits_per_dim"])
    assert test_id in text and f"= {bits['value']:.4f}" in text


def test_evaluations_add_to_the_report(trained):
    report = trained / "report.json"
    report.write_text(json.dumps({"quality": {"a": 1}}))
    assert run("evaluate", trained, "--split", "val", "--max-images", 20, "--samples", 0) == 0
    assert run("evaluate", trained, "--split", "train", "--max-images", 30, "--samples", 0) == 0
    content = json.loads(report.read_text())
    assert content["quality"] == {"a": 1}
    assert content["likelihood"]["digits/val"]["images"] == 20
    assert content["likelihood"]["digits/val"]["gap"]["train_images"] == 20
    assert content["likelihood"]["digits/train"]["images"] == 30
    assert content["likelihood"]["digits/train"]["gap"] is None


def test_a_short_evaluation_judges_some_images(trained):
    assert run("evaluate", trained, "--max-seconds", 1e-9, "--samples", 0) == 0
    test_id = genzoo.load_data("digits", cond="class").protocol["test_id"]
    report = json.loads((trained / "report.json").read_text())["likelihood"][test_id]
    assert report["images"] == report["gap"]["train_images"] == 10


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--data", "toy:gaussian"], "no labels"),
        (["--max-seconds", "0"], "above 0"),
        (["--data", "digit"], "did you mean 'digits'"),
        (["--max-images", "0", "--samples", "0"], "--max-images must be a whole number from 1"),
        (["--split", "exam"], "exam"),
    ],
    ids=str,
)
def test_evaluate_refuses(trained, capsys, argv, words):
    assert run("evaluate", trained, *argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_evaluate_a_model_saved_in_python(at, capsys):
    data = genzoo.load_data("digits")
    genzoo.create("pixelcnn", data.spec, "tiny").save("saved")
    assert run("evaluate", "saved") == 2
    assert "--data" in capsys.readouterr().err
    assert run("evaluate", "saved", "--data", "toy:gaussian") == 2
    assert "does not fit this model: its shape is" in capsys.readouterr().err
    assert run("evaluate", "saved", "--data", "digits", "--max-images", 40, "--samples", 0) == 0
    # a fresh model is uniform over 17 levels
    (figures,) = json.loads((at / "saved" / "report.json").read_text())["likelihood"].values()
    assert figures["bits_per_dim"]["value"] == pytest.approx(torch.log2(torch.tensor(17.0)).item(), abs=1e-3)


# --- parts ---------------------------------------------------------------------------------------------------


class Known(GenerativeModel):
    """-log P(x) of a 1x1 image is its value; remembers how it was called."""

    def __init__(self, kinds=(LikelihoodKind.EXACT,), cond=None):
        super().__init__()
        self.spec = DataSpec((1, 1, 1), 256, cond, 3 if cond else 0)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.kinds, self.calls = list(kinds), []

    @property
    def likelihood(self):
        return min(self.kinds)

    def loss(self, batch, turn="model", *, generator=None):
        return Loss(batch.images.flatten().float(), {})

    def sample(self, n, cond=None, *, generator=None):
        return torch.zeros(n, 1, 1, 1, dtype=torch.uint8)

    def log_likelihood(self, images, cond=None, *, generator=None):
        kind = self.kinds[len(self.calls) % len(self.kinds)]
        self.calls.append((len(images), cond, self.training))
        nats = -self.scale * images.flatten().double()
        mean = -nats.mean().item()
        details = {"K": len(self.kinds), "mean": mean, "pair": [mean, 2 * mean], "order": "raster"}
        return LogLikelihood(nats, kind, self.spec, details=details)


def split_of(count):
    return TensorSplit(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count) % 3)


def test_mean_and_standard_error_over_uneven_chunks():
    model, seen = Known(), []
    report = evaluate_likelihood(model.train(), split_of(10), chunk=4, progress=seen.append)
    values = torch.arange(10).double()
    assert report.nats == pytest.approx(-values.mean().item())
    assert report.nats_stderr == pytest.approx((values.var() / 10).sqrt().item())
    assert report.bits_per_dim == pytest.approx(values.mean().item() / torch.log(torch.tensor(2.0)).item())
    assert seen == [4, 4, 2] == [n for n, _, _ in model.calls]
    assert not any(training for _, _, training in model.calls) and model.training
    details = {"K": 1, "mean": pytest.approx(4.5), "pair": pytest.approx([4.5, 9.0]), "order": "raster"}
    assert report.details == details


def test_kind_is_the_worst_of_the_chunks():
    kinds = (LikelihoodKind.EXACT, LikelihoodKind.ESTIMATE, LikelihoodKind.LOWER_BOUND)
    assert evaluate_likelihood(Known(kinds), split_of(6), chunk=2).kind == LikelihoodKind.ESTIMATE


def test_labels_go_to_conditional_models_only():
    for cond in (None, "class"):
        model = Known(cond=cond)
        evaluate_likelihood(model, split_of(4))
        labels = model.calls[0][1]
        assert labels is None if cond is None else labels.tolist() == [0, 1, 2, 0]


def test_one_image_has_no_standard_error():
    report = evaluate_likelihood(Known(), split_of(1))
    stored = likelihood_result("test", report)
    assert report.nats_stderr is None and stored.nats.stderr is None and stored.bits_per_dim.low is None


def test_subsets_are_random_and_repeatable():
    first, again = (subset(100, 20, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again) and len(set(first.tolist())) == 20
    assert first.max() > 50 and not torch.equal(first, subset(100, 20, torch.Generator().manual_seed(2)))
    assert torch.equal(subset(5, 20, None), torch.arange(5))


def test_fresh_folders(at, monkeypatch):
    assert str(fresh_folder("vae", "digits")) == "runs/vae-digits"
    (at / "runs" / "vae-digits").mkdir(parents=True)
    (at / "runs" / "vae-digits-2").mkdir()
    assert str(fresh_folder("vae", "digits")) == "runs/vae-digits-3"
    assert str(fresh_folder("vae", "folder:pictures/My Cats/")) == "runs/vae-my-cats"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(GenzooError, match="--out"):
        fresh_folder("vae", "digits")
