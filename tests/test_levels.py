"""The denoiser of levels against Bayes' rule in loops, and the bound it gives against the probability it means."""

import math

import pytest
import torch

from genzoo.likelihood import bin_centres, diffusion_bound
from genzoo.objectives.levels import expected_levels
from genzoo.paths import VE, Coefficients, DataTarget, Linear, VPCosine, solve, spread

LEVELS = [2, 17, 256]
F64 = torch.float64


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


def times(*values):
    return torch.tensor(values, dtype=F64)


def naive(logits, x_t, at, levels):
    """sum_k c_k P(k) N(x_t; alpha c_k, sigma^2) / sum_k P(k) N(...), one number after the other."""
    b, c, *rest = x_t.shape
    flat, seen = logits.reshape(b, c, levels, -1).tolist(), x_t.reshape(b, c, -1).tolist()
    alpha, sigma = at.alpha.tolist(), at.sigma.tolist()
    centres = [(2 * k + 1) / levels - 1 for k in range(levels)]
    means = []
    for i in range(b):
        for j in range(c):
            for p, x in enumerate(seen[i][j]):
                logs = [
                    flat[i][j][k][p] - (x - alpha[i] * centre) ** 2 / (2 * sigma[i] ** 2)
                    for k, centre in enumerate(centres)
                ]
                weights = [math.exp(value - max(logs)) for value in logs]
                means.append(sum(w * v for w, v in zip(weights, centres, strict=True)) / sum(weights))
    return torch.tensor(means, dtype=F64).view(b, c, *rest)


# --- the posterior mean --------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("path", [VPCosine(), Linear(), VE()], ids=repr)
def test_bayes_rule_in_loops(path, levels):
    at = path.at(times(0.002, 0.1, 0.5, 0.99))
    x = bin_centres(torch.randint(levels, (4, 3, 2, 2), generator=rng(1)), levels)
    x_t = spread(at.alpha, x) * x + spread(at.sigma, x) * normal(4, 3, 2, 2, seed=2)
    logits = 2 * normal(4, 3 * levels, 2, 2)
    expected = naive(logits, x_t, at, levels)
    torch.testing.assert_close(expected_levels(logits, x_t, at, levels), expected, rtol=0, atol=1e-10)
    single = expected_levels(logits.float(), x_t.float(), at, levels)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=2e-4)  # x_t itself is rounded


@pytest.mark.parametrize("t", [0.05, 0.4, 1.0])
def test_gradients(t):
    at = Linear().at(times(t, t / 2))
    logits = normal(2, 2 * 5, 3).requires_grad_()
    x_t = normal(2, 2, 3, seed=1).mul_(0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: expected_levels(a, b, at, 5), (logits, x_t))


def test_gradients_come_in_the_type_of_the_logits():
    at, x_t = Linear().at(times(0.3, 0.6)), normal(2, 1, 3, dtype=torch.float32)
    half = normal(2, 17, 3, seed=1).bfloat16().requires_grad_()
    full = half.detach().float().requires_grad_()
    means = [expected_levels(logits, x_t, at, 17) for logits in (half, full)]
    assert torch.equal(*means) and means[0].dtype == torch.float32
    for mean in means:
        mean.square().sum().backward(retain_graph=True)
    assert half.grad.dtype == torch.bfloat16 and torch.equal(half.grad, full.grad.bfloat16())
    full.grad = None
    means[1].square().sum().backward()
    assert torch.equal(half.grad, full.grad.bfloat16())  # what was kept for it is not used up


