"""Published networks against independent implementations, and their figures in reports and tables; weights are random,
but of the right names and shapes, in a hub folder of their own."""

from dataclasses import replace

import pytest
import torch
from banks import Bank
from torch import nn
from torch.nn import functional as F

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.evaluation.comparison.entries import entry_of
from genzoo.evaluation.comparison.overview import quality_table
from genzoo.evaluation.evaluator import Evaluation, measured
from genzoo.evaluation.features import published
from genzoo.evaluation.features.extractor import extractor_named
from genzoo.evaluation.features.feature_space import random_space
from genzoo.evaluation.features.photograph_networks import (
    DINOv2,
    as_photographs,
    dinov2,
    fid_inception,
    resized_as_tensorflow_1,
    seen_by_inception,
)
from genzoo.evaluation.features.published import FID_WEIGHTS, dinov2_space, inception_space, published_spaces
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.evaluated_samples import Inquiry
from genzoo.evaluation.report.published_section import PublishedSection
from genzoo.evaluation.report.rendering import report_rows
from genzoo.evaluation.report.report_file import read_report, write_report
from genzoo.metrics.frechet import frechet_distance


def images(n=2, c=1, levels=17, side=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(levels, (n, c, side, side), generator=generator).to(torch.uint8)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of torch's hub, and no cache of Hugging Face's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def random_weights(network):
    """Of a network on no device, in float32; deviations near 1 keep what comes out finite."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in ((k, v.shape) for k, v in network.state_dict().items()):
        noise = torch.randn(shape, generator=generator)
        scale = name.endswith(("bn.weight", "running_var", "norm1.weight", "norm2.weight", "norm.weight"))
        found[name] = 1 + 0.1 * noise.abs() if scale else 0.05 * noise
    return {k: v for k, v in found.items() if not k.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def inception_weights():
    from torchvision.models.inception import Inception3

    with torch.device("meta"):
        network = Inception3(1008, aux_logits=False, init_weights=False)
    return random_weights(network)


def authors_names(width, depth, grid):
    """The shapes of DINOv2's weights under its authors' names."""
    shapes = {
        "cls_token": (1, 1, width), "pos_embed": (1, 1 + grid**2, width), "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,),
    }  # fmt: skip
    for i in range(depth):
        block = {
            "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
            "ls1.gamma": (width,), "ls2.gamma": (width,), "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,), "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
            "mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,),
        }  # fmt: skip
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


# --- what networks see ---------------------------------------------------------------------------------------


def test_resampling_is_tensorflows():
    """By its definition, pixel by pixel: src = i h / side, neighbours weighted linearly, the last one repeated."""
    x, side = torch.rand(1, 1, 5, 3), 11
    found = resized_as_tensorflow_1(x, side)[0, 0]
    for i in range(side):
        for j in range(side):
            y, z = i * 5 / side, j * 3 / side
            a, b = int(y), int(z)
            corners = [[x[0, 0, min(a + da, 4), min(b + db, 2)] for db in (0, 1)] for da in (0, 1)]
            rows = [r[0] * (1 - (z - b)) + r[1] * (z - b) for r in corners]
            assert found[i, j] == pytest.approx(
                (rows[0] * (1 - (y - a)) + rows[1] * (y - a)).item(), abs=1e-6
            )


def test_resampling_keeps_corners_and_is_not_that_of_pixel_centres():
    x = torch.rand(2, 3, 8, 8)
    found = resized_as_tensorflow_1(x, 299)
    assert torch.equal(found[..., 0, 0], x[..., 0, 0])
    centred = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
    assert (found - centred).abs().max() > 0.1


# --- the networks --------------------------------------------------------------------------------------------


def test_inception_is_torch_fidelitys(hub, inception_weights):
    """Average pools without padding, the last block's maximum, and (x - 128) / 128 of uint8 colours."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.save(inception_weights, hub / FID_WEIGHTS[0])
    theirs = module.FeatureExtractorInceptionV3(
        "inception", ["2048"], feature_extractor_weights_path=str(hub / FID_WEIGHTS[0])
    )
    with torch.no_grad():
        expected = theirs(as_photographs(images(), 17))[0]
    torch.testing.assert_close(inception_space(17).features(images()), expected, rtol=1e-4, atol=1e-5)


def test_inceptions_pools_are_tensorflows(inception_weights):
    """Of each block: its pooled branch sees averages over what is there alone, or the maximum."""
    network = fid_inception(inception_weights, "weights")
    for name, width, pool in (
        ("Mixed_5b", 192, lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)),
        ("Mixed_7b", 1280, lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)),
        ("Mixed_7c", 2048, lambda x: F.max_pool2d(x, 3, 1, 1)),
    ):
        x, block = torch.rand(1, width, 5, 5), getattr(network, name)
        with torch.no_grad():
            found, branch = block(x), block.block.branch_pool(pool(x))
            own = block.block(x)
        torch.testing.assert_close(found[:, -branch.shape[1] :], branch)
        assert torch.equal(found[:, : -branch.shape[1]], own[:, : -branch.shape[1]])
    seen = seen_by_inception(images(), 17)
    assert seen.shape == (2, 3, 299, 299) and seen.min() >= -1 and seen.max() <= 127 / 128


