"""A run folder while a run goes: one writer, folders that move, kills before every write, files of others."""

import contextlib
import json
import os
import shutil
import sys

import pytest
import torch
from crashes import assert_same_runs
from tiny_model import TinyConfig, tiny_images

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError, Interrupted
from genzoo.core.spec import DataSpec
from genzoo.models.loading import load_model
from genzoo.training.checkpoint import load_state
from genzoo.training.trainer import Budget, RunOptions, Trainer

SPEC = DataSpec((1, 3, 3), levels=4)
CLOCKS = {"seconds", "images_per_second", "cpu_seconds", "peak_memory_mib"}


class Killed(BaseException):
    """As SIGKILL: nobody catches it."""


def tiny(**training):
    torch.manual_seed(0)
    settings = {"batch_size": 16, "precision": "fp32", "warmup_steps": 2, "validations": 2, **training}
    return TinyConfig(dropout=0.1, noise=0.1, training=TrainConfig(**settings)).build(SPEC)


def train(out, steps=5, *, model=None, resume=False, save_every=2):
    options = RunOptions(device="cpu", save_every=save_every, resume=resume)
    trainer = Trainer(model or tiny(), Budget(steps=steps), out=out, progress=False, options=options)
    trainer.fit(tiny_images(40, SPEC), tiny_images(20, SPEC, seed=1))
    return trainer


def rows(out):
    found = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in found]


def best_step(out):
    """Of the weights that did best on validation images."""
    return load_state(out)["best"]["step"]


def at_step(model, step, work):
    """`model`, which does `work` in training step `step`."""
    seen = 0

    def count(module, *_):
        nonlocal seen
        seen += module.training
        if module.training and seen == step:
            work()

    model.register_forward_hook(count)
    return model


# --- one writer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_training_in_a_folder_is_refused(tmp_path, resume):
    pytest.importorskip("fcntl")
    out, said = tmp_path / "run", []

    def second():
        with pytest.raises(GenzooError) as error:
            train(out, 9, resume=resume)
        said.append(str(error.value))

    train(out, model=at_step(tiny(), 3, second))
    assert len(said) == 1 and "\n" not in said[0]
    assert "another process trains in" in said[0] if resume else "holds another run" in said[0]
    assert sorted(os.listdir(out)) == [
        "config.json",
        "loss.png",
        "metrics.jsonl",
        "model.safetensors",
        "samples",
        "state",
    ]
    train(out, 6, resume=True)  # a lock that nobody holds does not block


def test_a_killed_run_does_not_block(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").touch()  # left by a kill before there was a run
    (tmp_path / "run" / ".model.safetensors.0123.tmp").touch()
    train(tmp_path / "run")
    for place in ("state/.state.pt.0123.tmp", "samples/.step_0000002.png.0123.tmp"):
        (tmp_path / "run" / place).touch()
    train(tmp_path / "run", 6, resume=True)
    assert "lock" not in os.listdir(tmp_path / "run") and not list((tmp_path / "run").rglob("*.tmp"))


# --- a folder that moves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("move", [lambda out: out.rename(out.with_name("new")), shutil.rmtree])
@pytest.mark.parametrize("save_every", [1, 1000])
def test_a_run_whose_folder_is_gone_stops_and_makes_no_new_one(tmp_path, move, save_every):
    out = tmp_path / "run"
    with pytest.raises(GenzooError) as error:
        train(out, 20, model=at_step(tiny(), 4, lambda: move(out)), save_every=save_every)
    assert "was moved or deleted during training" in str(error.value) and "\n" not in str(error.value)
    assert not out.exists()
    if (tmp_path / "new").exists():
        train(tmp_path / "new", 20, resume=True)
        assert len(rows(tmp_path / "new")) >= 20


def test_another_folder_in_its_place_is_left_alone(tmp_path):
    out = tmp_path / "run"

    def replace():
        out.rename(tmp_path / "new")
        out.mkdir()
        (out / "notes").write_text("mine")

    with pytest.raises(GenzooError, match="was moved or deleted"):
        train(out, 20, model=at_step(tiny(), 4, replace))
    assert os.listdir(out) == ["notes"]


# --- interruptions -----------------------------------------------------------------------------------------------


@pytest.fixture
def killer(monkeypatch):
    """Kills before the n-th file below a folder is opened for writing, n in `killer(folder, n)`; None: counts them."""
    real = os.open

    def arm(folder, n):
        opened = []

        def counting(path, flags, *more, **options):
            if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(folder)):
                opened.append(path)
                if len(opened) == n:
                    raise Killed
            return real(path, flags, *more, **options)

        monkeypatch.setattr(os, "open", counting)
        return opened

    return arm


