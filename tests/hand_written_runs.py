"""Run folders written by hand: what the tests of comparisons read, without any training."""

import json

import torch

from genzoo.core.config import to_json
from genzoo.core.spec import DataSpec
from genzoo.data.image_grid import save_grid
from genzoo.evaluation.cost import Cost, NetworkCalls, TrainingCost
from genzoo.evaluation.report.report_file import write_report
from genzoo.evaluation.report.sample_schema import ExtractorFacts, QualityResult
from genzoo.evaluation.report.schema import AISResult, CostResult, LikelihoodResult, Report
from genzoo.metrics.estimate import Estimate
from genzoo.models.registry import get_preset

SPEC = DataSpec((1, 8, 8), levels=17)
TEST_ID = "digits/test@seed=0"


def figure(value, reach=0.1, *, samples=500, references=300, higher=False, floor=None):
    return Estimate(value, samples, references, value - reach, value + reach, "95%: halves", floor, higher)


def quality(frechet, *, identity="abc", decode="draw", **more):
    figures = {"frechet": figure(frechet, floor=0.5, **more), "recall": figure(0.5, higher=True, **more)}
    extractor = ExtractorFacts("own encoder", identity, 64)
    counts = {"samples": 500, "asked": 500, "seed": 0, "seconds": 1.0}
    return {"quality": QualityResult(TEST_ID, extractor, figures, **counts, decode=decode)}


def bits_and_nats(bits, images):
    return Estimate.from_stderr(bits, 0.01, images), Estimate.from_stderr(-bits * 44.36, 0.5, images)


def likelihood(bits, kind="EXACT", *, images=300, details=None, test_id=TEST_ID):
    figures, details = bits_and_nats(bits, images), details or {"conditional": False}
    return {"likelihood": LikelihoodResult(test_id, *figures, kind, images, 50.0, details)}


def ais(bits, *, images):
    details = {"scale": 0.1, "bdmc_gap": 1.0}
    return {"ais": AISResult(TEST_ID, *bits_and_nats(bits, images), "ESTIMATE", images, 0.1, 1.0, details)}


def cost(samples_per_second, processor="Xeon"):
    machine = {
        "processor": processor,
        "cores": 2,
        "threads": 1,
        "device": "cpu",
        "python": "3.11",
        "torch": "2.9",
    }
    training = TrainingCost(images_seen=6400, seconds=60.0, cpu_seconds=90.0)
    calls = NetworkCalls(30.0, {"network": 30.0})
    spent = Cost(1000, training, calls, samples_per_second, 64, None, None, None, machine)
    return {"cost": CostResult(TEST_ID, spent, 0)}


def hand_written(folder, preset="vae", *reports, spec=SPEC, samples=16, **overrides):
    """A run of `preset` on digits whose report holds the sections of `reports`; `samples` images in its grid."""
    recipe = get_preset(preset)
    content = {
        "format": 1, "spec": to_json(spec), "config": to_json(recipe.config("tiny", spec)), "preset": preset, "seed": 0,
        "budget": {"steps": 6}, "train_images": 1259,
        "data": {"name": "digits", "test_id": TEST_ID, "arguments": {"name": "digits"}}, **overrides,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(content))
    for name, part in ((name, part) for report in reports for name, part in report.items()):
        write_report(Report(part.test_id, **{name: part}), folder)
    if samples:
        images = torch.randint(
            spec.levels, (samples, *spec.shape), generator=torch.Generator().manual_seed(samples)
        )
        save_grid(images, spec, folder / "samples" / "final.png")
    return folder
