"""Presets: every one builds and works for every kind of image, and passes the conformance suite."""

from dataclasses import replace

import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import Batch, DataSpec
from genzoo.data import load_data
from genzoo.models.registry import create, every_preset, list_models
from genzoo.objectives.likelihood.ode import OdeProtocol, RungeKutta4
from genzoo.testing import yield_checks

DESCRIPTIONS = list_models()
PRESETS = every_preset()

SHAPES = [(1, 2, 2), (1, 8, 8), (3, 5, 7), (1, 1, 9), (1, 13, 1), (1, 28, 28), (3, 33, 20)]
SIZES = ("tiny", "small", "base", "large")


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_tiny_models_work_on_any_image(name, shape, levels):
    spec = PRESETS[name].suited(DataSpec(shape, levels))
    model = create(name, spec, "tiny")
    images = torch.randint(levels, (2, *shape), dtype=torch.uint8)
    batch = Batch(images, torch.zeros(2, spec.cond_size) if spec.cond else None)
    losses = [model.loss(batch, turn).total for turn in model.turns]
    assert all(loss.shape == (2,) and loss.isfinite().all() for loss in losses)
    if model.likelihood is not LikelihoodKind.EXACT:
        return
    # a fresh model's last layer is zero: a uniform distribution, but for the logistics' own shape
    (loss,) = losses
    bits = loss / (spec.dims * torch.log(torch.tensor(2.0)))
    assert (bits - torch.log2(torch.tensor(float(levels)))).abs().max() < (1e-4 if levels < 33 else 0.5)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 64, 64)], ids=str)
def test_every_size_builds(name, size, shape):
    spec = PRESETS[name].suited(DataSpec(shape))
    with torch.device("meta"):
        model = PRESETS[name].config(size, spec).build(spec)
    assert model.spec.shape == shape


def conforming(name, spec):
    """The tiny preset without dropout, which draws from the global random state, and with few steps of solvers."""
    config, fields = PRESETS[name].config("tiny", spec), {}
    if hasattr(config, "dropout"):
        fields["dropout"] = 0.0
    if isinstance(getattr(config, "protocol", None), OdeProtocol):
        fields["protocol"] = replace(config.protocol, solver=RungeKutta4(steps=2), gate_bits=1.0)
    if hasattr(config, "sampling"):
        fields["sampling"] = replace(config.sampling, steps=4)
    return create(name, spec, "tiny", **fields)


def _checks():
    for name in PRESETS:
        for spec in (DataSpec((1, 2, 3), 2), DataSpec((3, 3, 4), cond="class", cond_size=3)):
            for check in yield_checks(conforming(name, PRESETS[name].suited(spec))):
                yield pytest.param(check, id=f"{name}-{spec.levels}-{check.name}")


@pytest.mark.parametrize("check", list(_checks()))
def test_conformance(check):
    result = check.run()
    assert result.ok, result.message


WITH_LATENTS = [
    name
    for name, preset in PRESETS.items()
    if hasattr(create(name, preset.suited(DataSpec((1, 8, 8), 17)), "tiny"), "latent_figures")
]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "vqvae" else pytest.mark.slow) for name in WITH_LATENTS]
)
def test_latents_are_in_use_after_training(name):
    """No posterior collapse: the latents differ from image to image, and the prior is paid for it."""
    data = load_data("digits")
    model = create(name, data.spec, "tiny")
    model.fit(data.train, steps=100 if name == "vqvae" else 200, progress=False)
    images, generator = data.val.images, torch.Generator().manual_seed(0)
    figures = model.latent_figures(images, generator=generator)
    if "codes" in figures:
        assert figures["codebook_perplexity"] > 30
    else:
        assert figures["active_units"] >= 8
        assert model.log_likelihood(images[:40], generator=generator).details["kl"] > 1


def test_every_preset_is_described():
    assert set(DESCRIPTIONS) == set(PRESETS) == set(list_models())


def test_sizes_grow():
    for preset in PRESETS.values():
        counts, spec = [], preset.suited(DataSpec((1, 28, 28)))
        for size in SIZES:
            with torch.device("meta"):
                model = preset.config(size, spec).build(spec)
            counts.append(sum(p.numel() for p in model.parameters()))
        assert counts == sorted(counts) and tuple(preset.sizes) == SIZES


def test_initial_weights_follow_the_seed_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    spec = DataSpec((1, 4, 4), 2)
    one, same, other = (create("pixelcnn", spec, "tiny", seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: create("pixlcnn", s), "did you mean 'pixelcnn'"),
        (lambda s: create("pixelcnn", s, "huge"), "unknown size 'huge'"),
        (lambda s: create("pixelcnn", s, widht=3), "did you mean 'width'"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(GenzooError, match=message):
        call(DataSpec((1, 4, 4), 2))
