"""The cost block: what a run folder tells adds up over resumes, network calls are those of each family."""

import contextlib
import json
import math
import time
from dataclasses import replace

import pytest
import torch
from crashes import Crash, crashing
from small_models import built, images
from tiny_model import TinyConfig, tiny_images

import genzoo
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data.image_data import ImageData
from genzoo.data.split import TensorSplit
from genzoo.evaluation.cost import measure_cost, network_calls, training_cost
from genzoo.evaluation.likelihood import evaluate_likelihood
from genzoo.evaluation.report.baselines_section import BaselinesSection
from genzoo.evaluation.report.classification_section import ClassificationSection
from genzoo.evaluation.report.cost_section import CostSection
from genzoo.evaluation.report.report_file import read_report, write_report
from genzoo.evaluation.report.schema import CostResult, Report
from genzoo.models.diffusion.samplers.sampling import Sampling
from genzoo.models.diffusion.samplers.solvers import DDIM, Heun
from genzoo.training.checkpoint import load_state
from genzoo.training.machine import machine, peak_memory_mib, usage_at
from genzoo.training.optim import Budget
from genzoo.training.trainer import RunOptions, Trainer

SPEC = DataSpec((1, 3, 3), levels=4)


def burning(model, seconds):
    """`model`, which spends so many CPU-seconds in each forward pass."""

    def burn(*_):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    model.register_forward_hook(burn)
    return model


def train(out, steps, *, resume=False, save_every=None, burn=0.01, crash=None):
    training = TrainConfig(batch_size=16, precision="fp32", validations=2)
    model = burning(built(TinyConfig(training=training), SPEC), burn)
    model = model if crash is None else crashing(model, crash)
    options = RunOptions(device="cpu", resume=resume, save_every=save_every)
    trainer = Trainer(model, Budget(steps=steps), out=out, progress=False, options=options)
    before = time.process_time()
    with contextlib.suppress(Crash):
        trainer.fit(tiny_images(100, SPEC))
    return time.process_time() - before


# --- what a run folder tells -----------------------------------------------------------------------------------


def test_a_run_tells_what_it_cost(tmp_path):
    spent = train(tmp_path, 30)
    found = training_cost(tmp_path)
    assert (found.steps, found.images_seen, found.processes) == (30, 480, 1)
    assert found.epochs == pytest.approx(4.8)
    assert 0.3 <= found.cpu_seconds <= spent + 1e-3 and found.cpu_seconds > 0.8 * spent
    assert found.seconds * torch.get_num_threads() >= 0.99 * found.cpu_seconds
    assert found.machine == machine() and 50 < found.peak_memory_mib <= peak_memory_mib() + 1


def carried(out):
    """CPU-seconds up to the checkpoint, by the rows before it."""
    state, rows = load_state(out), map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return usage_at(list(rows), state["step"], state["seconds"])[0]


def test_cpu_seconds_add_up_over_a_resume(tmp_path):
    first = train(tmp_path, 20)
    before, taken_up = training_cost(tmp_path), carried(tmp_path)
    assert 0.2 < taken_up <= first
    second = train(tmp_path, 50, resume=True)
    found = training_cost(tmp_path)
    assert (found.steps, found.images_seen) == (50, 800)
    assert found.cpu_seconds == pytest.approx(taken_up + second, rel=0.05)
    assert found.peak_memory_mib >= before.peak_memory_mib


def test_work_that_a_crash_lost_is_not_counted(tmp_path):
    """It crashes in step 19 after the checkpoint of step 10, from which the run is resumed."""
    train(tmp_path, 60, save_every=10, crash=19)
    told, taken_up = training_cost(tmp_path), carried(tmp_path)
    assert told.steps > 10 and told.machine is None and taken_up < told.cpu_seconds - 0.05
    second = train(tmp_path, 60, resume=True, save_every=10)
    found = training_cost(tmp_path)
    assert (found.steps, found.images_seen) == (60, 960)
    assert found.cpu_seconds == pytest.approx(taken_up + second, rel=0.05) and found.cpu_seconds > 0.6


def test_usage_at_a_checkpoint():
    rows = [
        {"step": 1, "seconds": 1.0, "cpu_seconds": 2.0, "peak_memory_mib": 100.0},
        {"step": 4, "skipped_step": "loss"},
        {"step": 5, "seconds": 5.0, "cpu_seconds": 9.0, "peak_memory_mib": None},
        {"step": 9, "seconds": 9.0, "cpu_seconds": 99.0, "peak_memory_mib": 300.0},
    ]
    assert usage_at(rows, 5, 5.0) == (9.0, 100.0)
    assert usage_at(rows, 7, 6.0) == (pytest.approx(9 * 6 / 5), 100.0)
    assert usage_at([], 0, 1.0) == (0.0, 0.0)
    assert math.isnan(usage_at([{"step": 5, "seconds": 5.0}], 5, 5.0)[0])  # a run of before this was recorded


def test_a_folder_that_tells_nothing(tmp_path):
    built(TinyConfig(), SPEC).save(tmp_path)
    found = training_cost(tmp_path)
    assert found.seconds is None and found.cpu_seconds is None and found.machine is None
    with pytest.raises(GenzooError, match="run folder"):
        training_cost(tmp_path / "nothing")


# --- network calls ---------------------------------------------------------------------------------------------


IMAGES = DataSpec((1, 4, 4), levels=4)
COLOUR = DataSpec((3, 4, 4), levels=4)
CLASSES = DataSpec((1, 4, 4), levels=4, cond="class", cond_size=3)


