"""Figures that would be false are none: of NaN weights, of data that do not vary, in units that a loss has not."""

import math

import pytest
import torch

import genzoo
from genzoo.cli.evaluate_command import main as evaluate
from genzoo.cli.sample_command import main as sample
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data.split import TensorSplit
from genzoo.evaluation.report.latents_section import LatentsSection, latents_result
from genzoo.evaluation.report.modes_section import ModesSection, modes_result
from genzoo.metrics.modes import Modes
from genzoo.models.doors import DOORS
from genzoo.models.names import own_model_rows
from genzoo.models.registry import every_preset
from genzoo.training.loss_curve import loss_label


def spoilt(model, value=math.nan):
    with torch.no_grad():
        next(iter(model.parameters())).fill_(value)
    return model


@pytest.mark.parametrize(("name", "value"), [("gan", math.nan), ("flow", math.inf), ("vae", -math.inf)])
def test_weights_that_are_not_finite_are_refused(name, value, tmp_path, capsys):
    data, run = genzoo.load_data("digits"), tmp_path / "run"
    model = spoilt(genzoo.create(name, data.spec, "tiny"), value)
    with pytest.raises(GenzooError, match="hold NaN or infinity"):
        genzoo.evaluation.evaluate(model, data, samples=0)
    model.save(run)
    for command in ([evaluate, "--data", "digits", "--max-images", "4"], [sample, "--n", "2"]):
        with pytest.raises(SystemExit) as stop:
            command[0]([str(run), *command[1:]])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert "hold NaN or infinity" in error and error.count("\n") == 1
    assert not (run / "report.json").exists() and not list(run.glob("samples/*"))


@pytest.mark.parametrize("name", [*own_model_rows(), *genzoo.list_encoders()])
def test_no_method_that_draws_or_measures_takes_weights_that_are_not_finite(name):
    plain = DataSpec((1, 8, 8), 4)
    if name in genzoo.list_encoders():
        model = spoilt(genzoo.create_encoder(name, plain, "tiny"))
    else:
        model = spoilt(genzoo.create(name, every_preset()[name].suited(plain), "tiny"))
    images = torch.zeros(1, *plain.shape, dtype=torch.uint8)
    arguments = {
        "sample": (1,),
        "log_likelihood": (images,),
        "embed": (images,),
        "embed_images_shared": (images,),
    }
    doors = [door for door in DOORS if hasattr(model, door)]
    if isinstance(model, genzoo.GenerativeModel) and model.likelihood is genzoo.Likelihood.NONE:
        doors.remove("log_likelihood")
    assert doors
    for door in doors:
        with pytest.raises(GenzooError, match="hold NaN or infinity"):
            getattr(model, door)(*arguments.get(door, ()))


def test_samples_of_data_that_do_not_vary_have_no_dispersion():
    data = TensorSplit(torch.full((40, 1, 4, 4), 7, dtype=torch.uint8), None)
    modes = Modes.of(data)
    for samples in (torch.arange(20 * 16).view(20, 1, 4, 4) % 17, torch.full((20, 1, 4, 4), 7)):
        found = modes.count(samples.to(torch.uint8))
        assert found.dispersion is None and not found.collapsed
        result = modes_result("constant", found, 20)
        assert result.spread is None and "none" in ModesSection().rows(result)["dispersion of samples"]


def test_active_latents_say_what_they_carry():
    found = {"images": 10, "active_units": 11, "latents": 16, "rate": 0.4, "distortion": 50.0}
    text = LatentsSection().rows(latents_result("x", found, (), 10))["active latents"]
    assert text == "11 of 16 (Var E[z|x] > 0.01; all carry 0.40 nats together)"


def test_losses_are_in_nats_where_they_are():
    spec = genzoo.DataSpec((1, 8, 8), levels=17)
    units = {
        name: genzoo.create(name, spec, "tiny").loss_unit
        for name in ("vae", "hvae", "pixelcnn", "gan", "flow", "edm")
    }
    assert units == {"vae": "nats", "hvae": "nats", "pixelcnn": "nats", "gan": "", "flow": "", "edm": ""}
    assert genzoo.create_encoder("simclr", spec, "tiny").loss_unit == ""
    assert loss_label("nats") == "loss (nats)" and loss_label("") == "loss"
