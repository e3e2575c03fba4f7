"""What cannot be measured costs its own row: in training, afterwards, in `evaluate` and in `compare`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genzoo
from genzoo.__main__ import main
from genzoo.core.attempts import Attempts
from genzoo.core.errors import GenzooError, reason_of
from genzoo.core.spec import DataSpec
from genzoo.data import from_images
from genzoo.evaluation.evaluator import evaluate, measured
from genzoo.evaluation.report.all_sections import SECTIONS
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.rendering import report_rows
from genzoo.evaluation.report.section import Section

SPEC = DataSpec((1, 4, 4), levels=4)
SHORT = ["--size", "tiny", "--steps", "2", "--device", "cpu", "--training.batch-size", "4"]


def pictures(folder, n):
    folder.mkdir(parents=True)
    for i in range(n):
        values = np.random.default_rng(i).integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def data():
    images = torch.randint(4, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return replace(from_images("noise", images, None), spec=SPEC)


class Failing(Section):
    name = "modes"

    def __init__(self, error, *, early=False):
        self.error, self.early = error, early

    def applies(self, case):
        if self.early:
            raise self.error
        return True

    def measure(self, case):
        raise self.error


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    "error",
    [GenzooError("too few"), ValueError("n_splits=5"), np.linalg.LinAlgError("singular"), RuntimeError("a\nb"),
     MemoryError(), RecursionError("deep"), KeyError("k"), genzoo.NoLikelihood("none"), OSError(28, "full")],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_whatever_is_raised_costs_its_row(data, error, early):
    model = genzoo.create("vae", SPEC, "tiny", channels=(4,), blocks=0)
    likelihood = next(s for s in SECTIONS if s.name == "likelihood")
    report = measured(Case(model, data, "test"), [Failing(error, early=early), likelihood])
    assert report.likelihood is not None
    assert report_rows(report)["modes"] == f"none: {reason_of(error)}"
    assert "\n" not in report.missing["modes"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_who_stops_the_program_is_no_failure(data, error):
    model = genzoo.create("vae", SPEC, "tiny", channels=(4,), blocks=0)
    with pytest.raises(type(error)):
        measured(Case(model, data, "test"), [Failing(error)])


def test_a_likelihood_that_fails_is_tried_once_and_told_once(data, monkeypatch):
    model = genzoo.create("vae", SPEC, "tiny", channels=(4,), blocks=0)
    calls = []

    def fails(*args, **kwargs):
        calls.append(1)
        raise RuntimeError("solver")

    monkeypatch.setattr(type(model), "log_likelihood", fails)
    report = evaluate(model, data, samples=0)
    assert report.missing["likelihood"] == "RuntimeError: solver"
    assert len(calls) <= 3  # of the images; of what drawing and scoring cost
    assert report.likelihood is None


def test_attempts_tell_each_error_once():
    attempts, error = Attempts(), ValueError("same")

    def fails():
        raise error

    assert attempts("a", lambda: 3) == 3
    assert attempts("b", fails) is None and attempts("c", fails) is None
    assert attempts.missing == {"b": "ValueError: same"}


@pytest.mark.parametrize(("preset", "folder", "n", "row"), [
    ("simclr", "one/only", 30, "probes"), ("simclr", "few", 14, "space"), ("gan", "three", 3, "modes"),
])  # fmt: skip
def test_small_folders_train_and_are_evaluated_to_the_end(tmp_path, capsys, preset, folder, n, row):
    pictures(tmp_path / folder, n)
    source, run = f"folder:{tmp_path / folder.split('/')[0]}", tmp_path / "run"
    assert main(["train", preset, "--data", source, "--out", str(run), *SHORT]) == 0
    told = capsys.readouterr().out
    assert f"{row}" in told and "none: " in told
    none = ["--samples", "0"] if preset == "gan" else []  # those it takes would train a feature extractor
    assert main(["evaluate", str(run), *none]) == 0
    told = capsys.readouterr().out
    assert row in told and "none: " in told


def test_a_monitor_that_raises_does_not_end_the_run(tmp_path, capsys, monkeypatch):
    model = genzoo.create("vae", SPEC, "tiny", channels=(4,), blocks=0)

    def fails(*args, **kwargs):
        raise RuntimeError("no picture")

    monkeypatch.setattr(type(model), "sample", fails)
    images = torch.zeros(8, 1, 4, 4, dtype=torch.uint8)
    model.fit(images, val=images, steps=2, out=tmp_path / "run")
    told = capsys.readouterr().out
    assert told.count("sample grid: none: RuntimeError: no picture") == 1
    assert (tmp_path / "run" / "config.json").is_file()

    monkeypatch.setattr(type(model), "monitors", fails)
    model.fit(images, val=images, steps=2)
    assert "monitors: none: RuntimeError: no picture" in capsys.readouterr().out


def test_the_table_is_printed_where_the_closing_figures_cannot_be_written(tmp_path, capsys, monkeypatch):
    """Samples that cannot be drawn and a report that is a folder: both are rows, and the run is done."""
    run, held = tmp_path / "run", Path("report.json")
    monkeypatch.setattr("genzoo.cli.train_command.draw_grid", lambda *a, **k: 1 / 0)
    (run / held).mkdir(parents=True)
    (run / held / "x").write_text("")
    arguments = ["train", "vae", "--data", "digits", "--out", str(run), *SHORT, "--training.validations", "0"]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    if code == 2:  # a folder with something in it is nobody's run
        assert "another --out" in told.err or "holds" in told.err
        (run / held / "x").unlink()
        (run / held).rmdir()
        run.rmdir()
        assert main(arguments) == 0
        told = capsys.readouterr()
    assert "samples" in told.out and "ZeroDivisionError" in told.out and "bits/dim" in told.out


def test_a_page_that_cannot_be_written_comes_after_the_table(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    assert (
        main(["train", "vae", "--out", str(run), *SHORT, "--training.validations", "0", "--no-progress"]) == 0
    )
    capsys.readouterr()
    monkeypatch.setattr("genzoo.evaluation.comparison.page.write_page", lambda *_: 1 / 0)
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(run), "--html", str(tmp_path / "page.html")])
    told = capsys.readouterr()
    assert stop.value.code == 2 and "run" in told.out
    assert "error: there is no page: ZeroDivisionError" in told.err


def test_a_picture_that_cannot_be_drawn_costs_no_figures(data, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no picture")

    for place in (
        "sample_sections.save_grid",
        "sample_sections.save_neighbours",
        "latents_section.draw_latents",
    ):
        monkeypatch.setattr(f"genzoo.evaluation.report.{place}", fails)
    model = genzoo.create("vae", SPEC, "tiny", channels=(4,), blocks=0)
    report = evaluate(model, data, samples=10, features="pixels", out=tmp_path / "out")
    assert report.quality is not None and report.quality.picture is None
    assert report.memorisation is not None and report.latents is not None
    assert sum(name.startswith("picture") for name in report.missing) == 3
    assert (
        "5 neighbours" in report.missing["typicality"]
    )  # among four real images: no fourth picture is tried


def test_a_loss_curve_that_cannot_be_drawn_ends_no_run(tmp_path, capsys, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("genzoo.training.run_folder.save_curve", fails)
    images = torch.zeros(8, 1, 4, 4, dtype=torch.uint8)
    model = genzoo.create("vae", SPEC, "tiny", channels=(4,), blocks=0)
    model.fit(images, steps=1, out=tmp_path / "run")
    assert "loss curve: none: RuntimeError: no fonts" in capsys.readouterr().out
    assert genzoo.load(tmp_path / "run").sample(1).shape == (1, 1, 4, 4)
