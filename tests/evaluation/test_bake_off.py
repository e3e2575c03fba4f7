"""Bake-offs: equal terms, entrants that fail, and going on after a stop. Tiny models on digits, in real processes."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from commands import run
from hand_written_runs import hand_written, likelihood

from genzoo.core.errors import GenzooError
from genzoo.evaluation.comparison.bake_off import (
    DONE,
    FAILED,
    STATE,
    BakeOff,
    Children,
    Standing,
    Terms,
    _alone,
    _reason,
)
from genzoo.training.checkpoint import load_state, save_state

ROOT = Path(__file__).parents[2]
TERMS = Terms("digits", {"steps": 6}, size="tiny")


def entrants(out):
    return json.loads((out / STATE).read_text())["entrants"]


def wait_for(happened, process):
    """Until `happened()`; fails where the process ends before."""
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_bake_off_survives_a_stop_and_a_failing_entrant(tmp_path, capsys, monkeypatch):
    """Stopped within its first entrant, it goes on with that very run; one that cannot train is shown as failed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    argv = ["compare", "--data", "digits", "--steps", "40", "--size", "tiny", "vae", "image-to-image"]
    argv += ["--evaluate-images", "40", "--out", "bake"]
    out, log = tmp_path / "bake", tmp_path / "bake" / "vae" / "metrics.jsonl"
    first = subprocess.Popen(
        [sys.executable, "-m", "genzoo", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: log.is_file() and log.stat().st_size, first)
    first.send_signal(signal.SIGINT)
    _, error = first.communicate()
    assert first.returncode == 130, error
    assert "stopped; go on with: genzoo compare --data digits --steps 40" in error
    stopped_at = load_state(out / "vae")["step"]
    assert 1 <= stopped_at < 40 and not load_state(out / "vae")["done"]
    assert entrants(out)["vae"]["status"] == "waiting" and entrants(out)["image-to-image"]["commands"] == []

    assert run(*argv) == 0
    found = entrants(out)
    assert found["vae"]["status"] == DONE and found["image-to-image"]["status"] == FAILED
    assert "needs an input image" in found["image-to-image"]["message"]
    train, again, *_ = found["vae"]["commands"]
    assert train == "genzoo train vae --data digits --seed 0 --size tiny --steps 40 --out bake/vae"
    assert again == "genzoo train --steps 40 --out bake/vae --resume"
    assert load_state(out / "vae")["step"] == 40 and found["vae"]["cpu_seconds"] > 1
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(steps)  # one history, not two
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert "image-to-image failed</b> in training: image-to-image needs an input image" in page
    assert "real test images" in page and again in page and "40 steps each, with seed 0" in page
    content = json.loads((out / "comparison.json").read_text())
    assert [r["name"] for r in content["runs"]] == ["vae"] and content["failures"][0][
        "name"
    ] == "image-to-image"
    assert "failed: image-to-image in training" in capsys.readouterr().out


def test_entrants_that_fail_are_shown_and_the_others_go_on(tmp_path, monkeypatch):
    """Both are refused by the train command in processes of their own, over a size that does not exist."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    comparison = quick(tmp_path / "bake", replace(TERMS, size="huge")).run(["vae", "gan"])
    found = entrants(tmp_path / "bake")
    for name, failure in zip(("vae", "gan"), comparison.failures, strict=True):
        command = (
            f"genzoo train {name} --data digits --seed 0 --size huge --steps 6 --out {tmp_path}/bake/{name}"
        )
        assert found[name]["status"] == FAILED and found[name]["commands"] == [command]
        assert (failure.name, failure.stage, failure.command) == (name, "training", command)
        assert "huge" in failure.message and "tiny" in failure.message
        assert failure.message in (tmp_path / "bake" / "logs" / f"{name}.log").read_text()
        assert found[name]["cpu_seconds"] > 0
    assert comparison.entries == []


# --- what needs no training --------------------------------------------------------------------------------------


def finished(out, preset, **standing):
    """A run of `preset` in `out` that has used up its budget."""
    folder = hand_written(out / preset, preset, likelihood(2.0))
    save_state({"done": {"steps": 6}}, folder)
    return Standing(**standing)


def quick(out, terms=TERMS):
    return BakeOff(out, terms, say=lambda text: None)


def test_what_is_done_is_not_done_again(tmp_path):
    contest = quick(tmp_path)
    contest.standings = {"vae": finished(tmp_path, "vae", status=DONE, commands=("genzoo train vae",))}
    contest._write()
    before = (tmp_path / STATE).read_text()
    comparison = quick(tmp_path).run(["vae"])
    assert [e.name for e in comparison.entries] == ["vae"] and (tmp_path / STATE).read_text() == before
    assert comparison.commands_of(comparison.entries[0]) == ("genzoo train vae",)


def test_other_terms_are_refused(tmp_path):
    contest = quick(tmp_path)
    contest.standings = {"vae": finished(tmp_path, "vae", status=DONE)}
    contest._write()
    for terms, words in (
        (Terms("digits", {"steps": 7}, size="tiny"), "terms.budget.steps was 6, is 7"),
        (Terms("digits", {"steps": 6}, seed=1, size="tiny"), "terms.seed was 0, is 1"),
    ):
        with pytest.raises(GenzooError, match=words):
            quick(tmp_path, terms).run(["vae"])
    (tmp_path / STATE).write_text("[]")
    with pytest.raises(GenzooError, match="cannot be read"):
        quick(tmp_path).run(["vae"])


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(GenzooError, match="holds something else"):
        quick(tmp_path).check(["vae"])


def test_two_cannot_work_in_one_folder(tmp_path):
    pytest.importorskip("fcntl")
    with _alone(tmp_path), pytest.raises(GenzooError, match="still at work"):
        quick(tmp_path).run(["vae"])
    with _alone(tmp_path):  # free again
        pass


def test_an_entrant_holds_the_lock_after_its_bake_off(tmp_path):
    """As after kill -9 of the parent: the child has inherited the lock."""
    pytest.importorskip("fcntl")
    with _alone(tmp_path) as lock:
        assert lock is not None
        child = subprocess.Popen(["sleep", "600"], pass_fds=(lock,))
    try:
        with pytest.raises(GenzooError, match="still at work"), _alone(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()
    with _alone(tmp_path):
        pass


def test_a_failed_evaluation_is_shown_beside_the_run(tmp_path):
    contest = quick(tmp_path)
    contest.standings = {
        "vae": finished(tmp_path, "vae", status=FAILED, stage="evaluation", message="no", commands=("e",)),
        "gan": Standing(FAILED, "training", "diverged", ("t",)),
    }
    comparison = contest.comparison()
    assert [e.name for e in comparison.entries] == ["vae"]
    assert [(f.name, f.stage, f.command) for f in comparison.failures] == [
        ("vae", "evaluation", "e"), ("gan", "training", "t")
    ]  # fmt: skip


def test_reasons_are_the_last_words_or_the_signal():
    assert _reason(2, "genzoo: error: no such data") == "no such data"
    assert _reason(1, "RuntimeError: x") == "RuntimeError: x" and _reason(3, "") == "ended with exit code 3"
    assert _reason(-9, "step 4") == "killed by SIGKILL (out of memory?)"


def test_children_are_heard_and_logged(tmp_path):
    lines, handler = [], signal.getsignal(signal.SIGINT)
    with Children() as children:
        code, last = children.run(["nonsense"], tmp_path / "logs" / "x.log", lines.append)
    assert code == 2 and "unknown command 'nonsense'" in last and lines == [last]
    assert last in (tmp_path / "logs" / "x.log").read_text()
    assert signal.getsignal(signal.SIGINT) is handler


def test_terms_become_flags():
    terms = Terms("folder:a b", {"minutes": 10.0}, 3, image_size=32, skip_bad_images=True, cond="class")
    assert terms.train_flags() == [
        "--data", "folder:a b", "--seed", "3", "--image-size", "32", "--cond", "class", "--size", "small",
        "--minutes", "10", "--skip-bad-images",
    ]  # fmt: skip
    assert "10 minutes each, with seed 3" in terms.words()
