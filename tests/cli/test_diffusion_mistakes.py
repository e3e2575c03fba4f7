"""Mistakes around diffusion and flow models are told in one line that says what to do."""

import pytest
import torch

from genzoo.cli.parsing import flags_of
from genzoo.cli.sample_command import main as sample
from genzoo.cli.train_command import main as train
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.models.diffusion.samplers.sampling import Sampling
from genzoo.models.diffusion.samplers.time_grids import UniformGrid
from genzoo.models.registry import create, every_preset
from genzoo.objectives.denoising.paths import VE, SubVP, VPLinear
from genzoo.objectives.likelihood.diffusion_bound import BoundProtocol
from genzoo.objectives.likelihood.ode import OdeProtocol

PRESETS = every_preset()

SPEC = DataSpec((1, 4, 4), levels=4, cond="class", cond_size=3)


@pytest.fixture(scope="module")
def model():
    return create("flow", SPEC, "tiny", sampling=Sampling(steps=2, guidance=3.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.draw(2, weaker=create("edm", SPEC, "tiny")), "same path"),
        (lambda m, x: m.draw(2, weaker=create("flow", DataSpec((1, 8, 8), 4), "tiny")), "same shape"),
        (lambda m, x: m.vary(x, 0.0, torch.zeros(2).long()), "strength of a variation"),
        (lambda m, x: m.vary(x, 1.5, torch.zeros(2).long()), "strength of a variation"),
        (lambda m, x: m.impute(x, torch.zeros(3, 3), torch.zeros(2).long()), "missing must broadcast"),
        (lambda m, x: m.sample(2, torch.tensor([-1, 2])), "class -1 is out of range"),
        (lambda m, x: create("flow", SPEC, t_min=1.0), "t_min of DiffusionConfig"),
        (lambda m, x: create("flow", SPEC, cond_dropout=1.0), "cond_dropout"),
        (lambda m, x: BoundProtocol(t_min=1.0), "t_min of BoundProtocol must be a number from 0 to below 1"),
        (lambda m, x: OdeProtocol(t_min=1.0), "t_min of OdeProtocol must be a number from 0 to below 1"),
        (lambda m, x: create("ddpm", SPEC, protocol=BoundProtocol(t_min=0.0)), "has no noise at t = 0"),
        (lambda m, x: create("ddpm", SPEC, protocol=BoundProtocol(times=None)), "a diffusion bound needs"),
        (lambda m, x: create("shortcut", SPEC, protocol=BoundProtocol(t_min=0.0)), "has no noise at t = 0"),
        (lambda m, x: create("ddpm", SPEC, protocol=OdeProtocol(t_min=0.0)), "velocity at t = 0"),
        (lambda m, x: create("ddpm", SPEC, sampling=Sampling(grid=UniformGrid(start=0.0))), "a time grid"),
        (lambda m, x: VPLinear(beta_max=-3.0), "betas of a path"),
        (lambda m, x: SubVP(beta_min=0.0), "betas of a path"),
        (lambda m, x: VE(90.0, 80.0), "sigmas of a path"),
        (lambda m, x: Sampling(guidance_from=0.9, guidance_to=0.1), "guidance cannot hold"),
    ],
)
def test_in_python(model, call, message):
    images = torch.zeros(2, *SPEC.shape, dtype=torch.uint8)
    with pytest.raises(GenzooError, match=message):
        call(model, images)


def test_variations_may_be_very_small(model):
    images = torch.randint(4, (2, *SPEC.shape), dtype=torch.uint8)
    varied = model.vary(images, 0.001, torch.zeros(2).long(), generator=torch.Generator().manual_seed(0))
    assert varied.shape == images.shape


def test_flags_of_nested_objects_are_those_of_their_defaults():
    flags = flags_of(type(PRESETS["flow"].sizes["tiny"]))
    assert {"--network.channels", "--sampling.steps", "--training.learning-rate"} <= set(flags)
    assert "--network" not in flags


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["flow", "--network.channelz", "3"], "did you mean --network.channels"),
        (["flow", "--sampling.stps", "3"], "did you mean --sampling.steps"),
    ],
)
def test_mistyped_flags(argv, message, capsys):
    with pytest.raises(SystemExit):
        train(argv)
    assert message in capsys.readouterr().err


def test_sampling_flags(tmp_path, capsys, model):
    model.save(tmp_path / "flow")
    create("vae", DataSpec((1, 4, 4), 2), "tiny").save(tmp_path / "vae")
    assert (
        sample([str(tmp_path / "flow"), "--n", "3", "--cond", "1", "--steps", "3", "--guidance", "1.5"]) == 0
    )
    assert (tmp_path / "flow" / "samples" / "n3-cond1-steps3-guidance1.5-seed0.png").exists()
    capsys.readouterr()
    for argv, message in [
        (["flow", "--steps", "0"], "--steps must be"),
        (["vae", "--guidance", "2"], "--guidance is"),
    ]:
        with pytest.raises(SystemExit):
            sample([str(tmp_path / argv[0]), *argv[1:]])
        assert message in capsys.readouterr().err
