"""Means of an output distribution are evaluated beside draws: neither replaces the other, nor passes for it."""

import json
from dataclasses import replace

import pytest
import torch
from commands import run
from hand_written_runs import TEST_ID, cost, hand_written, likelihood, quality

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.evaluation import compare, read_report, report_rows
from genzoo.evaluation.comparison.bake_off import DONE, OF_MEANS, BakeOff, Standing, Terms
from genzoo.evaluation.comparison.entries import read_entries
from genzoo.evaluation.comparison.overview import overview, quality_table, remarks
from genzoo.evaluation.comparison.page import Comparison, record, render
from genzoo.evaluation.comparison.page_pictures import neighbour_pictures, sample_pictures
from genzoo.evaluation.evaluator import Evaluation, evaluate_with
from genzoo.evaluation.report.report_file import write_report
from genzoo.evaluation.report.schema import Report
from genzoo.training.checkpoint import save_state

QUICK = ["--data", "digits", "--samples", "20", "--features", "pixels", "--max-images", "40"]
MEANS = [*QUICK, "--decode", "mean", "--samples-only"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A run of a VAE, its draws and then its means evaluated by the command."""
    folder = tmp_path_factory.mktemp("runs") / "vae"
    genzoo.create("vae", genzoo.load_data("digits").spec, "tiny").save(folder)
    assert run("evaluate", folder, *QUICK, "--samples-only") == 0
    draws = read_report(folder)
    assert run("evaluate", folder, *MEANS) == 0
    return folder, draws


# --- evaluate ----------------------------------------------------------------------------------------------------


def test_means_stand_beside_draws(judged):
    folder, before = judged
    stored = read_report(folder)
    assert not before.has_means and stored.has_means
    for name in ("quality", "memorisation", "classes"):
        first, second = stored.parts[name].items()
        assert second[0] == f"{first[0]} decoded by the mean"
        assert (first[1].decode, second[1].decode) == ("draw", "mean")
        assert first[1] == before.parts[name][first[0]]  # untouched
    draws, means = (stored.report(TEST_ID, decode) for decode in ("draw", "mean"))
    assert draws.decode == "draw" and means.decode == "mean"
    assert draws.quality.figures["frechet"] != means.quality.figures["frechet"]
    assert (folder / "samples" / "judged.png").read_bytes() != (
        folder / "samples" / "judged-mean.png"
    ).read_bytes()
    assert means.quality.picture == str(folder / "samples" / "judged-mean.png")


def test_evaluating_draws_again_leaves_means(judged, tmp_path):
    folder, _ = judged
    stored = read_report(folder)
    copy = tmp_path / "copy"
    genzoo.load(folder).save(copy)
    for decode in ("mean", "draw", "mean", "draw"):
        report = stored.report(TEST_ID, decode)
        write_report(Report(TEST_ID, quality=report.quality, former_id="digits/test"), copy)
    assert read_report(copy).parts["quality"] == stored.parts["quality"]


def test_the_table_says_which(judged):
    stored = read_report(judged[0])
    rows = [report_rows(stored.report(TEST_ID, decode))["decoding"] for decode in ("draw", "mean")]
    assert rows[0] == "draws" and "means of the output distribution" in rows[1]


def test_reports_without_a_word_are_of_draws(tmp_path):
    write_report(Report(TEST_ID, **quality(1.0)), tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    del content["quality"][TEST_ID]["decode"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    stored = read_report(tmp_path)
    assert stored.report(TEST_ID).quality.decode == "draw" and stored.report(TEST_ID, "mean").quality is None
    content["quality"][TEST_ID]["decode"] = "median"
    (tmp_path / "report.json").write_text(json.dumps(content))
    assert "median" in read_report(tmp_path).notes[0] and not read_report(tmp_path).parts


def test_in_python_the_report_follows_the_model():
    data = genzoo.load_data("digits")
    model = genzoo.create("vae", data.spec, "tiny")
    how = Evaluation(samples=20, features="pixels", max_images=40, samples_only=True)
    draws = replace(evaluate_with(model, data, how), **likelihood(2.0))
    model.decoding = "mean"
    means = replace(evaluate_with(model, data, how), **likelihood(2.0))
    assert (draws.decode, means.decode) == ("draw", "mean") and model.decoding.value == "mean"
    comparison = compare([draws, means])
    assert [e.name for e in comparison.entries] == ["VAE", "VAE (mean)"]
    assert [e.likelihood is None for e in comparison.entries] == [False, True]


@pytest.mark.parametrize(
    ("preset", "argv", "words"),
    [
        ("gan", ["--decode", "mean"], "its generator gives images"),
        ("pixelcnn", ["--decode", "mean"], "draws each pixel given those before it"),
        ("vae", ["--decode", "mean", "--samples", "0"], "--decode has nothing to evaluate"),
        ("vae", ["--decode", "median"], "median"),
    ],
)
def test_what_cannot_be_decoded_is_one_line(preset, argv, words, tmp_path, capsys):
    genzoo.create(preset, genzoo.load_data("digits").spec, "tiny").save(tmp_path / "run")
    for command in ("evaluate", "sample")[: 1 if "--samples" in argv else 2]:
        assert run(command, tmp_path / "run", *argv, *(["--data", "digits"] * (command == "evaluate"))) == 2
        error = capsys.readouterr().err
        assert words in error and "Traceback" not in error
    assert not (tmp_path / "run" / "report.json").exists()


def test_encoders_have_nothing_to_decode(tmp_path, capsys):
    genzoo.create_encoder("simclr", genzoo.load_data("digits").spec, "tiny").save(tmp_path / "run")
    assert run("evaluate", tmp_path / "run", "--decode", "draw") == 2
    assert "--decode is for models that draw images" in capsys.readouterr().err


def test_sample_gives_means_into_a_file_of_their_own(judged, capsys):
    folder, _ = judged
    for decode in ("draw", "mean"):
        assert run("sample", folder, "--n", 4, "--decode", decode) == 0
    files = [folder / "samples" / name for name in ("n4-seed0.png", "n4-mean-seed0.png")]
    assert files[0].read_bytes() != files[1].read_bytes()


# --- compare -----------------------------------------------------------------------------------------------------


def two_rows(folder, *more):
    return hand_written(folder, "vae", quality(3.0), quality(1.0, decode="mean"), likelihood(2.0), *more)


def test_both_are_rows_of_a_comparison(tmp_path):
    entries = read_entries(
        [two_rows(tmp_path / "vae", cost(9.0)), hand_written(tmp_path / "b", "flow", quality(2.0))]
    )
    assert [e.name for e in entries] == ["vae", "vae (mean)", "b"]
    columns = {column.title: column for column in overview(entries).columns}
    assert [c.value for c in columns["Fréchet"].cells] == [3.0, 1.0, 2.0]  # ranked together: seen alike
    assert len(columns["Fréchet"].groups) == 1
    bits = columns["bits/dim"].cells
    assert bits[0].value == 2.0 and bits[1].text == "none" and "means are no draws" in bits[1].note
    assert [c.value for c in columns["train CPU-min"].cells][:2] == [1.5, 1.5]  # one training
    decoding = quality_table(entries).columns[-1]
    assert (decoding.title, [c.text for c in decoding.cells]) == ("decoding", ["draw", "mean", "draw"])
    comparison = Comparison(entries)
    page = render(comparison)
    assert "vae (mean)" in page and "Rows called <b>(mean)</b>" in page and "vae (mean)" in str(comparison)
    assert [r["decode"] for r in record(comparison)["runs"]] == ["draw", "mean", "draw"]
    lines = [line for line in remarks(entries) if line.startswith("vae (mean)")]
    assert any("genzoo evaluate" in line and "--decode mean --samples-only" in line for line in lines)


def test_means_out_of_date_are_no_row(tmp_path):
    folder = hand_written(tmp_path / "vae", "vae")
    (folder / "model.safetensors").write_bytes(b"one")
    write_report(Report(TEST_ID, **quality(1.0, decode="mean")), folder)
    assert [e.name for e in read_entries([folder])] == ["vae", "vae (mean)"]
    (folder / "model.safetensors").write_bytes(b"two")
    write_report(Report(TEST_ID, **quality(3.0)), folder)
    (entry,) = read_entries([folder])
    assert entry.quality.figures["frechet"].value == 3.0 and not entry.outdated
    assert "quality of means" in entry.notes[0]
    # and the other way round: current means do not make old draws current
    write_report(Report(TEST_ID, **quality(1.0, decode="mean")), folder)
    content = json.loads((folder / "report.json").read_text())
    content["quality"][TEST_ID]["weights"] = "0" * 64
    (folder / "report.json").write_text(json.dumps(content))
    draws, means = read_entries([folder])
    assert draws.quality is None and draws.outdated == {"quality"} and means.quality is not None


def test_pictures_are_each_row_s_own(judged):
    folder, _ = judged
    comparison = compare([folder])
    entries = comparison.entries
    draws, means = sample_pictures(entries)
    assert draws.uri and means.uri and draws.uri != means.uri
    shown = neighbour_pictures(entries)
    assert [p.name for p in shown] == ["vae", "vae (mean)"] and shown[0].uri != shown[1].uri


# --- bake-off ----------------------------------------------------------------------------------------------------


def contest(out, means=True):
    return BakeOff(out, Terms("digits", {"steps": 6}, size="tiny"), 40, lambda text: None, means=means)


def done(out, preset, *reports):
    folder = hand_written(out / preset, preset, *reports)
    save_state({"done": {"steps": 6}}, folder)
    return folder


def test_a_bake_off_knows_whose_means_are_lacking(tmp_path):
    both, draws = two_rows(tmp_path / "both"), hand_written(tmp_path / "draws", "hvae", quality(1.0))
    other = hand_written(tmp_path / "other", "gan", quality(1.0))
    lacking = [contest(tmp_path)._lacks_means(folder) for folder in (both, draws, other)]
    assert lacking == [False, True, False]
    assert contest(tmp_path)._means_command(draws)[2:] == [
        "--decode", "mean", "--samples-only", "--seed", "0", "--max-images", "40",
    ]  # fmt: skip


def test_a_bake_off_shows_both_rows_with_its_commands(tmp_path):
    two_rows(tmp_path / "vae")
    for standing in (
        Standing(DONE, commands=("train", "evaluate")),
        Standing("failed", OF_MEANS, "no", ("e",)),
    ):
        found = replace(contest(tmp_path), standings={"vae": standing}).comparison()
        assert [e.name for e in found.entries] == ["vae", "vae (mean)"]
        assert {found.commands_of(e) for e in found.entries} == {standing.commands}
        assert [f.stage for f in found.failures] == ([OF_MEANS] if standing.stage else [])


@pytest.mark.slow  # a process of its own each
@pytest.mark.parametrize("status", [DONE, "failed"])
def test_failing_means_are_told_and_tried_again(tmp_path, status, monkeypatch):
    """A run without weights cannot be evaluated; its draws, which were, stay."""
    monkeypatch.setenv("PYTHONPATH", str(genzoo.__path__[0] + "/.."))
    done(tmp_path, "vae", quality(1.0))
    standing = Standing(status, "" if status == DONE else OF_MEANS)
    first = contest(tmp_path)
    first.standings = {"vae": standing}
    first._write()
    found = contest(tmp_path).run(["vae"])
    assert [e.name for e in found.entries] == ["vae"] and found.failures[0].stage == OF_MEANS
    assert len(found.commands["vae"]) == 1 and "--decode mean" in found.commands["vae"][0]
    again = contest(tmp_path, means=False).run(["vae"])  # who does not ask for them is done
    assert again.failures == [] and [e.name for e in again.entries] == ["vae"]


@pytest.mark.slow
def test_a_bake_off_with_both(tmp_path, monkeypatch, capsys):
    """Means are added to what is done, and only to what has any."""
    monkeypatch.setenv("PYTHONPATH", str(genzoo.__path__[0] + "/.."))
    argv = ["compare", "--data", "digits", "--steps", "3", "--size", "tiny", "--evaluate-images", "40"]
    argv += ["--out", tmp_path / "bake", "vae", "gan"]
    assert run(*argv) == 0
    before = json.loads((tmp_path / "bake" / "bakeoff.json").read_text())["entrants"]
    assert run(*argv, "--decode", "both") == 0
    after = json.loads((tmp_path / "bake" / "bakeoff.json").read_text())["entrants"]
    assert after["gan"] == before["gan"] and after["vae"]["status"] == DONE
    (added,) = after["vae"]["commands"][len(before["vae"]["commands"]) :]
    assert "--decode mean --samples-only" in added
    content = json.loads((tmp_path / "bake" / "comparison.json").read_text())
    assert [r["name"] for r in content["runs"]] == ["vae", "vae (mean)", "gan"]
    assert run(*argv, "--decode", "both") == 0  # nothing is left to do
    assert json.loads((tmp_path / "bake" / "bakeoff.json").read_text())["entrants"] == after


def test_only_bake_offs_are_asked_for_both(tmp_path, capsys):
    assert run("compare", tmp_path, "--decode", "both") == 2
    assert "--decode is for a bake-off" in capsys.readouterr().err


def test_an_unknown_decoding_in_python_is_refused():
    with pytest.raises(GenzooError, match="draw or mean"):
        genzoo.create("vae", genzoo.load_data("digits").spec, "tiny").decoding = torch.tensor(1)
