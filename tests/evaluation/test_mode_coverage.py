"""What training, the bar and the report say of the health of two-player models."""

import json
from dataclasses import replace

import pytest
import torch

import genzoo
from genzoo.cli.evaluate_command import main as evaluate
from genzoo.cli.train_command import main as train
from genzoo.core.config import TrainConfig
from genzoo.core.spec import Batch, DataSpec
from genzoo.evaluation.report.ais_section import AISSection
from genzoo.evaluation.report.case import AISOptions, Case
from genzoo.evaluation.report.modes_section import ModesSection, modes_result
from genzoo.metrics.modes import Modes
from genzoo.models.base import counts_modes
from genzoo.models.gan.generator_model import GANConfig
from genzoo.models.monitors import count_modes
from genzoo.models.registry import get_preset
from genzoo.nn.gan_nets import DenseGANNetworks
from genzoo.objectives.likelihood.annealing import HMC
from genzoo.objectives.likelihood.decoder import Annealing
from genzoo.training.progress import Meter, Reporter
from genzoo.training.step import StepResult

TRAINING = TrainConfig(batch_size=16, precision="fp32", validations=2)


def built(cond=None):
    spec = DataSpec((1, 8, 8), 17, cond, 10 if cond else 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GANConfig(4, DenseGANNetworks(16, 1), training=TRAINING).build(spec)


@pytest.fixture(scope="module")
def digits():
    return genzoo.load_data("digits")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "gan"
    assert train(["gan", "--size", "tiny", "--steps", "4", "--out", str(folder), "--no-progress"]) == 0
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_tell_who_wins_and_what_is_hit(run):
    parts = next(row["parts"] for row in rows(run) if "parts" in row)
    wanted = {"accuracy", "gap", "penalty", "grad_norm"}
    assert {f"discriminator/{name}" for name in wanted} | {"generator/grad_norm"} <= parts.keys()
    counted = [row["modes"] for row in rows(run) if "modes" in row]
    assert counted and all(row["modes"] == 10 and 0 <= row["covered"] <= 10 for row in counted)


def test_gradient_norms_are_those_of_each_player(run):
    first = next(row for row in rows(run) if "parts" in row)
    norms = [first["parts"][f"{turn}/grad_norm"] for turn in ("discriminator", "generator")]
    assert first["step"] == 1 and norms[0] != norms[1] and max(norms) == pytest.approx(first["grad_norm"])


def test_the_report_names_a_collapse(digits):
    """An untrained generator draws one image over and over."""
    model = built()
    with torch.no_grad():
        model.generator.body.last.weight.zero_()
    found = count_modes(model, Modes.of(digits.train), torch.Generator().manual_seed(0))
    assert found.collapsed and found.covered == 1
    assert "COLLAPSED" in rows_of(found)["health"]


def rows_of(found):
    return ModesSection().rows(modes_result("test", found, 500))


def test_data_as_samples_are_healthy(digits):
    found = Modes.of(digits.train).count(digits.test.images)
    assert not found.collapsed and found.covered == 10 and found.divergence < 0.05
    assert "health" not in rows_of(found)


def test_modes_are_counted_where_no_likelihood_tells(digits):
    assert counts_modes(built()) and counts_modes(built("class"))
    assert not counts_modes(genzoo.create("pixelcnn", digits.spec, "tiny"))
    assert not counts_modes(genzoo.create("gan", DataSpec((1, 8, 8), 17, "vector", 2), "tiny"))


def test_evaluate_says_what_there_is_instead(run, capsys):
    assert evaluate([str(run), "--samples", "0"]) == 0
    text = capsys.readouterr().out
    report = json.loads((run / "report.json").read_text())
    assert "likelihood" not in report and "none: a GAN" in " ".join(text.split())
    (modes,) = report["modes"].values()
    assert modes["modes"] == 10 and f"{modes['covered']['value']:.0f} of 10" in text


def test_the_generator_plus_noise_has_a_section_of_its_own(digits):
    quick = Annealing(chains=2, steps=4, hmc=HMC(leapfrog_steps=2, pilot_transitions=4))
    section, case = AISSection(), Case(built(), digits, "test", ais=AISOptions(2, quick))
    assert section.applies(case) and not section.applies(replace(case, ais=None)) and section.table
    found, rows = section.measure(case), section.rows(section.measure(case))
    assert section.name == "ais" and found.images == 2
    assert found.scale > 0 and found.kind == "LOWER_BOUND"
    assert "another model" in rows["what is evaluated"] and "nats" in rows["gap (BDMC)"]


@pytest.mark.slow
def test_the_generator_plus_noise_from_the_command_line(tmp_path, capsys):
    built().save(tmp_path)
    assert (
        evaluate([str(tmp_path), "--data", "digits", "--ais", "1", "--ais-steps", "3", "--samples", "0"]) == 0
    )
    (found,) = json.loads((tmp_path / "report.json").read_text())["ais"].values()
    assert found["images"] == 1 and found["details"]["steps"] == 3 and "another" in capsys.readouterr().out


def test_noise_is_for_generators(tmp_path, capsys, digits):
    genzoo.create("pixelcnn", digits.spec, "tiny").save(tmp_path)
    with pytest.raises(SystemExit):
        evaluate([str(tmp_path), "--data", "digits", "--max-images", "5", "--ais", "2", "--samples", "0"])
    assert "leave it out" in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()


def test_the_bar_shows_what_is_watched(capsys):
    meter, reporter = Meter(["discriminator/accuracy"]), Reporter(show=True)
    for accuracy in (1.0, 0.0):
        meter.add(StepResult(2.0, 1.0, {"discriminator/accuracy": torch.tensor(accuracy)}), 0.1)
    assert meter.watched == {"accuracy": pytest.approx(0.95)}
    reporter.note, reporter._line_at = "modes 9/10", -1e9
    reporter.update(7, 0.5, meter, 100.0, 60.0)
    text = capsys.readouterr().out
    assert "accuracy 0.95" in text and "modes 9/10" in text
    meter.clear(50.0)
    assert meter.watched == {"accuracy": pytest.approx(0.95)} and meter.steps == 0 and meter.speed(8) == 50.0


def test_predictions_from_input_images_are_judged(tmp_path, capsys):
    out = tmp_path / "run"
    argv = [
        "image-to-image",
        "--cond",
        "mask",
        "--size",
        "tiny",
        "--steps",
        "2",
        "--out",
        str(out),
        "--no-progress",
    ]
    assert train(argv) == 0
    for command in (lambda: None, lambda: evaluate([str(out), "--max-images", "40", "--samples", "0"])):
        command()
        (figures,) = json.loads((out / "report.json").read_text())["translation"].values()
        assert (
            figures["l1"]["value"] > 0
            and figures["inputs"]["l1"] > 0
            and "random convolutions" in figures["frechet"]
        )
        assert f"{figures['l1']['value']:.4f}" in capsys.readouterr().out
    assert figures["images"] == 40


@pytest.mark.parametrize("preset", ["gan", "image-to-image", "vqgan"])
def test_what_is_watched_is_what_a_turn_tells(preset):
    spec = get_preset(preset).suited(DataSpec((1, 8, 8), 17))
    model = genzoo.create(preset, spec, "tiny")
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    batch = Batch(images, torch.zeros(2, 64) if spec.cond else None)
    model.progress = 0.4  # where each player of the first stage plays
    told = {f"{turn}/{name}" for turn in model.turns for name in model.loss(batch, turn).parts}
    assert len(model.watched) == 2 and set(model.watched) <= told
