"""What `evaluate` tells of latents: figures by hand, pictures, and the rows that people read."""

import json

import pytest
import torch
from PIL import Image

from genzoo import create, load_data
from genzoo.__main__ import main
from genzoo.core.spec import DataSpec
from genzoo.objectives.elbo import activity
from genzoo.objectives.quantisation import perplexity
from genzoo.testing.probe import perturb

FIELDS = {
    "vae": ["--latent-dim", "2"],
    "hvae": [],
    "vqvae": [],
    "vq-transformer": [],
}
PICTURES = {"vae": ("latents.png", "latent_map.png"), "hvae": ("latents.png",)}


def run(*argv):
    return main([str(a) for a in argv])


@pytest.mark.parametrize(
    "preset", [pytest.param(p, marks=pytest.mark.slow if p in ("vqvae", "hvae") else ()) for p in FIELDS]
)
def test_evaluate_describes_the_latents(preset, tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--data", "digits", "--size", "tiny", "--steps", "4", "--out", out]
    assert run("train", preset, *flags, *FIELDS[preset]) == 0
    capsys.readouterr()
    assert run("evaluate", out, "--max-images", 30, "--ood", "digits", "--samples", 0) == 0
    text = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    (latents,) = report["latents"].values()
    assert "active latents" in text or "codes in use" in text
    if preset in ("vae", "hvae"):
        (likelihood,) = report["likelihood"].values()
        assert latents["rate"]["value"] + latents["distortion"]["value"] == pytest.approx(
            -likelihood["details"]["elbo"]
        )
        assert "rate + distortion" in text
    if preset == "hvae":
        assert sum(latents["active_units_per_group"]) == latents["active_units"]
        assert sum(latents["kl_per_group"]) == pytest.approx(latents["rate"]["value"], abs=1)
    expected = {out / name for name in PICTURES.get(preset, ())}
    assert {str(path) for path in expected} == set(latents["pictures"])
    for path in expected:
        assert min(Image.open(path).size) > 50
    (ood,) = report["ood"].values()
    assert ood["auroc"]["complexity"]["value"] == pytest.approx(0.5, abs=0.1)  # strangers of the same kind
    assert ood["images"] == [30, 30] and "AUROC by typicality" in text


def test_ood_data_that_cannot_be_had_are_named_before_anything_is_measured(tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", "vae", "--data", "digits", "--size", "tiny", "--steps", "2", "--out", out) == 0
    (out / "report.json").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        run("evaluate", out, "--ood", "digitz")
    error = capsys.readouterr().err
    assert "did you mean 'digits'" in error and error.count("\n") == 1
    assert not (out / "report.json").exists()


def test_activity_is_the_variance_of_the_means():
    means = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 2.1]])
    torch.testing.assert_close(activity(means), torch.tensor([1.0, 0.0, 0.0025]))


def test_hvae_counts_units_that_follow_their_prior_as_inactive():
    """With posteriors at their priors only what the image moves counts: nothing but the vector, here."""
    model = perturb(create("hvae", DataSpec((1, 8, 8), 2), "tiny"))
    with torch.no_grad():
        for level in model.decoder.blocks:
            for block in level:
                block.posterior_head.weight.zero_()
                block.posterior_head.bias.zero_()
    images = torch.randint(2, (50, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    figures = model.latent_figures(images, generator=torch.Generator().manual_seed(0))
    assert figures["active_units_per_group"][0] > 0 and set(figures["active_units_per_group"][1:]) == {0}


def test_codes_in_use_are_those_of_the_images():
    data = load_data("digits")
    model = create("vqvae", data.spec, "tiny")
    model.fit(data.train, steps=3, progress=False)
    images = data.test.images[:40]
    counts = torch.bincount(model.encode(images).flatten(), minlength=model.quantiser.codebook_size)
    figures = model.latent_figures(images)
    assert figures["codebook_usage"] == pytest.approx((counts > 0).double().mean().item())
    assert figures["codebook_perplexity"] == pytest.approx(perplexity(counts / counts.sum()).item(), rel=1e-5)
