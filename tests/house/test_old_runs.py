"""Run folders that commit b15435d wrote, made by its `genzoo train` and `genzoo evaluate`: still read, still resumed.

Each folder holds a tiny model on digits after 12 steps, its state, its report, and in `expected.json` what that
commit said of it: samples (seed 1) and log P(x) (seed 2) of the first test images, or their mean vector, and the mean
absolute weight after resuming to 15 steps. Every folder beside the two is tested alike.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import genzoo
from genzoo.__main__ import main
from genzoo.evaluation import read_report

FIXTURES = Path(__file__).parents[1] / "fixtures" / "runs-b15435d"
RUNS = sorted(path.parent for path in FIXTURES.glob("*/config.json"))
IMAGES, SAMPLES, STEPS = 12, 8, 15


def run(*argv):
    """The exit code of a command, however it ends."""
    try:
        return main([str(a) for a in argv])
    except SystemExit as stop:
        return stop.code


def expected(folder):
    return json.loads((folder / "expected.json").read_text())


def of_spec(folder):
    """The first test images, and their labels where the model takes classes."""
    cond = json.loads((folder / "config.json").read_text())["spec"]["cond"]
    test = genzoo.load_data("digits", cond=cond).test
    return test.images[:IMAGES], None if cond is None else test.labels[:IMAGES]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def numbers(content):
    """All numbers anywhere in JSON."""
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from numbers(value)
    elif isinstance(content, int | float):
        yield content


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def folder(request):
    return request.param


@pytest.fixture
def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def test_there_are_fixtures():
    assert {"gan", "pixelcnn"} <= {path.name for path in RUNS}


def test_an_old_run_says_what_it_said(folder):
    model, known = genzoo.load(folder), expected(folder)
    images, labels = of_spec(folder)
    if "embedding" in known:
        assert model.embed(images).double().mean(0).tolist() == pytest.approx(known["embedding"], rel=1e-4)
        return
    drawn = model.sample(SAMPLES, None if labels is None else labels[:SAMPLES], generator=seeded(1))
    assert drawn.shape == images[:SAMPLES].shape and drawn.dtype == torch.uint8
    # a sample may tip over on another processor; of samples drawn otherwise few pixels agree
    assert (drawn.flatten() == torch.tensor(known["samples"])).double().mean() > 0.9
    if known["nats"] is None:
        with pytest.raises(genzoo.NoLikelihood):
            model.log_likelihood(images, labels)
    else:
        nats = model.log_likelihood(images, labels, generator=seeded(2)).nats
        assert nats.tolist() == pytest.approx(known["nats"], rel=1e-5)


def test_an_old_run_goes_on(copied):
    before = genzoo.load(copied)
    assert run("train", "--resume", "--out", copied, "--steps", STEPS, "--no-progress") == 0
    after = genzoo.load(copied)
    weights = torch.cat([p.detach().double().flatten() for p in after.parameters()]).abs().mean().item()
    assert weights == pytest.approx(expected(copied)["resumed_mean_abs_weight"], rel=1e-5)
    assert any(not torch.equal(p, q) for p, q in zip(before.parameters(), after.parameters(), strict=True))
    assert json.loads((copied / "metrics.jsonl").read_text().splitlines()[-1])["step"] == STEPS


def test_an_old_run_is_evaluated(copied):
    """The new figures join those that were there, on another set of images."""
    test_id = json.loads((copied / "config.json").read_text())["data"]["test_id"]
    old = read_report(copied).report(test_id)
    quick = [] if "embedding" in expected(copied) else ["--samples", 0]
    assert run("evaluate", copied, "--split", "val", "--max-images", 20, *quick) == 0
    stored = read_report(copied)
    kept = stored.report(test_id)
    assert (kept.quality, kept.likelihood) == (old.quality, old.likelihood)
    assert any("digits/val" in by_set for by_set in stored.parts.values())


def test_old_reports_are_compared(tmp_path, monkeypatch, capsys):
    """Every figure of quality and likelihood that they hold is among those of the comparison, in table and page."""
    monkeypatch.chdir(tmp_path)
    runs = [path for path in RUNS if "embedding" not in expected(path)]
    assert run("compare", *runs, "--json", "--html", "page.html") == 0
    shown = set(numbers(json.loads(capsys.readouterr().out)))
    reports = {path.name: json.loads((path / "report.json").read_text()) for path in runs}
    for report in reports.values():
        for block in report.get("quality", {}).values():
            assert block["figures"] and {row["value"] for row in block["figures"].values()} <= shown
        for block in report.get("likelihood", {}).values():
            assert block["bits_per_dim"] in shown
    assert run("compare", *runs, "--html", "page.html") == 0
    table, page = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    bits, frechet = (f"{value:.4g}" for value in (3.9924525, 85.488624))
    assert f"= {bits}" in table and frechet in table and bits in page and frechet in page
