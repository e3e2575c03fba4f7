"""The autoregressive family: normalised, causal, and the same whether cached or not."""

from dataclasses import replace

import pytest
import torch
from enumeration import all_images, perturbed

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.models.autoregressive.pixel_models import (
    HeadConfig,
    PixelCNNConfig,
    PixelGroups,
    PixelTransformerConfig,
)

PIXELCNN = PixelCNNConfig(width=16, vertical=(16, 24), blocks=2, head=HeadConfig(width=16))
TRANSFORMER = PixelTransformerConfig(width=32, head_width=16, blocks=2, head=HeadConfig(width=16))
BACKBONES = [pytest.param(PIXELCNN, id="pixelcnn"), pytest.param(TRANSFORMER, id="transformer")]
OUTPUTS = ("bernoulli", "categorical", "logistics")


def with_head(config, **changes):
    return replace(config, head=replace(config.head, **changes))


@pytest.mark.parametrize("config", BACKBONES)
@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize(
    ("spec", "outputs"),
    [
        (DataSpec((1, 2, 2), 2), OUTPUTS),
        (DataSpec((1, 3, 3), 2), OUTPUTS),
        (DataSpec((1, 2, 2), 4), OUTPUTS[1:]),
        (DataSpec((3, 1, 2), 3), OUTPUTS[1:]),
        (DataSpec((1, 3, 1), 5), OUTPUTS[1:]),
    ],
    ids=str,
)
def test_probabilities_of_all_images_sum_to_one(config, group, spec, outputs):
    for output in outputs:
        model = perturbed(with_head(replace(config, group=group), output=output, bumps=3).build(spec))
        total = model.log_likelihood(all_images(spec)).nats.exp().sum().item()
        assert abs(total - 1) <= 1e-5


@pytest.mark.parametrize("config", BACKBONES)
@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 4, 3)], ids=str)
def test_causality_by_zero_jacobian(config, group, shape):
    """d params[s] / d x[t] is zero for t >= s in raster order with R, G, B in turn, and not all zero before."""
    model = perturbed(replace(config, group=group).build(DataSpec(shape))).double().eval()
    groups = model.groups.fold(torch.rand(1, *shape, dtype=torch.float64))

    def params(x):
        return model.head(model.backbone(x, None), x).sum(-1).flatten()  # one number per sub-pixel

    jacobian = torch.autograd.functional.jacobian(params, groups).flatten(1)
    assert torch.count_nonzero(jacobian.triu()) == 0
    inside = model.groups.inside.expand(shape[1], -1, -1).flatten()
    below = jacobian[inside][:, inside].tril(-1)
    assert (below[1:].abs().sum(1) > 0).all()  # every sub-pixel but the first depends on some before it


def test_no_blind_spot():
    """The last pixel depends on every pixel of a 5x5 image, also on those up and to the right."""
    model = perturbed(
        replace(PIXELCNN, group=1, blocks=4, vertical_blocks=2).build(DataSpec((1, 5, 5)))
    ).double()
    x = torch.rand(1, 5, 5, 1, dtype=torch.float64, requires_grad=True)
    model.backbone(x, None)[0, 4, 4].sum().backward()
    assert torch.count_nonzero(x.grad) == 24


