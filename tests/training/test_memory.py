"""The memory that a run will take: known before it starts, close to what it takes, and refused with what would fit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_model import TinyConfig

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.core.free_memory import _free_in_group, available_memory
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.registry import create, create_encoder, get_preset
from genzoo.training import memory
from genzoo.training.memory import GIBIBYTE, MemoryNeed, memory_need, refusal, repeated

GREY = DataSpec((1, 8, 8), levels=17)
LITTLE = 2**24  # less than twice the bound on any of these models: a closer look is taken


def need_of(model, images=16, free=LITTLE):
    spec = model.spec
    pixels = torch.zeros(1, *spec.shape, dtype=torch.uint8)
    cond = torch.zeros(1, spec.cond_size) if spec.cond == "vector" else None
    return memory_need(model, Batch(pixels, cond), images, free=free)


def saved_bytes(model, images):
    """Bytes that a step's backward pass waits for, counted in earnest by another means."""
    seen = {}
    pixels = torch.randint(model.spec.levels, (images, *model.spec.shape))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.train().loss(Batch(pixels)).total.sum()
    assert loss.requires_grad
    return sum(seen.values())


@pytest.mark.parametrize("name", ["pixelcnn", "vae", "flow"])
def test_what_waits_for_the_backward_pass_is_counted(name):
    model = create(name, GREY, "tiny")
    need, saved = need_of(model, 32), saved_bytes(model, 32)
    weights = sum(p.numel() * 4 for p in model.parameters())
    assert saved <= need.per_image * 32 <= 4 * saved and need.fixed >= 5 * weights


@pytest.mark.parametrize("name", ["vqvae", "ot-flow", "gan", "image-to-image", "simclr"])
def test_losses_that_look_at_numbers_are_known_too(name):
    """Those of a GAN's turns, of codes, of assignments and of pairs."""
    model = (
        create_encoder(name, GREY, "tiny")
        if name == "simclr"
        else create(name, get_preset(name).suited(GREY), "tiny")
    )
    need = need_of(model)
    assert not need.bound and need.per_image > 4 * 64


def test_nothing_is_changed_by_looking():
    model = create("gan", GREY, "tiny", seed=3)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    for free in (LITTLE, 2**40):
        need_of(model, free=free)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_more_images_and_larger_ones_take_more():
    small, large = (need_of(create("flow", DataSpec((1, side, side), 17), "tiny")) for side in (8, 16))
    assert 2 < large.per_image / small.per_image < 6
    assert need_of(create("flow", GREY, "tiny"), 64).total > 1.5 * small.total


@pytest.mark.parametrize("name", ["flow", "gan", "hvae", "pixel-transformer", "vae"])
def test_small_runs_are_not_looked_at(name):
    """And need less than is said of them."""
    model = create(name, GREY, "tiny")
    bound, need = need_of(model, free=2**40), need_of(model)
    assert bound.bound and str(bound).startswith("less than") and not need.bound
    assert need.total < bound.total


@pytest.mark.parametrize("name", ["flow", "gan", "hvae", "pixelcnn", "vae"])
def test_no_loss_takes_more_before_the_last_step_than_in_it(name):
    """Only the end of a run is looked at."""
    batch, model = (
        repeated(Batch(torch.zeros(1, *GREY.shape, dtype=torch.uint8)), 16),
        create(name, GREY, "tiny"),
    )
    first, last = (memory._peak_without_numbers(model, batch, False, (moment,)) for moment in (0.0, 1.0))
    assert first is not None and last is not None and first <= last


def test_a_refusal_names_what_fits():
    need = MemoryNeed(fixed=2**20, per_image=2.0**28, images=64)
    text = refusal(need, (3, 512, 512), 4 * GIBIBYTE)
    assert text is not None and "\n" not in text
    assert "images 3x512x512 in batches of 64 needs about 16.0 GiB" in text and "4.0 GiB are free" in text
    assert "--image-size 240" in text and "--training.batch-size 8" in text and "--size" in text
    assert MemoryNeed(2**20, 2.0**28 * (240 / 512) ** 2, 64).total < 4 * GIBIBYTE
    assert MemoryNeed(2**20, 2.0**28, 8).total < 4 * GIBIBYTE
    assert refusal(need, (3, 512, 512), 17 * GIBIBYTE) is None
    hopeless = refusal(MemoryNeed(2**33, 2.0**33, 64), (3, 512, 512), GIBIBYTE)
    assert "--training.batch-size" not in hopeless and "--image-size" not in hopeless


def test_fit_refuses_what_cannot_fit_and_writes_nothing(tmp_path, monkeypatch):
    """A machine of 64 MiB, and images of 64 pixels."""
    monkeypatch.setattr(memory, "available_memory", lambda device: 2**26)
    model = create("flow", DataSpec((1, 64, 64), 17), "small")
    images = torch.zeros(128, 1, 64, 64, dtype=torch.uint8)
    with pytest.raises(GenzooError, match=r"needs about .* GiB more, and 0\.1 GiB are free: take .*--size"):
        model.fit(images, steps=1, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_tells_what_it_needs(capsys):
    TinyConfig().build(GREY).fit(torch.zeros(32, 1, 8, 8, dtype=torch.uint8), steps=1)
    assert capsys.readouterr().out.count("memory: less than ") == 1


def test_a_network_beyond_all_memory_is_not_built(monkeypatch):
    monkeypatch.setattr("genzoo.models.preset.available_memory", lambda: 2**20)
    with pytest.raises(GenzooError, match="parameters"):
        genzoo.create("flow", GREY, "base")


def test_limits_of_control_groups(tmp_path):
    assert _free_in_group(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200\n")
    assert _free_in_group(tmp_path) is None
    (tmp_path / "memory.max").write_text("5000\n")
    assert _free_in_group(tmp_path) == 4200
    assert available_memory() > 2**20


MEASURE = """
import json, resource, sys
import psutil, torch, genzoo
from genzoo.core.spec import Batch, DataSpec
from genzoo.training.memory import memory_need
name, side = sys.argv[1], int(sys.argv[2])
model = genzoo.create(name, DataSpec((1, side, side)))
images = torch.randint(256, (64, 1, side, side), dtype=torch.uint8)
genzoo.create("vae", DataSpec((1, 4, 4), 2), "tiny").fit(images[:, :, :4, :4] // 128, steps=1, progress=False)
need = memory_need(model, Batch(images[:1]), 64, bf16=True, free=2**31)
before = psutil.Process().memory_info().rss
model.fit(images, steps=2, progress=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([need.total / 2**20, (peak - before) / 2**20]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize("name", ["pixelcnn", "flow", "gan"])
def test_the_estimate_is_near_what_is_taken(name, side):
    command = [sys.executable, "-c", MEASURE, name, str(side)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    estimated, taken = json.loads(found.stdout.splitlines()[-1])
    assert taken / 5 - 50 < estimated < 2 * taken + 50
