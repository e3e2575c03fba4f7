"""A GAN in two processes: the gradients of both turns are those of one process that plays both shares."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_images

from genzoo.core.config import TrainConfig
from genzoo.core.random import seeded
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.gan.generator_model import GANConfig
from genzoo.nn.gan_nets import ConvGANNetworks
from genzoo.objectives.adversarial import R1, R2, Lazy
from genzoo.training.checkpoint import load_state
from genzoo.training.optim import clip_gradients, make_optimizer, rate_factor, set_rate
from genzoo.training.processes import BatchOrder, leave_processes
from genzoo.training.trainer import Budget, Trainer

SPEC = DataSpec((1, 6, 5), levels=4, cond="class", cond_size=3)
STEPS = 4
# with a first beta of 0 the first moment of Adam is the last gradient
TRAINING = TrainConfig(
    batch_size=14, precision="fp32", betas=(0.0, 0.9), clip_norm=1e9, validations=0, warmup_steps=0
)


def built():
    config = GANConfig(
        4, ConvGANNetworks((8, 8), 1), penalties=(Lazy(R1(0.5), every=2), Lazy(R2(0.3))), augmentation_probability=0.5,
        training=TRAINING,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return config.build(SPEC)


def data():
    return tiny_images(50, SPEC), torch.arange(50) % 3


def train(out):
    torch.set_num_threads(1)
    model = built()
    Trainer(model, Budget(steps=STEPS), out=out, progress=False).fit(data())
    return model


def trained_by_hand(shares):
    """The same steps written out: the sum of the shares' gradients, each share with the noise of its process."""
    torch.set_num_threads(1)
    model = built().train()
    images, labels = data()
    order = BatchOrder(len(images), TRAINING.batch_size, 0)
    optimizers = {turn: make_optimizer(list(model.parameters_of(turn)), TRAINING) for turn in model.turns}
    for step in range(STEPS):
        parts = order.indices(step).tensor_split(shares)
        noise = [seeded("cpu", "loss", 0, step, rank) for rank in range(shares)]
        before = model.game.d_steps.clone()
        for turn, optimizer in optimizers.items():
            for part, generator in zip(parts, noise, strict=True):
                model.game.d_steps.copy_(before)  # every process counts a turn once
                loss = model.loss(Batch(images[part], labels[part]), turn, generator=generator)
                # of the other player nothing may be left in .grad
                inputs = list(model.parameters_of(turn))
                (loss.total.sum() / TRAINING.batch_size).backward(inputs=inputs)
            clip_gradients(list(model.parameters_of(turn)), TRAINING.clip_norm)
            set_rate(optimizer, TRAINING.learning_rate * rate_factor(step, step / STEPS, TRAINING))
            optimizer.step()
            optimizer.zero_grad()
        model.game.d_steps.copy_(before + 1)
    return model, optimizers


def assert_equal(folder, shares):
    model, optimizers = trained_by_hand(shares)
    state = load_state(folder)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state["model"][name], value, rtol=1e-4, atol=1e-6)
    for turn, optimizer in optimizers.items():
        found, expected = state["optimizers"][turn]["state"], optimizer.state_dict()["state"]
        assert found.keys() == expected.keys()
        gradients = [expected[i]["exp_avg"] for i in expected]
        assert any(gradient.abs().max() > 1e-3 for gradient in gradients)
        for i, gradient in zip(expected, gradients, strict=True):
            torch.testing.assert_close(found[i]["exp_avg"], gradient, rtol=1e-3, atol=1e-6)


def test_one_process_does_what_the_formula_says(tmp_path):
    train(tmp_path)
    assert_equal(tmp_path, 1)


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one_in_both_turns(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [*launcher, __file__, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "processes").read_text() == "2"
    assert_equal(tmp_path / "run", 2)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    train(target / "run")
    if torch.distributed.get_rank() == 0:
        (target / "processes").write_text(str(torch.distributed.get_world_size()))
    leave_processes()
