"""Run folders: round trips, every error in one line, and that nothing in them can execute code."""

import json
import os
import pickle
import resource
import sys

import pytest
import torch
from tiny_model import DuelConfig, TinyConfig, tiny_images

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.files import write_atomically
from genzoo.core.spec import DataSpec
from genzoo.models.loading import load_model
from genzoo.training.checkpoint import first_difference, load_state, save_model, save_state, save_weights
from genzoo.training.trainer import Budget, RunOptions, Trainer

SPEC = DataSpec((1, 3, 3), levels=4)
TYPES = (TinyConfig, DuelConfig)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TinyConfig().build(SPEC)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) > 20
    return text


def test_round_trip(tmp_path, model):
    save_model(model, tmp_path / "a" / "b", raw={k: v * 2 for k, v in model.state_dict().items()})
    before = torch.get_rng_state()
    loaded = load_model(tmp_path / "a" / "b", types=TYPES)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.config == model.config and loaded.spec == model.spec and not loaded.training
    images = tiny_images(20, SPEC)
    assert torch.equal(loaded.log_likelihood(images).nats, model.log_likelihood(images).nats)
    raw = load_model(tmp_path / "a" / "b", types=TYPES, weights="raw")
    assert torch.equal(raw.bias, 2 * model.bias)


def test_a_run_loads_without_its_state(tmp_path, model):
    options = RunOptions(device="cpu")
    Trainer(model, Budget(steps=5), out=tmp_path, progress=False, options=options).fit(tiny_images(40, SPEC))
    (tmp_path / "state" / "state.pt").unlink()
    assert torch.equal(load_model(tmp_path, types=TYPES).bias, model.bias)
    assert not torch.equal(load_model(tmp_path, types=TYPES, weights="raw").bias, model.bias)


def test_weights_that_share_memory_or_order_are_saved(tmp_path, model):
    model.tied = model.bias
    save_weights(model.state_dict(), tmp_path)
    del model.tied
    model.bias.data = model.bias.data.T.contiguous().T
    save_weights(model.state_dict(), tmp_path)
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "model.safetensors")["ema.bias"], model.bias)


# --- bad folders ---------------------------------------------------------------------------------------------


def edit(path, change):
    content = json.loads((path / "config.json").read_text())
    change(content)
    (path / "config.json").write_text(json.dumps(content))


BREAKS = {
    "is a file": lambda p: ([f.unlink() for f in p.iterdir()], p.rmdir(), p.write_text("")),
    "no config.json": lambda p: (p / "config.json").unlink(),
    "cannot be read as JSON": lambda p: (p / "config.json").write_text('{"format": 1, '),
    "spec or config is missing": lambda p: (p / "config.json").write_text("[1]"),
    "format 99": lambda p: edit(p, lambda c: c.update(format=99)),
    "type 'Popen'": lambda p: edit(p, lambda c: c["config"].update(type="Popen")),
    "has no field 'magic'": lambda p: edit(p, lambda c: c["config"].update(magic=1)),
    "levels must be a whole number from 2": lambda p: edit(p, lambda c: c["spec"].update(levels=1)),
    "describes no model": lambda p: edit(p, lambda c: c.update(config=3)),
    "safetensors is missing": lambda p: (p / "model.safetensors").unlink(),
    "truncated": lambda p: os.truncate(p / "model.safetensors", 300),
    "bias has the shape (9, 4), the model needs (9, 5)": lambda p: edit(
        p, lambda c: c["spec"].update(levels=5)
    ),
    "critic is missing": lambda p: edit(
        p, lambda c: c.update(config={"type": "DuelConfig", "training": c["config"]["training"]})
    ),
}


@pytest.mark.parametrize("expected", BREAKS)
def test_broken_folders_are_explained(tmp_path, model, expected):
    run = tmp_path / "run"
    save_model(model, run)
    BREAKS[expected](run)
    with pytest.raises(GenzooError) as error:
        load_model(run, types=TYPES)
    assert expected in one_line(error)


def test_unexpected_weights_are_named(tmp_path, model):
    save_model(model, tmp_path)
    save_weights({**model.state_dict(), "extra": torch.zeros(1)}, tmp_path)
    with pytest.raises(GenzooError, match="extra is unexpected"):
        load_model(tmp_path, types=TYPES)


def other_network(model):
    model.bias = torch.nn.Parameter(torch.zeros(9, 5))


def no_longer_json(model):
    object.__setattr__(model.config, "hidden", torch.zeros(1))


@pytest.mark.parametrize("change", [
    other_network, no_longer_json, lambda m: m.register_buffer("extra", torch.zeros(1)),
    lambda m: m.register_parameter("gain", None),
])  # fmt: skip
def test_what_could_not_be_loaded_is_not_saved(tmp_path, model, change):
    """Nor trained into a folder, which would be found out after the training."""
    change(model)
    before = torch.get_rng_state()
    for write in (lambda: model.save(tmp_path / "run"), lambda: train(model, tmp_path / "run", 3)):
        with pytest.raises(GenzooError) as error:
            write()
        assert "could not be loaded again" in one_line(error) and "register" in str(error.value)
    assert torch.equal(torch.get_rng_state(), before) and os.listdir(tmp_path) == []


def test_a_module_is_no_configuration():
    import genzoo

    with pytest.raises(GenzooError) as error:
        genzoo.create("flow", SPEC, "tiny", network=torch.nn.Linear(2, 2))
    assert "network of flow takes a configuration" in one_line(error) and "Linear" in str(error.value)


def test_missing_folder_and_missing_raw_weights(tmp_path, model):
    with pytest.raises(GenzooError, match="no run folder"):
        load_model(tmp_path / "nowhere")
    save_model(model, tmp_path)
    with pytest.raises(GenzooError, match='no "raw" weights'):
        load_model(tmp_path, types=TYPES, weights="raw")


