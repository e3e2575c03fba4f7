"""Reports are written over what was there only where that was a report, by one writer at a time."""

import json
import os
import threading

import pytest
from hand_written_runs import TEST_ID, hand_written, likelihood

from genzoo.core.errors import GenzooError
from genzoo.evaluation.report.report_file import read_report, write_report
from genzoo.evaluation.report.schema import Report


@pytest.fixture
def run(tmp_path):
    return hand_written(tmp_path / "run", "vae", likelihood(2.0))


def report(test_id=TEST_ID):
    return Report(test_id, **likelihood(3.0))


@pytest.mark.parametrize("damage", [
    lambda text: text[:-2] + ",}", lambda text: text[: len(text) // 2], lambda text: "notes of mine", lambda text: "",
    lambda text: "[1, 2]", lambda text: "[" * 100_000,
])  # fmt: skip
def test_a_damaged_report_is_kept_aside(run, capsys, damage):
    """A comma too many is mended in seconds; a report that is gone takes hours."""
    damaged = damage((run / "report.json").read_text())
    for name in ("report-damaged.json", "report-damaged-2.json"):
        (run / "report.json").write_text(damaged)
        write_report(report(), run)
        assert (run / name).read_text() == damaged and name in capsys.readouterr().err
    assert read_report(run).report().likelihood == likelihood(3.0)["likelihood"]


def test_a_sound_report_stays_in_its_place(run, capsys):
    write_report(report(), run)
    assert capsys.readouterr().err == "" and not list(run.glob("*damaged*"))


def test_a_pipe_in_its_place_does_not_hang(run):
    (run / "report.json").unlink()
    os.mkfifo(run / "report.json")
    write_report(report(), run)
    assert json.loads((run / "report.json").read_text())


def test_a_run_that_is_gone_is_not_made_again(tmp_path):
    with pytest.raises(GenzooError, match="is not there"):
        write_report(report(), tmp_path / "run", must_exist=True)
    assert os.listdir(tmp_path) == []


def test_writers_take_turns(run):
    """None loses what another one has just written."""
    sets = [f"set{i}" for i in range(8)]
    threads = [threading.Thread(target=write_report, args=(report(name), run)) for name in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(sets) <= set(json.loads((run / "report.json").read_text())["likelihood"])
    assert not list(run.glob("*lock*"))
