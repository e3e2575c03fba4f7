"""Figures that would be false are none: of NaN weights, of data that do not vary, in units that a loss has not."""

import math

import pytest
import torch

import genzoo
from genzoo.cli.evaluate_command import main
from genzoo.core.errors import GenzooError
from genzoo.data.split import TensorSplit
from genzoo.evaluation.evaluator import check_finite
from genzoo.evaluation.report.latents_section import LatentsSection, latents_result
from genzoo.evaluation.report.modes_section import ModesSection, modes_result
from genzoo.metrics.modes import Modes
from genzoo.training.loss_curve import loss_label


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(value, tmp_path, capsys):
    data = genzoo.load_data("digits")
    model = genzoo.create("pixelcnn", data.spec, "tiny")
    with torch.no_grad():
        next(iter(model.parameters())).fill_(value)
    with pytest.raises(GenzooError, match="hold NaN or infinity"):
        check_finite(model)
    model.save(tmp_path / "run")
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "run"), "--data", "digits", "--max-images", "4"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "hold NaN or infinity" in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "report.json").exists()


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