# --- code in run folders -------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_state_cannot_execute_code(tmp_path):
    state, mark = tmp_path / "state" / "state.pt", tmp_path / "executed"
    state.parent.mkdir()
    torch.save({"step": Bomb(mark)}, state)
    with pytest.raises(GenzooError) as error:
        load_state(tmp_path)
    assert "damaged" in one_line(error)
    state.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(GenzooError):
        load_state(tmp_path)
    assert not mark.exists()
    torch.load(_bomb_file(tmp_path, mark), weights_only=False)  # the same file does harm without the guard
    assert mark.exists()


def _bomb_file(folder, mark):
    torch.save(Bomb(mark), folder / "bomb.pt")
    return folder / "bomb.pt"


@pytest.mark.parametrize("size", [0, 10, 500])
def test_a_truncated_state_is_explained(tmp_path, size):
    save_state({"weights": torch.zeros(1000)}, tmp_path)
    os.truncate(tmp_path / "state" / "state.pt", size)
    with pytest.raises(GenzooError, match="damaged"):
        load_state(tmp_path)


def test_a_missing_state_is_explained(tmp_path):
    with pytest.raises(GenzooError, match="is missing"):
        load_state(tmp_path)


# --- writing -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file sizes")
def test_a_full_disk_keeps_the_old_file(tmp_path):
    """A write that the system cuts off: this process may only make files of 1000 bytes for a while."""
    path = tmp_path / "file"
    write_atomically(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(GenzooError) as error:
            write_atomically(path, b"n" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "disk full while saving" in one_line(error) and "last good checkpoint is kept" in str(error.value)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_full_disk_ends_a_run_and_keeps_its_checkpoint(tmp_path, model):
    """The limit falls in the middle of a run, between two checkpoints."""
    run, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(type(model)):
        def loss(self, batch, turn="model", *, generator=None):
            if (run / "config.json").exists() and load_state(run)["step"] == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
            return super().loss(batch, turn, generator=generator)

    model.__class__ = Filling
    trainer = Trainer(
        model, Budget(steps=20), out=run, progress=False, options=RunOptions(device="cpu", save_every=2)
    )
    try:
        with pytest.raises(GenzooError, match="disk full"):
            trainer.fit(tiny_images(40, SPEC))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(run)["step"] == 4
    assert load_model(run, types=TYPES).bias.isfinite().all()
    assert not list(run.rglob(".*"))


def test_a_folder_that_cannot_be_made_is_explained(tmp_path, model):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenzooError) as error:
        model.save(tmp_path / "file" / "run")
    assert "cannot write" in one_line(error)


# --- whose run -----------------------------------------------------------------------------------------------


def train(model, out, steps, resume=False, seed=0, n=40):
    options = RunOptions(device="cpu", resume=resume)
    trainer = Trainer(model, Budget(steps=steps), seed=seed, out=out, progress=False, options=options)
    trainer.fit(tiny_images(n, SPEC))
    return trainer


def test_resume_checks_whose_run_it_is(tmp_path, model):
    train(model, tmp_path, 4)
    other = TinyConfig(training=TrainConfig(batch_size=16, precision="fp32", learning_rate=1.0)).build(SPEC)
    with pytest.raises(GenzooError) as error:
        train(other, tmp_path, 8, resume=True)
    assert "config.training.learning_rate was 0.001, is 1.0" in one_line(error)
    with pytest.raises(GenzooError, match="seed was 0, is 1"):
        train(model, tmp_path, 8, resume=True, seed=1)
    with pytest.raises(GenzooError, match="train_images was 40, is 30"):
        train(model, tmp_path, 8, resume=True, n=30)
    with pytest.raises(GenzooError, match="no run folder"):
        train(model, tmp_path / "nowhere", 8, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(GenzooError, match="is a file"):
        train(model, tmp_path / "file", 8)
    (tmp_path / "state" / "state.pt").unlink()
    with pytest.raises(GenzooError, match="cannot be resumed"):
        train(model, tmp_path, 8, resume=True)


def test_a_finished_run_is_left_alone_and_a_larger_budget_continues(tmp_path, model, capsys):
    train(model, tmp_path, 6)
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    again = TinyConfig().build(SPEC)
    options = RunOptions(device="cpu", resume=True)
    Trainer(again, Budget(steps=6), out=tmp_path, options=options).fit(tiny_images(40, SPEC))
    assert "used up its budget at step 6" in capsys.readouterr().out
    assert files == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert torch.equal(again.bias, model.bias) and not again.training
    assert train(TinyConfig().build(SPEC), tmp_path, 9, resume=True).step == 9
    assert json.loads((tmp_path / "config.json").read_text())["budget"] == {"steps": 9}


def test_a_state_of_another_model_is_explained(tmp_path, model):
    train(model, tmp_path, 2)
    state = load_state(tmp_path)
    save_state({**state, "optimizers": {}}, tmp_path)
    with pytest.raises(GenzooError, match="not a state of this run"):
        train(model, tmp_path, 4, resume=True)
    save_state({**state, "model": {**state["model"], "gain": torch.zeros(3)}}, tmp_path)
    with pytest.raises(GenzooError, match="gain has the shape"):
        train(model, tmp_path, 4, resume=True)


def test_first_difference():
    assert first_difference({"a": [1, 2]}, {"a": [1, 2]}, "c") is None
    assert first_difference({"a": 1, "b": 2}, {"a": 1}, "c") == "c.b was 2, is null"
    assert first_difference({"a": 1}, {"a": 1, "b": 0}, "c") == "c.b was null, is 0"
