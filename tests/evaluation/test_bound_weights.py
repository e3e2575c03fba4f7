"""Figures are bound to weights: those of other weights are out of date, and quick ones replace no thorough ones."""

import json

import pytest
from hand_written_runs import TEST_ID, cost, hand_written, likelihood, quality

from genzoo.evaluation.comparison.entries import read_entries
from genzoo.evaluation.comparison.overview import likelihood_table, overview, remarks
from genzoo.evaluation.comparison.page import Comparison, render
from genzoo.evaluation.report.report_file import read_report, weights_of, write_report
from genzoo.evaluation.report.schema import Report


def weighted(folder, *reports, weights=b"one"):
    """A run whose report is bound to its weights."""
    run = hand_written(folder, "vae")
    (run / "model.safetensors").write_bytes(weights)
    for report in reports:
        write_report(Report(TEST_ID, **report), run)
    return run


def test_parts_of_other_weights_are_out_of_date(tmp_path):
    run = weighted(tmp_path / "run", quality(1.0), likelihood(1.5), cost(9.0))
    assert set(read_report(run).parts) == {"quality", "likelihood", "cost"} and not read_report(run).notes
    (run / "model.safetensors").write_bytes(b"two")
    write_report(Report(TEST_ID, **likelihood(1.2)), run)  # as a resumed training does
    stored = read_report(run)
    assert set(stored.parts) == {"likelihood"} and stored.outdated == {"quality", "cost"}
    assert stored.report(TEST_ID).likelihood.bits_per_dim.value == 1.2
    assert len(stored.notes) == 1 and "out of date" in stored.notes[0] and "quality, cost" in stored.notes[0]
    # the old ones are kept in the file, and are good again where the old weights come back
    (run / "model.safetensors").write_bytes(b"one")
    assert set(read_report(run).parts) == {"quality", "cost"}


def test_out_of_date_figures_are_never_ranked(tmp_path):
    values = {"a": 1.0, "b": 2.0}
    runs = [
        weighted(tmp_path / name, quality(value), likelihood(value), cost(9.0))
        for name, value in values.items()
    ]
    (runs[0] / "model.safetensors").write_bytes(b"two")
    entries = read_entries(runs)
    for column in overview(entries).columns:
        assert column.cells[0].value is None or column.title == "parameters"
        assert not any(cell.best for cell in column.cells) or column.title == "parameters"
    assert likelihood_table(entries).columns[0].cells[0].text == "out of date"
    assert any("out of date" in line for line in remarks(entries))
    page = render(Comparison(entries))
    assert "out of date" in page and "1.000" not in str(Comparison(entries))


def test_a_quick_likelihood_does_not_replace_a_thorough_one(tmp_path):
    run = weighted(tmp_path / "run", likelihood(1.5, images=300))
    write_report(Report(TEST_ID, **likelihood(1.6, images=60)), run, keep_thorough=True)
    assert read_report(run).report(TEST_ID).likelihood.images == 300
    write_report(
        Report(TEST_ID, **likelihood(1.4, images=300)), run, keep_thorough=True
    )  # as many: measured anew
    assert read_report(run).report(TEST_ID).likelihood.bits_per_dim.value == 1.4
    (run / "model.safetensors").write_bytes(b"two")
    write_report(Report(TEST_ID, **likelihood(1.3, images=60)), run, keep_thorough=True)
    assert read_report(run).report(TEST_ID).likelihood.images == 60


def test_a_report_is_bound_to_the_weights_that_were_evaluated(tmp_path):
    """Not to those that training has put there meanwhile."""
    run = weighted(tmp_path / "run")
    evaluated = weights_of(run)
    (run / "model.safetensors").write_bytes(b"two")
    write_report(Report(TEST_ID, **quality(1.0), weights=evaluated), run)
    assert json.loads((run / "report.json").read_text())["quality"][TEST_ID]["weights"] == evaluated
    assert read_report(run).outdated == {"quality"}


def test_parts_without_a_hash_are_read_as_before(tmp_path):
    run = hand_written(tmp_path / "run", "vae", quality(1.0))  # no weights there, so no hash
    (run / "model.safetensors").write_bytes(b"one")
    assert set(read_report(run).parts) == {"quality"}
    with pytest.raises(KeyError):
        json.loads((run / "report.json").read_text())["quality"][TEST_ID]["weights"]
