"""Exact resume after a real SIGKILL, and equal gradients in one and in two processes."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from crashes import assert_same_runs
from tiny_model import DuelConfig, TinyConfig, tiny_images

from genzoo.core.config import TrainConfig
from genzoo.core.spec import DataSpec
from genzoo.data.split import as_split
from genzoo.models.loading import load_model
from genzoo.training.checkpoint import load_state
from genzoo.training.processes import Feed, Processes, leave_processes
from genzoo.training.trainer import Budget, RunOptions, Trainer
from genzoo.training.validation import Validator

SPEC = DataSpec((1, 3, 3), levels=4)
TESTS = Path(__file__).parents[1]


def train(out, steps=300, *, save_every=7, resume=False, pause=0.0):
    """Trains in this process on one thread. `pause` seconds per step give a killer time to aim."""
    torch.set_num_threads(1)
    training = TrainConfig(batch_size=16, precision="fp32", warmup_steps=20, validations=5)
    torch.manual_seed(0)
    model = TinyConfig(dropout=0.1, noise=0.1, training=training).build(SPEC)
    if pause:
        model.register_forward_hook(lambda *_: time.sleep(pause))
    options = RunOptions(device="cpu", save_every=save_every, resume=resume)
    trainer = Trainer(model, Budget(steps=steps), out=out, progress=False, options=options)
    trainer.fit(tiny_images(100, SPEC), tiny_images(40, SPEC, seed=1))
    return model


@pytest.fixture(scope="module")
def processes():
    """Starts real processes cheaply: they are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "accelerate", "tiny_model", "genzoo.training.trainer"])
    return context


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def metrics(out):
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [{k: r.get(k) for k in ("step", "loss", "lr", "grad_norm", "val_loss")} for r in rows]


@pytest.mark.parametrize("attempt", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, processes, attempt):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = processes.Process(target=train, args=(killed,), kwargs={"pause": 0.003})
    process.start()
    wanted = random.Random(attempt).randint(2, 40)  # any moment after the first checkpoint will do
    while process.is_alive() and (
        not (killed / "metrics.jsonl").exists() or len(metrics_lines(killed)) < wanted
    ):
        time.sleep(0.002)
    kill(process)
    assert load_state(killed)["step"] < 300
    second = processes.Process(target=train, args=(killed,), kwargs={"resume": True})
    second.start()
    train(whole)
    second.join()
    assert second.exitcode == 0
    assert_same_runs(whole, killed)
    state = load_state(whole)
    assert state["step"] == 300 and state["best"]["weights"] is not None
    assert metrics(whole) == metrics(killed)


def metrics_lines(out):
    return (out / "metrics.jsonl").read_bytes().splitlines()


@pytest.mark.parametrize("attempts", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_a_loadable_run(tmp_path, processes, attempts):
    """Saves after every step and is killed all over the place, so most kills fall into a save."""
    steps = [0]
    for attempt in range(attempts):
        process = processes.Process(
            target=train, args=(tmp_path, 10**6), kwargs={"save_every": 1, "resume": attempt > 0}
        )
        process.start()
        while process.is_alive() and (
            not (tmp_path / "config.json").exists() or saved(tmp_path) <= steps[-1]
        ):
            time.sleep(0.05)
        time.sleep(random.random() * 0.1)
        kill(process)
        steps.append(saved(tmp_path))
        loaded = load_model(tmp_path, types=[TinyConfig])
        assert loaded.bias.isfinite().all()
    assert steps == sorted(steps) and steps[-1] > attempts


def saved(out):
    return load_state(out)["step"]


# --- several processes ---------------------------------------------------------------------------------------


def train_both(folder):
    """Four steps of a model with one turn and one with two; 15 images cannot be halved."""
    torch.set_num_threads(1)
    training = TrainConfig(batch_size=15, precision="fp32", accumulate=2, validations=1, clip_norm=1e9)
    for name, config in (("one", TinyConfig(training=training)), ("two", DuelConfig(training=training))):
        torch.manual_seed(
            int(os.environ.get("RANK", 0))
        )  # other weights in the second process, until they meet
        model = config.build(SPEC)
        trainer = Trainer(model, Budget(steps=4), out=folder / name, progress=False)
        trainer.fit(tiny_images(50, SPEC), tiny_images(33, SPEC, seed=1))


def validate_apart(folder):
    """A validation of a model whose buffer differs between the processes: what each has in it afterwards."""
    model = TinyConfig().build(SPEC)
    processes = Processes(Accelerator(cpu=True), torch.device("cpu"))
    model.seen.fill_(7 + processes.rank)
    feed = Feed(as_split(tiny_images(8, SPEC)), model, processes)
    Validator(feed, 8, images=8, batch_size=4, seed=0).measure(model.eval())
    (folder / f"buffer-{processes.rank}").write_text(str(int(model.seen)))


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path):
    # `accelerate launch --cpu --num_processes 2` starts one process unless it finds MPI (accelerate issue 2741)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(Path(__file__)), str(tmp_path / "pair")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "pair" / "processes").read_text() == "2"
    # both validate the model of the first process
    assert [(tmp_path / "pair" / f"buffer-{rank}").read_text() for rank in (0, 1)] == ["7", "7"]
    train_both(tmp_path / "single")
    for name in ("one", "two"):
        single, pair = load_state(tmp_path / "single" / name), load_state(tmp_path / "pair" / name)
        for key, value in single["model"].items():
            torch.testing.assert_close(pair["model"][key], value, rtol=1e-5, atol=1e-6)
        # the first moments of Adam are sums of gradients: they show a wrong scale, which the weights hide
        for turn, optimizer in single["optimizers"].items():
            for i, entry in optimizer["state"].items():
                other = pair["optimizers"][turn]["state"][i]
                torch.testing.assert_close(other["exp_avg"], entry["exp_avg"], rtol=1e-4, atol=1e-7)
        for a, b in zip(metrics(tmp_path / "single" / name), metrics(tmp_path / "pair" / name), strict=True):
            assert a == {k: None if v is None else pytest.approx(v, rel=1e-4) for k, v in b.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    train_both(target)
    validate_apart(target)
    if torch.distributed.get_rank() == 0:
        (target / "processes").write_text(str(torch.distributed.get_world_size()))
    leave_processes()
