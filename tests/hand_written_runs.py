"""Run folders written by hand: what the tests of comparisons read, without any training."""

import json

import torch

from genzoo.core.config import to_json
from genzoo.core.spec import DataSpec
from genzoo.data.image_grid import save_grid
from genzoo.models.registry import get_preset

SPEC = DataSpec((1, 8, 8), levels=17)
TEST_ID = "digits/test@seed=0"


def figure(value, reach=0.1, *, samples=500, references=300, higher=False, floor=None):
    return {
        "value": value, "low": value - reach, "high": value + reach, "interval": "95%: halves", "floor": floor,
        "samples": samples, "references": references, "higher_is_better": higher,
    }  # fmt: skip


def quality(frechet, *, identity="abc", **more):
    judge = {"name": "own encoder", "identity": identity, "width": 64}
    figures = {"frechet": figure(frechet, floor=0.5, **more), "recall": figure(0.5, higher=True, **more)}
    return {
        "quality": {TEST_ID: {"judge": judge, "figures": figures, "samples": 500, "seed": 0, "seconds": 1.0}}
    }


def likelihood(bits, kind="EXACT", *, images=300, details=None, test_id=TEST_ID):
    content = {
        "nats": -bits * 44.36, "nats_stderr": 0.5, "bits_per_dim": bits, "bits_per_dim_stderr": 0.01, "kind": kind,
        "images": images, "images_per_second": 50.0, "details": details or {"conditional": False},
    }  # fmt: skip
    return {"likelihood": {test_id: content}}


def cost(samples_per_second, processor="Xeon"):
    machine = {
        "processor": processor,
        "cores": 2,
        "threads": 1,
        "device": "cpu",
        "python": "3.11",
        "torch": "2.9",
    }
    return {
        "cost": {
            TEST_ID: {
                "training": {"images_seen": 6400, "seconds": 60.0, "cpu_seconds": 90.0}, "network_calls": {"most": 30},
                "sampling_images_per_second": samples_per_second, "machine": machine,
            }
        }
    }  # fmt: skip


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
    if reports:
        (folder / "report.json").write_text(json.dumps({k: v for r in reports for k, v in r.items()}))
    if samples:
        images = torch.randint(
            spec.levels, (samples, *spec.shape), generator=torch.Generator().manual_seed(samples)
        )
        save_grid(images, spec, folder / "samples" / "final.png")
    return folder
