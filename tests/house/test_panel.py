"""The panel that measures whether figures agree with the eye: its sets, its pairs, and the recorded grids."""

from pathlib import Path

import pytest
import torch

from benchmarks.looking import FIRST_LOOK, SECOND_LOOK, mean_ranks, recorded_grids
from benchmarks.panel_models import Workshop
from benchmarks.panel_sets import CHAINS, GROSS, MILD, REAL, pairs, panel_of, salted, shuffled
from genzoo.core.errors import GenzooError
from genzoo.data import load_data

PAGE = Path(__file__).parents[2] / "samples" / "bakeoff-fashion-mnist.html"


def rng():
    return torch.Generator().manual_seed(0)


def all_names():
    return [*{name for _, chain in CHAINS for name in chain} | {*MILD} | {*GROSS}]


def test_pairs_are_some_hundred_and_contradict_nothing():
    found = pairs(all_names())
    assert 90 <= len(found) <= 110 and all(p.reason for p in found)
    worse_than = {(p.better, p.worse) for p in found}
    assert len(worse_than) == len(found)
    assert not any((b, a) in worse_than for a, b in worse_than)
    assert not any(p.worse == REAL for p in found)


def test_pairs_of_missing_sets_are_left_out():
    assert {(p.better, p.worse) for p in pairs([REAL, "blur 1", "blur 5"])} == {
        (REAL, "blur 1"),
        (REAL, "blur 5"),
        ("blur 1", "blur 5"),
    }


def test_salt_hits_its_share():
    grey = torch.full((50, 3, 20, 20), 9, dtype=torch.uint8)
    found = salted(grey, 17, 0.1, rng())
    changed = (found != grey).any(1)
    assert abs(changed.double().mean().item() - 0.1) < 0.01
    assert {*found.unique().tolist()} == {0, 9, 16}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_windows_keep_their_pixels(share):
    images = torch.randint(256, (4, 3, 9, 11), generator=rng()).to(torch.uint8)
    found = shuffled(images, share, rng())
    assert torch.equal(found[..., 9:], images[..., 9:])  # what no whole window covers
    for r in range(0, 9, 3):
        for c in range(0, 9, 3):
            before, after = (x[:, :, r : r + 3, c : c + 3].flatten(2) for x in (images, found))
            assert torch.equal(before.sort(2).values, after.sort(2).values)
    assert torch.equal(found, images) == (share == 0.0)


def test_a_panel_without_models_has_sets_of_one_size(tmp_path):
    panel = panel_of(Workshop(load_data("digits"), tmp_path), 60, drawn=False)
    assert {len(images) for images in panel.sets.values()} == {60}
    assert "left out 0.33" in panel.sets and "vae mean" not in panel.sets
    assert len(panel.sets["copies 10"].flatten(1).unique(dim=0)) <= 10
    with pytest.raises(GenzooError, match="needs"):
        panel_of(Workshop(load_data("digits"), tmp_path), 10_000, drawn=False)


def test_both_looks_rank_the_same_entrants():
    assert sorted(FIRST_LOOK) == sorted(SECOND_LOOK) and sum(mean_ranks().values()) == 78


def test_recorded_grids_are_read_pixel_for_pixel(tmp_path):
    grids = recorded_grids(PAGE)
    assert {name: tuple(x.shape) for name, x in grids.items()} == dict.fromkeys(FIRST_LOOK, (64, 1, 28, 28))
    assert all(x.unique().numel() > 100 for x in grids.values())
    (tmp_path / "page.html").write_text("<html></html>")
    with pytest.raises(GenzooError, match="shows no samples"):
        recorded_grids(tmp_path / "page.html")
