"""The validation of the evaluator: corruptions, exact KL divergences, and the sections on digits with tiny sizes."""

import json
import sys

import pytest
import torch
from enumeration import all_images, perturbed
from small_models import rng
from torch import nn

import genzoo
import genzoo.evaluation.features.extractor
from benchmarks import validate_metrics, validation_bench, validation_judges, validation_truth
from benchmarks.corruptions import BESIDE, CORRUPTIONS, SEVERITIES
from benchmarks.validation_bench import DEFAULT, FRECHET, SCORES, Bench
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data.image_data import ImageData
from genzoo.data.split import TensorSplit
from genzoo.evaluation.features.feature_space import pixel_space, random_space

EVERY = {**CORRUPTIONS, **BESIDE}


def scenes(n, channels=1, side=28, levels=256, seed=0):
    """Smooth images in 0 .. levels-1 with structure at several scales."""
    coarse = torch.rand(n, channels, 7, 7, generator=rng(seed))
    fine = torch.rand(n, channels, side, side, generator=rng(seed + 1))
    p = 0.8 * nn.functional.interpolate(coarse, size=(side, side), mode="bilinear") + 0.2 * fine
    return (p * (levels - 1)).round().to(torch.uint8)


# --- corruptions ---------------------------------------------------------------------------------------------------


def test_there_are_eight_at_five_rising_severities():
    assert len(CORRUPTIONS) == 8 and SEVERITIES == (0, 1, 2, 3, 4, 5)
    for corruption in EVERY.values():
        assert len({*corruption.amounts}) == 5 and list(corruption.amounts) == sorted(corruption.amounts)
        assert corruption.amounts[0] > 0 and corruption.unit


@pytest.mark.parametrize("name", EVERY)
def test_a_corruption_goes_farther_with_severity_and_keeps_what_images_are(name):
    images = scenes(24)
    before = images.clone()
    changed = [EVERY[name](images, 256, severity, rng(5)) for severity in SEVERITIES]
    assert torch.equal(images, before) and torch.equal(changed[0], images)
    assert changed[0].data_ptr() != images.data_ptr()
    distances = [(x.float() - images.float()).square().mean().item() for x in changed]
    strongest = 5 if name == "turn" else 6  # turned by 60 degrees, pixels are as far off as they get
    assert validation_bench.rises(distances[:strongest]), distances
    assert all(x.dtype == torch.uint8 and x.shape == images.shape for x in changed)
    assert torch.equal(EVERY[name](images, 256, 3, rng(5)), changed[3])


@pytest.mark.parametrize("name", EVERY)
def test_a_corruption_takes_colours_and_few_levels(name):
    few = EVERY[name](scenes(6, 3, 8, levels=17), 17, 5, rng(1))
    assert few.shape == (6, 3, 8, 8) and int(few.max()) <= 16
    assert EVERY[name](scenes(4, side=9).long(), 256, 1, rng(1)).dtype == torch.long


@pytest.mark.parametrize(
    "name", ["noise", "blur", "brightness", "occlusion", "shift", "turn", "magnification"]
)
def test_each_image_draws_its_own(name):
    same = scenes(1).expand(8, 1, 28, 28)
    changed = EVERY[name](same, 256, 4, rng(3))
    assert len(changed.flatten(1).unique(dim=0)) > 1
    assert not torch.equal(changed, EVERY[name](same, 256, 4, rng(4)))