@pytest.mark.parametrize("closing_alone", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_kill_before_any_write_leaves_a_run_that_ends_as_if_nothing_had_happened(
    tmp_path, killer, closing_alone
):
    """Weights, states and rows of metrics: each row once, those of validation in the closing stage among them."""
    opened = killer(tmp_path / "whole", None)
    assert train(tmp_path / "whole", 6).step == best_step(
        tmp_path / "whole"
    )  # the last weights are those wanted
    wanted, writes = rows(tmp_path / "whole"), len(opened)
    assert writes > 12 and sum("val_loss" in row for row in wanted) == 2
    for n in range(writes - 5 if closing_alone else 1, writes + 1):
        out = tmp_path / f"run{n}"
        killer(out, n)
        with pytest.raises(Killed):
            train(out, 6)
        killer(out, None)
        train(out, 6, resume=(out / "config.json").exists())
        assert rows(out) == wanted, n
        assert_same_runs(tmp_path / "whole", out)
        assert (out / "loss.png").exists() and not list(out.rglob("*.tmp"))


def test_rows_are_the_means_of_the_same_steps(tmp_path, monkeypatch):
    """A long run has a row for several steps; a checkpoint may fall between two."""
    import genzoo.training.loop

    monkeypatch.setattr(genzoo.training.loop, "LOG_ROWS", 3)
    train(tmp_path / "whole", 12, save_every=5)
    with pytest.raises(Killed):
        train(tmp_path / "run", 12, save_every=5, model=at_step(tiny(), 7, kill))
    train(tmp_path / "run", 12, save_every=5, resume=True)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def kill():
    raise Killed


def test_fit_that_is_interrupted_raises_when_it_has_saved(tmp_path):
    import signal

    from genzoo.training.checkpoint import load_state

    def stop():
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as stopped:
        train(tmp_path / "run", model=at_step(tiny(), 3, stop))
    assert stopped.value.exit_code == 143 and load_state(tmp_path / "run")["step"] == 3
    train(tmp_path / "whole")
    train(tmp_path / "run", resume=True)
    assert [row for row in rows(tmp_path / "run") if "machine" not in row or row["step"] == 5] == rows(
        tmp_path / "whole"
    )


# --- whose files -------------------------------------------------------------------------------------------------

FILES = [
    "notes.txt",
    "metrics.jsonl",
    "model.safetensors",
    "loss.png",
    "report.json",
    ".hidden",
    "samples/a.png",
]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_with_other_files_is_refused(tmp_path, name):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(GenzooError, match="holds other files"):
        train(tmp_path / "mine")
    with pytest.raises(GenzooError, match="holds other files"):
        tiny().save(tmp_path / "mine")
    assert [p for p in (tmp_path / "mine").rglob("*") if p.is_file()] == [file] and file.read_text() == "mine"


def test_a_configuration_of_another_program_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    for write in (lambda: train(tmp_path), lambda: tiny().save(tmp_path)):
        with pytest.raises(GenzooError, match="holds other files"):
            write()
    assert os.listdir(tmp_path) == ["config.json"]


@pytest.mark.parametrize("name", ["", ".", "..", "./", " "])
def test_a_path_that_names_no_folder_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for write in (lambda: train(name), lambda: tiny().save(name)):
        with pytest.raises(GenzooError, match=r"names no folder of its own|must be a path"):
            write()
    assert os.listdir(tmp_path) == []


def test_a_model_is_saved_over_its_own_run(tmp_path):
    train(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for name in ("run", "run", "empty"):
        model = tiny()
        torch.nn.init.constant_(model.gain, 2.0 + (name == "empty"))
        model.save(tmp_path / name)
        assert torch.equal(load_model(tmp_path / name, types=[TinyConfig]).gain, model.gain)


# --- nobody to be shown anything -------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that takes nothing")
def test_a_training_goes_on_when_nobody_can_be_told(tmp_path, monkeypatch):
    """A terminal that has hung up refuses every line."""
    with contextlib.suppress(OSError), open("/dev/full", "w") as nowhere, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", nowhere)
        options = RunOptions(device="cpu")
        trainer = Trainer(tiny(), Budget(steps=3), out=tmp_path / "run", progress=True, options=options)
        trainer.fit(tiny_images(40, SPEC), tiny_images(20, SPEC, seed=1))
    assert trainer.step == 3 and (tmp_path / "run" / "loss.png").exists()
