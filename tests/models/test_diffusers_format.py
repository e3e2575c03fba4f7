"""Folders of diffusers: stock pipelines in, models out and back, against diffusers' own networks and steps."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from diffusers_folders import (
    CONV,
    FLOW,
    OWN,
    PLAIN,
    STEPS,
    UNET,
    V,
    built,
    ddpm,
    generator,
    noise,
    read,
    saved,
    stock_unet,
)

from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec
from genzoo.models.diffusers_format import DiffusersDenoiser, to_diffusers
from genzoo.models.diffusers_reader import from_diffusers
from genzoo.models.diffusion.samplers.sampling import Sampling
from genzoo.models.diffusion.samplers.solvers import DDIM, Euler
from genzoo.models.loading import load_model
from genzoo.nn.saved_unet import SavedUNetConfig
from genzoo.objectives.denoising.betas import LinearBetas
from genzoo.objectives.denoising.noise_conditioning import TimeConditioning
from genzoo.objectives.denoising.paths import DiscreteBetas, Linear, NoiseTarget, VelocityTarget
from genzoo.training.checkpoint import save_model

# --- stock pipelines in --------------------------------------------------------------------------------------

SCHEDULERS = {
    "linear": ddpm(),
    "scaled-linear-x": ddpm(beta_schedule="scaled_linear", prediction_type="sample"),
    "cosine-v": DDIMScheduler(
        num_train_timesteps=STEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    ),
    "trained-dpm-solver": DPMSolverMultistepScheduler(
        num_train_timesteps=4, trained_betas=[0.1, 0.2, 0.3, 0.4], prediction_type="v_prediction"
    ),
    "unipc": UniPCMultistepScheduler(num_train_timesteps=STEPS, beta_end=0.1),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS.keys())
def test_stock_pipelines_come_in_with_their_betas_and_predictions(tmp_path, scheduler):
    unet = saved(tmp_path, scheduler)
    model = from_diffusers(tmp_path)
    steps = len(scheduler.alphas_cumprod)
    assert model.spec == DataSpec((3, 8, 8), 256) and not model.training
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    torch.testing.assert_close(
        model.path.at(t).alpha ** 2, scheduler.alphas_cumprod.double(), rtol=2e-5, atol=1e-7
    )
    i, x = torch.tensor([0, steps // 2, steps - 1]), noise(3, 3, 8, 8)
    with torch.no_grad():
        expected = unet(x, i).sample
        y = model.predict(x, (i + 1).double() / steps, None)
        prediction = model.denoiser(None)(x, t[i])
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    # diffusers' own reading of the same output
    alpha = scheduler.alphas_cumprod[i].sqrt()[:, None, None, None]
    sigma = (1 - alpha**2).sqrt()
    kind = scheduler.config.prediction_type
    of_data = {
        "epsilon": (x - sigma * expected) / alpha,
        "sample": expected,
        "v_prediction": alpha * x - sigma * expected,
    }
    torch.testing.assert_close(prediction.x0, of_data[kind], rtol=1e-3, atol=1e-3)


def test_ddim_steps_are_those_of_the_pipeline(tmp_path):
    scheduler = DDIMScheduler(num_train_timesteps=STEPS, beta_end=0.2, clip_sample=False)
    pipeline = DDIMPipeline(unet=stock_unet(), scheduler=scheduler)
    pipeline.save_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(batch_size=2, num_inference_steps=5, generator=generator(7), output_type="pt").images
    states = pipeline.scheduler.timesteps.double() + 1
    times = torch.cat([states / STEPS, torch.zeros(1, dtype=torch.float64)])
    model = from_diffusers(tmp_path)
    with torch.no_grad():
        ours = DDIM().run(model.denoiser(None), model.path, times, noise(2, 3, 8, 8, seed=7))
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-4)
    assert theirs.std() > 0.05


@pytest.mark.parametrize("scheduler", [ddpm(), FlowMatchEulerDiscreteScheduler()], ids=["ddpm", "flow"])
def test_a_stock_pipeline_gets_samples_and_likelihoods_that_survive_a_run_folder(tmp_path, scheduler):
    before = torch.get_rng_state()
    saved(tmp_path / "pipeline", scheduler)
    torch.set_rng_state(before)
    model = from_diffusers(tmp_path / "pipeline")
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.randint(256, (2, 3, 8, 8), generator=generator())
    answer = model.log_likelihood(images, generator=generator())
    assert answer.kind is LikelihoodKind.LOWER_BOUND and answer.nats.isfinite().all()
    samples = model.draw(2, sampling=Sampling(steps=3), generator=generator())
    assert samples.shape == (2, 3, 8, 8) and samples.dtype == torch.uint8 and samples.double().std() > 0
    save_model(model, tmp_path / "run")
    loaded = load_model(tmp_path / "run", types=[SavedUNetConfig])
    assert loaded.config == model.config
    assert torch.equal(loaded.log_likelihood(images, generator=generator()).nats, answer.nats)


def test_every_step_once_is_the_bound_in_the_pipelines_own_steps(tmp_path):
    saved(tmp_path, DDPMScheduler(trained_betas=[0.02, 0.3, 0.5, 0.8], num_train_timesteps=4))
    protocol = from_diffusers(tmp_path).config.protocol
    assert (protocol.t_min, protocol.steps, protocol.times) == (0.25, 3, 16)


def test_flow_pipelines_come_in(tmp_path):
    unet = saved(tmp_path, FlowMatchEulerDiscreteScheduler(shift=3.0))
    model, x = from_diffusers(tmp_path), noise(2, 3, 8, 8)
    assert model.path == Linear() and model.target == VelocityTarget()
    t = torch.tensor([0.25, 1.0], dtype=torch.float64)
    with torch.no_grad():
        prediction, expected = model.denoiser(None)(x, t), unet(x, 1000 * t).sample
    torch.testing.assert_close(prediction.eps - prediction.x0, expected, rtol=1e-5, atol=1e-5)


def test_a_bare_unet_is_taken_for_ddpms(tmp_path):
    unet = stock_unet(size=[8, 6])
    unet.save_pretrained(tmp_path)
    model = from_diffusers(tmp_path)
    assert model.path == DiscreteBetas(LinearBetas(1000, 1e-4, 0.02)) and model.target == NoiseTarget()
    assert model.spec.shape == (3, 8, 6)


# --- models out, and back ------------------------------------------------------------------------------------

UNET_CLASS, OWN_CLASS = (
    ["diffusers", "UNet2DModel"],
    ["genzoo.models.diffusers_format", "DiffusersDenoiser"],
)


def expected_output(model, pipeline, x, timesteps):
    """What the scheduler must be told, from our reading of the data and the noise in x."""
    flow = isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler)
    t = timesteps.double() / 1000 if flow else (timesteps.double() + 1) / len(pipeline.scheduler.betas)
    prediction, at = model.denoiser(None)(x, t), model.path.at(t)
    if flow:
        return prediction.eps - prediction.x0
    alpha, sigma = (c.float()[:, None, None, None] for c in at[:2])
    kinds = {
        "epsilon": prediction.eps,
        "sample": prediction.x0,
        "v_prediction": alpha * prediction.eps - sigma * prediction.x0,
    }
    return kinds[pipeline.scheduler.config.prediction_type]


@pytest.mark.parametrize(
    ("config", "kind"),
    [(c, UNET_CLASS) for c in PLAIN.values()] + [(c, OWN_CLASS) for c in OWN.values()],
    ids=[*PLAIN, *OWN],
)
def test_models_go_out_and_come_back(tmp_path, config, kind):
    model = built(config)
    to_diffusers(model, tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["unet"] == kind
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    timesteps = pipeline.scheduler.timesteps
    chosen = timesteps[[0, len(timesteps) // 2, -2]]
    x = noise(3, 1, 8, 8)
    with torch.no_grad():
        expected = expected_output(model, pipeline, x, chosen)
        assert expected.std() > 0.01
        torch.testing.assert_close(pipeline.unet(x, chosen).sample, expected, rtol=2e-4, atol=2e-4)
        one = pipeline.unet(x[:1], chosen[0], return_dict=False)[0]
        torch.testing.assert_close(one, expected[:1], rtol=2e-4, atol=2e-4)
        back = from_diffusers(tmp_path)
        torch.testing.assert_close(expected_output(back, pipeline, x, chosen), expected, rtol=5e-4, atol=5e-4)
    images = pipeline(batch_size=2, num_inference_steps=3, output_type="np", generator=generator()).images
    assert images.shape == (2, 8, 8, 1) and ((images >= 0) & (images <= 1)).all() and images.std() > 0
    if kind == OWN_CLASS:
        assert back.config == model.config


def test_the_schedulers_alphas_are_the_paths(tmp_path):
    for name, config in PLAIN.items():
        to_diffusers(built(config), tmp_path / name)
        scheduler = DDPMPipeline.from_pretrained(tmp_path / name).scheduler
        if config.path == Linear():
            continue
        t = torch.arange(1, len(scheduler.betas) + 1, dtype=torch.float64) / len(scheduler.betas)
        kept = config.path.at(t).alpha ** 2
        torch.testing.assert_close(scheduler.alphas_cumprod.double(), kept, rtol=1e-3, atol=1e-6)
    schedule = {name: read(tmp_path / name / "scheduler" / "scheduler_config.json") for name in PLAIN}
    assert schedule["noise"]["beta_schedule"] == "linear" and schedule["noise"]["trained_betas"] is None
    assert schedule["cosine-betas-x"]["beta_schedule"] == "squaredcos_cap_v2"
    assert schedule["given-betas"]["trained_betas"] == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("network", [UNET, CONV], ids=["unet", "conv"])
def test_euler_steps_of_the_flow_pipeline_are_ours(tmp_path, network):
    model = built(replace(FLOW, network=network))
    to_diffusers(model, tmp_path)
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(batch_size=2, num_inference_steps=6, generator=generator(5), output_type="pt").images
    times = pipeline.scheduler.sigmas.double()
    with torch.no_grad():
        ours = Euler().run(model.denoiser(None), model.path, times, noise(2, 1, 8, 8, seed=5))
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-4)
    assert theirs.std() > 0.05


@pytest.mark.parametrize(
    "changes", [{}, {"flip_sin_to_cos": False, "freq_shift": 1}], ids=["cos-sin", "sin-cos"]
)
def test_a_late_clock_goes_into_the_weights(tmp_path, changes):
    unet = saved(tmp_path / "in", FlowMatchEulerDiscreteScheduler(), stock_unet(**changes))
    model = from_diffusers(tmp_path / "in")
    model.config = replace(model.config, c_noise=TimeConditioning(1000, 300))
    to_diffusers(model, tmp_path / "out")
    moved, x, i = (
        UNet2DModel.from_pretrained(tmp_path / "out" / "unet"),
        noise(3, 3, 8, 8),
        torch.tensor([1, 30, 700]),
    )
    with torch.no_grad():
        torch.testing.assert_close(moved(x, i).sample, unet(x, i + 300).sample, rtol=1e-4, atol=1e-4)
        assert (moved(x, i).sample - unet(x, i).sample).abs().max() > 1e-3


def test_exporting_leaves_the_model_alone(tmp_path):
    for network in (UNET, CONV):
        model = built(replace(V, network=network, c_noise=TimeConditioning(1000, 5)))
        before = {k: v.clone() for k, v in model.state_dict().items()}
        rng = torch.get_rng_state()
        to_diffusers(model, tmp_path)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), rng)


def test_our_component_wants_its_module_imported(tmp_path, monkeypatch):
    """As the docstring of `to_diffusers` says: diffusers imports nothing because a folder names it."""
    to_diffusers(built(FLOW), tmp_path / "plain")
    to_diffusers(built(OWN["conv-v"]), tmp_path / "own")
    monkeypatch.delitem(sys.modules, OWN_CLASS[0])
    DDPMPipeline.from_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=f"import {OWN_CLASS[0]} before"):
        DDPMPipeline.from_pretrained(tmp_path / "own")


def test_an_image_of_any_shape_goes_out(tmp_path):
    model = built(V, shape=(3, 7, 5))  # padded inside, which a plain U-Net would not do
    to_diffusers(model, tmp_path)
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.unet, DiffusersDenoiser)
    assert pipeline(num_inference_steps=2, output_type="np", generator=generator()).images.shape == (
        1,
        7,
        5,
        3,
    )


def test_pixels_leave_the_pipeline_as_the_levels_that_they_are():
    levels = torch.arange(256)
    shown = (((2 * levels + 1) / 256 - 1) / 2 + 0.5).numpy()
    (image,) = DDPMPipeline.numpy_to_pil(shown.reshape(1, 16, 16, 1))
    assert list(image.tobytes()) == levels.tolist()
