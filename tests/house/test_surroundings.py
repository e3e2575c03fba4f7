"""Nothing that a caller has set for the whole process changes a result, of any preset; or one line says what to do."""

from contextlib import contextmanager

import accelerate
import pytest
import torch
from accelerate.state import AcceleratorState

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.models.names import own_model_rows
from genzoo.models.registry import every_preset
from genzoo.objectives.likelihood.ode import OdeProtocol, RungeKutta4

CLASSES, PLAIN = DataSpec((1, 4, 4), 4, "class", 2), DataSpec((1, 8, 8), 4)
MODELS = list(own_model_rows())
ENCODERS = list(genzoo.list_encoders())


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=3, shape=(1, 4, 4)):
    return torch.randint(4, (n, *shape), dtype=torch.uint8, generator=rng())


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS = {
    "inference mode": torch.inference_mode, "no gradients": torch.no_grad, "float64": default_dtype,
    "meta": default_device,
}  # fmt: skip


def made(name):
    """A preset's model with the condition of two images; an ODE is solved roughly, since only sameness matters."""
    if name in ENCODERS:
        return genzoo.create_encoder(name, PLAIN, "tiny").eval(), None
    suited = every_preset()[name].suited(CLASSES)
    wide = torch.zeros(2, suited.cond_size, device="cpu")
    cond = wide if suited.cond == "vector" else torch.tensor([0, 1], device="cpu")
    config = every_preset()[name].config("tiny", suited)
    rough = isinstance(getattr(config, "protocol", None), OdeProtocol)
    more = {"protocol": OdeProtocol(solver=RungeKutta4(2), gate_bits=1e9)} if rough else {}
    return genzoo.create(name, suited, "tiny", **more).eval(), cond


def results(model, cond, x):
    if isinstance(model, genzoo.Encoder):
        return [model.embed(x)]
    found = [model.sample(2, cond, generator=rng(1))]
    if model.likelihood is not genzoo.Likelihood.NONE:
        found.append(model.log_likelihood(x, cond, generator=rng(2)).nats)
    return found


@pytest.mark.parametrize("name", [*MODELS, *ENCODERS])
def test_results_are_the_same(name):
    """A model made outside and one made inside, on images made inside."""
    model, cond = made(name)
    x = images(2, model.spec.shape)
    before = results(model, cond, x)
    with torch.inference_mode():
        x = x.clone()
        with default_dtype(), default_device():
            again, anew = results(model, cond, x), results(*made(name), x)
    for a, b, c in zip(before, again, anew, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c) and a.dtype == b.dtype == c.dtype
    assert not torch.is_inference_mode_enabled() and torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("what", SETTINGS)
def test_training_is_the_same(what):
    def trained():
        model = genzoo.create("vae", DataSpec((1, 4, 4), 4), "tiny", channels=(4,), blocks=0)
        x = images(8).clone() if what != "meta" else kept
        return model.fit(x, val=x[:4], steps=2, progress=False).state_dict()

    kept = images(8)
    before = trained()
    with SETTINGS[what]():
        inside = trained()
    assert all(torch.equal(before[key], inside[key]) for key in before)


def test_what_needs_gradients_outside_of_the_contract(tmp_path):
    model = genzoo.create("gan", DataSpec((1, 4, 4), 4), "tiny")
    expected = model.invert(images(2), steps=3, generator=rng())
    with torch.inference_mode():
        assert torch.equal(expected, model.invert(images(2), steps=3, generator=rng()))
        loaded = genzoo.create("flow", DataSpec((1, 4, 4), 4), "tiny")
        loaded.save(tmp_path / "run")
        assert genzoo.load(tmp_path / "run").log_likelihood(images(2), generator=rng()).nats.isfinite().all()


@pytest.mark.parametrize("change", ["half", "bfloat16"])
@pytest.mark.parametrize("name", ["vae", "ddpm", "pixelcnn", "gan", "simclr"])
def test_weights_of_another_type_are_told_with_what_to_do(name, change):
    model, cond = made(name)
    x = images(2, model.spec.shape)
    before = results(model, cond, x)[0]
    with pytest.raises(GenzooError, match=r"model.float\(\)"):
        results(getattr(model, change)(), cond, x)
    with pytest.raises(GenzooError, match=r"model.float\(\)"):
        model.fit(x, steps=1, progress=False)
    assert results(model.float(), cond, x)[0].shape == before.shape


def test_whoever_made_an_accelerator_can_train_and_the_other_way_round():
    AcceleratorState._reset_state()
    own = accelerate.Accelerator(mixed_precision="bf16", gradient_accumulation_steps=3)
    try:
        x = images(8)
        genzoo.create("vae", DataSpec((1, 4, 4), 4), "tiny").fit(x, steps=1, progress=False)
        assert own.mixed_precision == "bf16" and own.gradient_accumulation_steps == 3
        assert AcceleratorState().mixed_precision == "bf16"
        AcceleratorState._reset_state()
        genzoo.create("vae", DataSpec((1, 4, 4), 4), "tiny").fit(x, steps=1, progress=False)
        assert accelerate.Accelerator(mixed_precision="bf16").mixed_precision == "bf16"
    finally:
        AcceleratorState._reset_state()