@pytest.mark.parametrize("config", BACKBONES)
@pytest.mark.parametrize(
    "spec",
    [DataSpec((1, 9, 7), 17), DataSpec((3, 8, 8), cond="class", cond_size=5), DataSpec((1, 2, 2), 2),
     DataSpec((2, 1, 6), 4, cond="vector", cond_size=3)],
    ids=str,
)  # fmt: skip
def test_cached_contexts_equal_those_of_the_whole_image(config, spec):
    model = perturbed(config.build(spec)).double().eval()
    generator = torch.Generator().manual_seed(1)
    x = model.features(model.groups.fold(torch.randint(spec.levels, (3, *spec.shape), generator=generator)))
    x = x.flatten(-2).double()
    cond = {None: None, "class": torch.tensor([0, 1, 4]), "vector": torch.rand(3, 3, dtype=torch.float64)}
    embedded = model.condition(cond[spec.cond], 3)
    with torch.no_grad():
        whole = model.backbone(x, embedded)
        stepper = model.backbone.stepper(x, embedded)
        for i, j in model._raster():
            torch.testing.assert_close(stepper.context(i, j), whole[:, i, j], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", BACKBONES)
def test_cached_sampling_equals_the_plain_loop(config):
    """The plain loop of benchmarks/plain_sampling.py: the whole network for each pixel, equal generators."""
    from benchmarks.plain_sampling import sample_plainly

    model = perturbed(config.build(DataSpec((1, 9, 7), 4)), 0.2)
    cached = model.sample(4, generator=torch.Generator().manual_seed(3))
    plain = sample_plainly(model, 4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(cached, plain) and cached.float().std() > 0


@pytest.mark.parametrize("config", BACKBONES)
def test_samples_follow_the_likelihood(config):
    """4,000 samples over all 16 binary 2x2 images against their exact probabilities: chi-square at 1e-4."""
    spec = DataSpec((1, 2, 2), 2)
    model = perturbed(config.build(spec), 0.2)
    probabilities = model.log_likelihood(all_images(spec)).nats.exp()
    samples = model.sample(4000, generator=torch.Generator().manual_seed(0)).flatten(1).long()
    counts = torch.bincount(samples @ torch.tensor([8, 4, 2, 1]), minlength=16)
    chi_square = ((counts - 4000 * probabilities) ** 2 / (4000 * probabilities)).sum()
    assert chi_square < 44.3  # the 1 - 1e-4 quantile at 15 degrees of freedom


@pytest.mark.parametrize("config", BACKBONES)
def test_class_likelihoods_average_to_the_unconditional_one(config):
    spec = DataSpec((1, 2, 2), 2, cond="class", cond_size=3)
    model = perturbed(config.build(spec))
    images = all_images(spec)
    each = [model.log_likelihood(images, torch.full((16,), c)).nats.exp() for c in range(3)]
    assert not torch.allclose(each[0], each[1], rtol=1e-2)
    torch.testing.assert_close(model.log_likelihood(images).nats.exp(), sum(each) / 3)


@pytest.mark.parametrize("config", BACKBONES)
def test_impute_keeps_what_is_known_and_fills_the_rest(config):
    model = perturbed(config.build(DataSpec((1, 6, 6), 4)), 0.2)
    images = torch.randint(4, (5, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    missing = torch.zeros(6, 6, dtype=torch.bool)
    missing[3:, 2:5] = True
    kept = images.clone()
    first, second = (
        model.impute(images, missing, generator=torch.Generator().manual_seed(s)) for s in (1, 2)
    )
    assert torch.equal(images, kept)
    assert torch.equal(first[..., ~missing], images[..., ~missing])
    assert not torch.equal(first[..., missing], second[..., missing])
    everything = torch.ones(6, 6, dtype=torch.bool)
    torch.testing.assert_close(
        model.impute(images, everything, generator=torch.Generator().manual_seed(7)),
        model.sample(5, generator=torch.Generator().manual_seed(7)),
    )


def test_imputed_pixels_follow_the_conditional_distribution():
    """P(last pixel | the first three) from enumeration against 4,000 imputations."""
    spec = DataSpec((1, 2, 2), 2)
    model = perturbed(PIXELCNN.build(spec), 0.2)
    images = torch.tensor([1, 0, 1, 0], dtype=torch.uint8).view(1, 1, 2, 2)
    other = images.clone()
    other[..., 1, 1] = 1
    p = model.log_likelihood(torch.cat([images, other])).nats.softmax(0)[1].item()
    missing = torch.tensor([[False, False], [False, True]])
    filled = model.impute(
        images.expand(4000, -1, -1, -1), missing, generator=torch.Generator().manual_seed(0)
    )
    assert filled[..., 1, 1].float().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_groups_fold_and_unfold():
    groups = PixelGroups((3, 2, 5), 2)
    images = torch.arange(60).view(2, 3, 2, 5)
    folded = groups.fold(images)
    assert folded.shape == (2, 2, 3, 6)
    assert folded[0, 1, 1].tolist() == [images[0, c, 1, w].item() for w in (2, 3) for c in range(3)]
    assert groups.inside.sum() == 15 and not groups.inside[2, 3:].any()
    assert torch.equal(groups.unfold(folded), images)


def test_images_are_checked():
    model = PIXELCNN.build(DataSpec((1, 4, 4), 4))
    with pytest.raises(GenzooError, match="shape"):
        model.log_likelihood(torch.zeros(2, 1, 5, 4, dtype=torch.uint8))
    with pytest.raises(GenzooError, match="integers"):
        model.log_likelihood(torch.zeros(2, 1, 4, 4))
    with pytest.raises(GenzooError, match=r"0\.\.3, found 0\.\.9"):
        model.log_likelihood(torch.tensor([0, 9] * 8, dtype=torch.uint8).view(1, 1, 4, 4))
    with pytest.raises(GenzooError, match="real-valued"):
        PIXELCNN.build(DataSpec((2,), None))


def test_dropout_is_off_in_evaluation():
    model = perturbed(replace(PIXELCNN, dropout=0.5).build(DataSpec((1, 4, 4), 4)))
    images = torch.randint(4, (3, 1, 4, 4), dtype=torch.uint8)
    assert model.training
    torch.testing.assert_close(model.log_likelihood(images).nats, model.log_likelihood(images).nats)
    assert model.training