def test_autocast_changes_nothing():
    at, x_t = VPCosine().at(times(0.01, 0.5)), normal(2, 3, 4, dtype=torch.float32)
    logits = normal(2, 3 * 256, 4, seed=1, dtype=torch.float32)
    expected = expected_levels(logits, x_t, at, 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(expected_levels(logits, x_t, at, 256), expected)


# --- both ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
def test_where_no_data_are_left_only_the_network_counts(levels):
    at, x_t = Linear().at(times(1.0)), 3 * normal(1, 2, 4, dtype=torch.float32)
    logits = normal(1, 2 * levels, 4, seed=1, dtype=torch.float32).requires_grad_()
    mean = expected_levels(logits, x_t.requires_grad_(), at, levels)
    shares = logits.detach().double().view(1, 2, levels, 4).softmax(2)
    expected = (shares * bin_centres(torch.arange(levels), levels)[:, None]).sum(2)
    torch.testing.assert_close(mean.detach().double(), expected, rtol=0, atol=1e-6)
    mean.sum().backward()
    assert logits.grad.isfinite().all() and not x_t.grad.any()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("t", [1e-4, 1e-6])
def test_small_noise_rounds_to_the_level(levels, t):
    """Whatever the network says, within reason."""
    at = Linear().at(times(t))
    x = bin_centres(torch.arange(levels), levels, torch.float32)[None, None]
    x_t = at.alpha.float() * x + at.sigma.float() * normal(1, 1, levels, dtype=torch.float32)
    logits = 20 * normal(1, levels, levels, seed=1, dtype=torch.float32)
    logits.requires_grad_()
    mean = expected_levels(logits, x_t, at, levels)
    assert torch.equal(mean, x)
    mean.sum().backward()
    assert not logits.grad.any()


# --- the bound -----------------------------------------------------------------------------------------------


def denoiser(path, logits, levels):
    """A network that looks at nothing: `logits` `[c * levels, h, w]` for whatever image."""

    def denoise(x_t, t):
        at = path.at(t)
        x = expected_levels(logits.to(x_t).expand(len(x_t), -1, -1, -1), x_t, at, levels)
        return solve(x_t, x, at, DataTarget())

    return denoise


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("path", "first"), [(VPCosine(), 2e-5), (Linear(), 5e-4)], ids=repr)
def test_the_bound_is_the_probability_that_blind_logits_mean(path, first, levels):
    """Exactly (Guo, Shamai & Verdu 2005): noise that hides a level costs what the level was worth."""
    n, logits = 1500 if levels == 256 else 5000, 1.5 * normal(levels, 1, 2)
    log_p = logits.log_softmax(0)  # [levels, 1, 2]
    images = torch.randint(levels, (n, 1, 1, 2), generator=rng(1))
    truth = log_p[:, 0].gather(0, images[:, 0, 0]).sum(1)
    bound = diffusion_bound(
        denoiser(path, logits, levels), path, images, levels, first=first, times=48, generator=rng(2)
    )
    gap = bound.nats - truth
    error = gap.std().item() / n**0.5
    assert abs(gap.mean().item()) < 4 * error < -0.03 * truth.mean().item()
    by_level = [gap[images[:, 0, 0, 0] == k] for k in (0, levels - 1)]
    for part in by_level if levels < 256 else []:  # of each level, not only in the mean
        assert abs(part.mean().item()) < 4 * part.std().item() / len(part) ** 0.5


def test_a_fresh_network_costs_log_levels():
    path, levels, n = VPCosine(), 17, 5000
    images = torch.randint(levels, (n, 1, 1, 2), generator=rng())
    logits = torch.zeros(levels, 1, 2)
    bound = diffusion_bound(
        denoiser(path, logits, levels), path, images, levels, first=2e-5, times=32, generator=rng(1)
    )
    bits = -bound.nats / (2 * math.log(2))
    assert abs(bits.mean().item() - math.log2(levels)) < 4 * bits.std().item() / n**0.5 < 0.1


def test_coefficients_may_be_shared_by_all_images():
    """Times may be 0-dimensional."""
    logits, x_t = normal(3, 2 * 5, 2), normal(3, 2, 2, seed=1)
    one = Linear().at(torch.tensor(0.3, dtype=F64))
    each = Coefficients(*(c.expand(3) for c in one))
    ours = expected_levels(logits, x_t, one, 5)
    torch.testing.assert_close(ours, expected_levels(logits, x_t, each, 5))