def test_amounts_are_in_the_units_that_they_name():
    grey = torch.full((400, 1, 28, 28), 128, dtype=torch.uint8)
    noisy = CORRUPTIONS["noise"](grey, 256, 3, rng())
    assert noisy.float().std().item() / 255 == pytest.approx(0.1, rel=0.02)
    bright = CORRUPTIONS["brightness"](grey // 2, 256, 4, rng())  # a stop: twice or half of 64
    assert {*bright.unique().tolist()} == {32, 128}
    image = scenes(3)
    flat = CORRUPTIONS["contrast"](image, 256, 4, rng()).float()
    assert flat.std((2, 3)).div(image.float().std((2, 3))).allclose(torch.tensor(0.5), atol=0.01)
    blocks = CORRUPTIONS["pixelation"](image, 256, 3, rng())  # of 4 places
    means = nn.functional.avg_pool2d(image.float(), 4).round().repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert (blocks.float() - means).abs().max() <= 1
    ramp = (torch.arange(28) * 9).to(torch.uint8).expand(64, 1, 28, 28)
    moved = (CORRUPTIONS["shift"](ramp, 256, 4, rng())[:, 0, 14, 14].float() - ramp[0, 0, 14, 14]) / 9
    assert moved.abs().max() == 6 and moved.min() < 0 < moved.max()  # 0.2 of 28 places, to all sides


def test_what_cannot_be_corrupted_is_refused():
    with pytest.raises(GenzooError, match="severities are 0 to 5"):
        CORRUPTIONS["noise"](scenes(2), 256, 6, rng())
    with pytest.raises(GenzooError, match="1 or 3 channels"):
        CORRUPTIONS["jpeg"](scenes(2, 4), 256, 1, rng())


# --- the truth -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """A model of 2 x 2 images of 3 levels, whose every image can be listed."""
    spec = DataSpec((1, 2, 2), levels=3)
    return perturbed(genzoo.create("pixelcnn", spec, "tiny", seed=0).double(), 0.2).eval()


@pytest.mark.parametrize("kind", ["noise", "temperature"])
def test_divergences_are_those_of_enumeration(small, kind):
    q = (
        validation_truth.noisy(small, 0.5, rng(7))
        if kind == "noise"
        else validation_truth.tempered(small, 1.5)
    )
    everything = all_images(small.spec)
    p_log, q_log = (model.log_likelihood(everything).nats for model in (small, q))
    assert p_log.exp().sum().item() == pytest.approx(1) and q_log.exp().sum().item() == pytest.approx(1)
    exact = (p_log.exp() * (p_log - q_log)).sum().item()
    found, error = validation_truth.kl_divergence(small, q, validation_truth.drawn(small, 4000, rng(1)))
    assert exact > 5 * error and abs(found - exact) < 4 * error
    assert validation_truth.kl_divergence(small, small, everything) == (0.0, 0.0)


def test_tempered_models_draw_what_they_say(small):
    cold = validation_truth.tempered(small, 0.5)
    everything = all_images(small.spec)
    draws = validation_truth.drawn(cold, 6000, rng(2))
    shares = (draws.flatten(1)[:, None] == everything.flatten(1)).all(2).double().mean(0)
    p = cold.log_likelihood(everything).nats.exp()
    statistic = (6000 * (shares - p).square() / p).sum().item()
    assert statistic < 81 + 5 * (2 * 81) ** 0.5  # chi-squared with 80 degrees of freedom
    assert not torch.allclose(p, small.log_likelihood(everything).nats.exp(), atol=1e-3)
    assert small.distribution is not cold.distribution


def test_noise_leaves_the_model_alone(small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    validation_truth.noisy(small, 1.0, rng())
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_coarse_images_are_those_of_their_levels():
    coarse = validation_truth.coarse(
        torch.tensor([0, 63, 64, 255]).view(4, 1, 1, 1).expand(4, 3, 28, 28), 256
    )
    assert coarse.shape == (4, 1, 14, 14) and coarse[:, 0, 3, 3].tolist() == [0, 0, 1, 3]


# --- sections ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench():
    """Digits seen by extractors that need no training, under the names of those that do."""
    data = genzoo.load_data("digits")
    made = Bench(data, 150, 2, 0, lambda text: None, 4)
    spaces = {DEFAULT: pixel_space(data.train), "random": random_space(data.train)}
    made.__dict__["spaces"] = spaces  # what `cached_property` would put there
    made.__dict__["judges"] = {DEFAULT: spaces[DEFAULT], "seed 1": spaces["random"]}
    return made


def test_figures_of_ranks():
    assert validation_bench.kendall([0, 1, 2, 3], [0.0, 1.0, 3.0, 2.0]) == pytest.approx(4 / 6)
    assert validation_bench.kendall([0, 1, 2], [5.0, 5.0, 5.0]) == 0.0
    assert validation_bench.spearman([0, 1, 2, 3], [0, 1, 3, 2]) == pytest.approx(0.8)
    assert validation_bench.rises([1, 2, 3]) and not validation_bench.rises([1, 2, 2])
    assert validation_bench.agreement({"a": [1, 2], "b": [2, 1], "c": [3, 4]}) == {
        "a / b": -1.0,
        "a / c": 1.0,
        "b / c": -1.0,
    }


def test_corruptions_of_digits_are_ranked(bench, monkeypatch):
    monkeypatch.setattr(validate_metrics, "BESIDE", {})
    monkeypatch.setattr(
        validate_metrics, "CORRUPTIONS", {name: CORRUPTIONS[name] for name in ("noise", "contrast", "jpeg")}
    )
    found = validate_metrics.corruptions(bench)
    assert {*found.figures} == {"noise", "contrast", "jpeg"}
    values = found.figures["noise"][DEFAULT]
    assert {*values} == {*SCORES} and validation_bench.rises(values[FRECHET])
    assert validation_bench.rises(found.figures["contrast"][DEFAULT][FRECHET])
    assert not found.bars[0].passed and found.bars[0].found[:6] in ("2 of 3", "3 of 3")


def test_dropped_modes_and_contamination_raise_the_distance(bench):
    for section, sets in ((validate_metrics.modes, 3), (validate_metrics.contamination, 3)):
        found = section(bench)
        assert len(found.figures) == sets
        first = next(iter(found.figures.values()))
        assert validation_bench.rises(first[DEFAULT][FRECHET]), first
    labels = torch.arange(200) % 10
    apart = torch.eye(10)[labels].double() + 0.01 * torch.randn(200, 10, generator=rng(), dtype=torch.float64)
    made = Bench(bench.data, 20, 2, 0, lambda text: None)
    made.__dict__["real_features"] = {"own": apart}
    coverage = validate_metrics._thinned(made, {"own": apart}, labels, 0)["own"]["1-coverage"]
    assert coverage[-1] >= 0.8 > coverage[2]  # nothing covers the eight classes of ten that are gone


def test_data_without_classes_lose_none(bench):
    bare = TensorSplit(bench.data.train.images)
    data = ImageData("bare", bare, bare, bare, bench.data.spec, {})
    with pytest.raises(GenzooError, match="labelled"):
        validate_metrics.modes(Bench(data, 50, 2, 0, print))
    found = validate_metrics.run(Bench(data, 50, 2, 0, print), ["modes"])
    assert "left out: classes" in found["modes"].lines[0] and found["modes"].bars == []
    with pytest.raises(GenzooError, match="20 are needed"):
        _ = Bench(data, 5, 2, 0, print).real


def test_judges_agree_with_themselves_and_parts_of_augmentations_are_alone(bench):
    found = validation_judges.seeds(bench)
    assert (
        -1 <= found.figures["tau"][f"{DEFAULT} / seed 1"] <= 1
        and len(found.figures["distances"][DEFAULT]) == 24
    )
    blind = validation_judges.blind(bench)
    assert {*blind.figures} == {"all", "shades", "size", "stretch", "turn", "(mirror)"}
    assert blind.figures["all"]["change"] > blind.figures["turn"]["change"] > 0
    with pytest.raises(GenzooError, match="two seeds"):
        validation_judges.seeds(Bench(bench.data, 50, 1, 0, print))


def test_the_command_prints_tables_and_writes_figures(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(genzoo.evaluation.features.extractor, "STEPS", 3)
    monkeypatch.setattr(validation_truth, "LEARNED", 100)
    monkeypatch.setattr(validation_truth, "NOISES", (0.05, 3.0))
    monkeypatch.setattr(validation_truth, "TEMPERATURES", (2.0,))
    path = tmp_path / "figures.json"
    argv = ["--data", "digits", "--images", "40", "--seeds", "1", "--only", "truth", "--truth-steps", "4"]
    monkeypatch.setattr(sys, "argv", ["validate_metrics", *argv, "--json", str(path)])
    validate_metrics.main()
    printed = capsys.readouterr().out
    assert (
        "== truth" in printed and "temperature 2" in printed and ("passes:" in printed or "FAILS:" in printed)
    )
    stored = json.loads(path.read_text(encoding="utf-8"))
    kl = stored["sections"]["truth"]["kl"]
    assert kl["P itself"] == [0.0, 0.0] and kl["noise 3"][0] > max(0.5, kl["noise 0.05"][0])


def test_an_unknown_section_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["validate_metrics", "--only", "mods"])
    with pytest.raises(SystemExit):
        validate_metrics.main()
    assert "unknown section 'mods'" in capsys.readouterr().err