@pytest.mark.parametrize(
    ("preset", "spec", "calls"),
    [("pixelcnn", IMAGES, 16), ("pixel-transformer", COLOUR, 48), ("vae", IMAGES, 1), ("gan", IMAGES, 1)],
)
def test_calls_of_families_without_steps(preset, spec, calls):
    model = genzoo.create(preset, spec, "tiny")
    assert network_calls(model, 3).most == calls
    assert network_calls(model, 1).most == calls
    assert not any(part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize(
    ("sampling", "calls"),
    [(Sampling(DDIM(), steps=5), 5), (Sampling(DDIM(), steps=5, guidance=2.0), 10)],
    ids=["plain", "guided"],
)
def test_calls_of_a_denoiser(sampling, calls):
    model = genzoo.create("ddpm", CLASSES, "tiny", sampling=sampling)
    model.chunk = 2  # parts of a batch are no more calls per image
    found = network_calls(model, 5)
    assert found.by_part["network"] == found.most and calls <= found.most <= calls + 2
    more = genzoo.create("ddpm", CLASSES, "tiny", sampling=Sampling(DDIM(), steps=9))
    assert network_calls(more, 5).most - network_calls(
        genzoo.create("ddpm", CLASSES, "tiny", sampling=Sampling(DDIM(), steps=5)), 5
    ).most == pytest.approx(4)


def test_heun_calls_twice_a_step():
    five, nine = (
        network_calls(genzoo.create("flow", IMAGES, "tiny", sampling=Sampling(Heun(), steps=s)), 2).most
        for s in (5, 9)
    )
    assert nine - five == pytest.approx(8)


def test_a_prior_of_codes_is_called_per_code():
    model = genzoo.create("vq-transformer", DataSpec((1, 8, 8), 4), "tiny")
    found = network_calls(model, 2)
    codes = model.prior.spec.dims
    assert found.most == codes > 1 and found.by_part["prior.head"] == codes
    assert 1 in found.by_part.values()  # the decoder, once


# --- the block -------------------------------------------------------------------------------------------------


def test_the_block_of_a_run(tmp_path):
    train(tmp_path, 5, burn=0.0)
    model = built(TinyConfig(), SPEC)
    report = evaluate_likelihood(model, TensorSplit(images(20, SPEC)))
    found = measure_cost(model, tmp_path, images=7, likelihood=report)
    assert found.parameters == 9 * 4 + 9 and found.sampled_images == 7
    assert found.likelihood_images_per_second == report.images_per_second
    assert found.sampling_images_per_second > 0 and found.machine["cores"] >= 1
    assert found.machine["torch"] == torch.__version__ and found.machine["processor"]
    assert found.training.images_seen == 80 and found.machine["device"] == "cpu"
    write_report(Report("test", cost=CostResult("test", found)), tmp_path)
    assert read_report(tmp_path).report().cost.cost == found
    with pytest.raises(GenzooError, match="at least one image"):
        measure_cost(model, None, images=0)


@pytest.fixture
def case(tmp_path):
    from genzoo.evaluation.report.case import Case

    spec = DataSpec((1, 4, 4), 4, "class", 3)
    labels = torch.arange(40) % 3
    train_split = TensorSplit(images(40, spec), labels)
    held_out = TensorSplit(images(30, spec, seed=1), labels[:30])
    data = ImageData("made-up", train_split, held_out, held_out, spec, {"test_id": "made-up/test"})
    model = genzoo.create("pixelcnn", spec, "tiny")
    model.save(tmp_path)
    return Case(model, data, "test", max_images=20)


def test_sections_of_the_three_blocks(case, tmp_path):
    """Kinds and rows, and that they are read as they were written."""
    section = BaselinesSection()
    baselines = section.measure(case)
    kinds = {name: found.kind for name, found in baselines.likelihoods.items()}
    assert section.applies(case) and baselines.test_id == "made-up/test"
    assert kinds["independent pixels"] == "EXACT" and kinds["PNG"] == "LOWER_BOUND"
    assert {found.images for found in baselines.likelihoods.values()} == {20}
    assert section.rows(baselines)["baseline: probabilistic PCA"].startswith("<= ")
    again = section.measure(case).likelihoods["PNG"]
    assert again.nats == baselines.likelihoods["PNG"].nats
    classes = ClassificationSection().measure(case)
    assert ClassificationSection().applies(case) and classes.kind == "EXACT"
    assert classes.images == 20 and 0 <= classes.accuracy.value <= 1
    cost = CostSection().measure(replace(case, run=tmp_path))
    rows = CostSection().rows(cost)
    assert rows["network calls"] == "16 per sample"
    assert "training" not in rows and cost.cost.training.seconds is None
    report = Report(case.name, baselines=baselines, classification=classes, cost=cost)
    write_report(report, tmp_path)
    assert read_report(tmp_path).report(case.name) == report


def test_models_that_sections_do_not_concern(case):
    classification, baselines = ClassificationSection(), BaselinesSection()
    spec = DataSpec((1, 4, 4), 4)
    assert not classification.applies(replace(case, model=genzoo.create("pixelcnn", spec, "tiny")))
    gan = genzoo.create("gan", case.model.spec, "tiny")
    assert not classification.applies(replace(case, model=gan))
    assert not baselines.applies(replace(case, model=gan))
    real_valued = genzoo.create("flow", DataSpec((2,), None), "tiny")
    assert not baselines.applies(replace(case, model=real_valued))