def plain_vit(weights, x, depth, heads):
    """DINOv2 written down again, with the authors' names and torch's own attention."""
    w, width = weights, weights["cls_token"].shape[-1]
    tokens = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=14)
    tokens = tokens.flatten(2).transpose(1, 2)
    tokens = torch.cat([w["cls_token"].expand(len(x), -1, -1), tokens], 1) + w["pos_embed"]
    for i in range(depth):
        b = {k.removeprefix(f"blocks.{i}."): v for k, v in w.items() if k.startswith(f"blocks.{i}.")}
        h = F.layer_norm(tokens, (width,), b["norm1.weight"], b["norm1.bias"], 1e-6)
        h, _ = F.multi_head_attention_forward(
            h.transpose(0, 1), *[h.transpose(0, 1)] * 2, width, heads, b["attn.qkv.weight"], b["attn.qkv.bias"],
            None, None, False, 0.0, b["attn.proj.weight"], b["attn.proj.bias"],
        )  # fmt: skip
        tokens = tokens + b["ls1.gamma"] * h.transpose(0, 1)
        h = F.layer_norm(tokens, (width,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        h = F.linear(
            F.gelu(F.linear(h, b["mlp.fc1.weight"], b["mlp.fc1.bias"])),
            b["mlp.fc2.weight"],
            b["mlp.fc2.bias"],
        )
        tokens = tokens + b["ls2.gamma"] * h
    return F.layer_norm(tokens[:, 0], (width,), w["norm.weight"], w["norm.bias"], 1e-6)


def test_dinov2_is_a_vision_transformer():
    weights, x = authors_names(128, 2, 3), torch.randn(2, 3, 42, 42)
    network = dinov2(weights, "weights", 128, 2)
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain_vit(weights, x, 2, 2), rtol=1e-4, atol=1e-4)


def test_dinov2_resamples_its_places_as_the_hub_does():
    network = DINOv2(64, 1, grid=4)
    nn.init.normal_(network.pos_embed)
    grid = network.pos_embed[:, 1:].view(1, 4, 4, 64).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, scale_factor=(2.1 / 4, 2.1 / 4), mode="bicubic")
    torch.testing.assert_close(network._places(2), expected.permute(0, 2, 3, 1).view(1, 4, 64))
    torch.testing.assert_close(network._places(4), network.pos_embed[:, 1:])


# --- files ---------------------------------------------------------------------------------------------------


def test_weights_of_the_authors_lie_in_the_hub(hub, monkeypatch):
    monkeypatch.setattr(published, "DINOV2_SIZES", {"vits14": (64, 1, "small")})
    monkeypatch.setattr(published, "DINOV2_SIDE", 28)
    weights = authors_names(64, 1, 3)
    torch.save(weights, hub / "dinov2_vits14_pretrain.pth")
    space = dinov2_space(17)
    assert (space.name, space.width) == ("dinov2 vits14", 64) and space.features(images()).shape == (2, 64)
    assert list(published_spaces(17)) == ["dinov2"]


@pytest.mark.parametrize("damage", ["shape", "missing", "more", "pickle", "list"])
def test_what_does_not_fit_is_one_line(hub, monkeypatch, damage):
    monkeypatch.setattr(published, "DINOV2_SIZES", {"vits14": (64, 1, "small")})
    weights, file = authors_names(64, 1, 3), hub / "dinov2_vits14_pretrain.pth"
    if damage == "shape":
        weights["norm.weight"] = torch.ones(32)
    elif damage == "missing":
        del weights["blocks.0.attn.qkv.bias"]
    elif damage == "more":
        weights["register_tokens"] = torch.ones(1, 4, 64)
    torch.save([1, 2] if damage == "list" else weights, file)
    if damage == "pickle":
        file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(GenzooError, match=r"dinov2_vits14_pretrain\.pth") as error:
        published_spaces(17)
    assert "\n" not in str(error.value)


def test_without_weights_the_flag_is_refused(hub):
    with pytest.raises(GenzooError, match="--published needs weights") as error:
        published_spaces(17)
    assert "\n" not in str(error.value) and str(hub) in str(error.value)


# --- in reports and tables -----------------------------------------------------------------------------------


def test_figures_stand_beside_ours(tmp_path):
    """Against as many real images as there are samples; the network is one that needs no weights."""
    data = genzoo.load_data("digits")
    space = replace(random_space(data.train), name="stand-in")
    model = Bank(data.spec).holding(data.train.images)
    case = Case(
        model, data, "test", inquiry=Inquiry(extractor_named("pixels"), 60), out=tmp_path,
        published={"inception": space},
    )  # fmt: skip
    report = measured(case, [PublishedSection()])
    figure = report.published.figures["frechet_inception"]
    drawn, real = case.samples.drawn.images, case.samples.images.evaluated
    expected = frechet_distance(real.first(60).features(space), space(drawn))
    assert figure.value == pytest.approx(expected) and figure.low < figure.value < figure.high
    assert (figure.samples, figure.references) == (60, 60) and figure.reference is not None
    assert report_rows(report)["Fréchet, Inception-v3"].startswith(f"{figure.value:.4g}"[:4])
    write_report(report, tmp_path)
    assert read_report(tmp_path).report().published == report.published
    with_ours = replace(report, published=report.published)
    table = quality_table([entry_of(with_ours)])
    column = next(column for column in table.columns if column.title == "Fréchet, Inception-v3")
    assert column.cells[0].value == figure.value and "stand-in" in column.cells[0].group


def test_nothing_is_asked_of_no_samples():
    with pytest.raises(GenzooError, match="--published has nothing"):
        Evaluation(samples=0, published=True)
    assert Evaluation(published=True).wants_samples
