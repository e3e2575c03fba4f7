"""Run folders from strangers: whatever is in them, they work or one line says what is wrong; nothing hangs or runs.

The first tier reads a few of some five thousand folders by what reads each file; the second more, and gives some to
every command.
"""

import copy
import functools
import itertools
import random
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import hostile_runs
import pytest
import torch

import genzoo
from genzoo.__main__ import main
from genzoo.core.errors import GenzooError
from genzoo.evaluation.comparison.entries import read_entries
from genzoo.evaluation.comparison.page import Comparison, render
from genzoo.evaluation.cost import training_cost
from genzoo.evaluation.report.report_file import read_report
from genzoo.models.run_data import data_of_run
from genzoo.training.checkpoint import load_state
from genzoo.training.machine import usage_at
from genzoo.training.optim import make_optimizer
from genzoo.training.progress import MetricsLog
from genzoo.training.saved_state import check_state, load_moments

SOUND = Path(__file__).parents[1] / "fixtures" / "runs-b15435d" / "pixelcnn"
SECONDS = 20  # nothing that is read here takes one
LONGEST = 1000  # characters of a message


def some(mutations, count, seed=0):
    """So many of them, the same each time."""
    found = list(mutations)
    return found if len(found) <= count else random.Random(seed).sample(found, count)


@contextmanager
def in_time():
    def late(number, frame):
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def failures(mutations, folder, *readings):
    """The mutations over which a reading of the folder ends in something else than a `GenzooError` of one line."""
    found = []
    for name, change in mutations:
        run = folder / "runs" / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(SOUND, run)
        change(run)
        for read in readings:
            try:
                with in_time():
                    read(run)
            except GenzooError as error:
                if "\n" in str(error) or len(str(error)) > LONGEST:
                    found.append((name, str(error)))
            except Exception as error:  # what must not happen
                found.append((name, repr(error)[:300]))
        if (run / "ran").exists() or len(list(folder.rglob("*"))) > 40 or len(list(folder.iterdir())) > 1:
            found.append((name, "it ran, or wrote elsewhere"))
    return found


def files(run, *names):
    return [m for m in hostile_runs.file_mutations(run) if m[0].startswith(names)]


def test_the_sound_run_is_sound(tmp_path):
    nothing = [("nothing", lambda folder: None)]
    assert (
        failures(nothing, tmp_path / "x", genzoo.load, restore, metrics, read_report, data_of_run, page) == []
    )
    for read in (genzoo.load, restore, metrics, page):
        read(SOUND)


def test_configurations_and_weights(tmp_path):
    chosen = [
        *files(SOUND, "config.json"),
        *some(files(SOUND, "model.safetensors"), 8),
        *some(hostile_runs.config_mutations(), 12),
        *some(hostile_runs.json_mutations(SOUND, "config.json", hostile_runs.WRONG), 25),
        *some(hostile_runs.weight_mutations(SOUND), 8),
    ]
    assert failures(chosen, tmp_path / "x", genzoo.load, data_of_run) == []


@functools.cache
def sound_model():
    return genzoo.load(SOUND)


def restore(run):
    """What a resume takes up, without the training."""
    model = copy.deepcopy(sound_model())
    state, source = load_state(run), run / "state/state.pt"
    check_state(state, model, source)
    optimizer = make_optimizer(model.parameters(), model.config.training)
    load_moments(optimizer, state["optimizers"].get("model"), source)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()


def test_training_states(tmp_path):
    chosen = [*some(files(SOUND, "state"), 10), *some(hostile_runs.state_mutations(SOUND), 25)]
    assert failures(chosen, tmp_path / "x", restore) == []


def metrics(run):
    """All that reads metrics.jsonl."""
    rows = MetricsLog(run / "metrics.jsonl").rows()
    usage_at(rows, 12, 2.0)
    training_cost(run)


def test_metrics(tmp_path):
    chosen = [*files(SOUND, "metrics"), *some(hostile_runs.metrics_mutations(SOUND), 60)]
    assert failures(chosen, tmp_path / "x", metrics) == []


def test_reports(tmp_path):
    changed = hostile_runs.json_mutations(SOUND, "report.json", hostile_runs.FEW)
    assert failures([*files(SOUND, "report"), *some(changed, 30)], tmp_path / "x", read_report) == []


def page(run):
    return render(Comparison(read_entries([run])))


def test_pages(tmp_path):
    changed = [
        *some(hostile_runs.json_mutations(SOUND, "report.json", hostile_runs.FEW), 1, seed=1),
        *some(hostile_runs.json_mutations(SOUND, "config.json", hostile_runs.WRONG), 1, seed=1),
        *some(hostile_runs.file_mutations(SOUND), 1, seed=1),
    ]
    assert failures(changed, tmp_path / "x", page) == []


# --- every command -----------------------------------------------------------------------------------------------


def command(*argv):
    def run(folder):
        try:
            code = main([str(folder if word == "RUN" else word) for word in argv])
        except SystemExit as stop:
            code = stop.code
        assert code in (0, 2), code

    return run


COMMANDS = {
    "resume": command("train", "--resume", "--out", "RUN", "--steps", 13, "--no-progress"),
    "sample": command("sample", "RUN", "--n", 2),
    "evaluate": command("evaluate", "RUN", "--max-images", 2, "--samples", 0),
    "compare": command("compare", "RUN", "--json"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a comparison leaves its page where it is called
    chosen = list(
        itertools.chain(
            some(hostile_runs.file_mutations(SOUND), 8, seed=2),
            some(hostile_runs.config_mutations(), 3, seed=2),
            some(hostile_runs.json_mutations(SOUND, "config.json", hostile_runs.WRONG), 8, seed=2),
            some(hostile_runs.weight_mutations(SOUND), 2, seed=2),
            some(hostile_runs.state_mutations(SOUND), 5 if name == "resume" else 1, seed=2),
            some(hostile_runs.metrics_mutations(SOUND), 3, seed=2),
            some(hostile_runs.json_mutations(SOUND, "report.json", hostile_runs.FEW), 3, seed=2),
        )
    )
    assert failures(chosen, tmp_path / "x", COMMANDS[name]) == []
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_all_that_is_read(tmp_path):
    config = hostile_runs.json_mutations(SOUND, "config.json", hostile_runs.WRONG)
    assert failures(some(config, 250, seed=3), tmp_path / "x", genzoo.load, data_of_run) == []
    state, rows = hostile_runs.state_mutations(SOUND), hostile_runs.metrics_mutations(SOUND)
    assert failures(some(state, 150, seed=3), tmp_path / "x", restore) == []
    assert failures(some(rows, 200, seed=3), tmp_path / "x", metrics) == []
    report = hostile_runs.json_mutations(SOUND, "report.json", hostile_runs.FEW)
    assert failures(some(report, 250, seed=3), tmp_path / "x", read_report) == []
