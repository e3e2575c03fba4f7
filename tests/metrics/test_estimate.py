"""Estimates with intervals and reference values: what is refused, what intervals cover, what a reference compares."""

import json
import math

import msgspec
import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.metrics.diversity import sliced_wasserstein, vendi_score
from genzoo.metrics.estimate import Estimate, check_features, reference_value
from genzoo.metrics.frechet import frechet_distance, frechet_extrapolated, frechet_reference
from genzoo.metrics.intervals import bootstrap
from genzoo.metrics.kernels import gaussian_mmd, kid
from genzoo.metrics.likelihood_divergence import feature_likelihood_divergence
from genzoo.metrics.memorisation import authenticity, data_copying
from genzoo.metrics.neighbours import neighbour_metrics


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mean_distance(a, b):
    return ((a.mean(0) - b.mean(0)).square().sum()).item()


def test_figures_travel_as_json():
    figure = Estimate(
        1.5, 100, 200, low=1.0, high=2.0, interval="halves", reference=0.25, higher_is_better=True
    )
    content = msgspec.to_builtins(figure)
    assert msgspec.convert(json.loads(json.dumps(content)), Estimate) == figure
    assert set(content) >= {"value", "samples", "references", "low", "high", "interval", "reference"}
    for wrong, words in (
        ({"valeu": 1.0, "samples": 2, "references": 2}, "required field `value`"),
        ({**content, "value": "1.5"}, r"Expected `float`, got `str` - at `\$.value`"),
        ({**content, "samples": -1}, r">= 0 - at `\$.samples`"),
        ({**content, "higher_is_better": 1}, "higher_is_better"),
    ):
        with pytest.raises(msgspec.ValidationError, match=words):
            msgspec.convert(wrong, Estimate)


def test_a_figure_from_a_standard_error():
    figure = Estimate.from_stderr(2.0, 0.5, 30, samples=10, floor=1.0, higher_is_better=None)
    assert (figure.low, figure.high) == pytest.approx((2 - 0.98, 2 + 0.98)) and figure.stderr == 0.5
    assert (figure.samples, figure.references, figure.reference, figure.higher_is_better) == (
        10,
        30,
        1.0,
        None,
    )
    without = Estimate.from_stderr(2.0, None, 1)
    assert without.low is without.high is without.stderr is without.interval is None
    with pytest.raises(GenzooError, match="ends above its begin"):
        Estimate(1.0, 1, 1, low=2.0, high=1.0)


def test_figures_in_a_table():
    assert str(Estimate(0.123456, 10, 10)) == "0.1235"
    assert (
        str(Estimate(0.5, 10, 10, low=0.4, high=0.6, reference=0.0123456)) == "0.5 [0.4, 0.6] (real 0.0123)"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"value": math.nan}, "value is nan"),
        ({"value": 1.0, "reference": math.inf}, "reference is inf"),
        ({"value": 1.0, "low": 0.5}, "two ends"),
    ],
)
def test_no_figure_without_a_number(fields, words):
    with pytest.raises(GenzooError, match=words):
        Estimate(samples=2, references=2, **fields)


GOOD = torch.ones(5, 3)


@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (torch.ones(5), GOOD, "the real ones have the shape"),
        (GOOD, torch.ones(5, 3, 2), "the generated ones have the shape"),
        (torch.ones(5, 0), torch.ones(5, 0), "shape"),
        (GOOD, torch.ones(1, 3), "two or more generated images, got 1"),
        (GOOD, torch.ones(0, 3), "two or more generated images, got 0"),
        (GOOD, torch.ones(5, 4), "one width, got 3 of real and 4 of generated"),
        (GOOD, GOOD * math.nan, "the generated features hold NaN"),
        (GOOD * math.inf, GOOD, "the real features hold NaN or infinite"),
    ],
)
@pytest.mark.parametrize(
    "metric",
    [
        lambda a, b: check_features(a, b, "this"),
        frechet_distance,
        kid,
        gaussian_mmd,
        sliced_wasserstein,
        lambda a, b: feature_likelihood_divergence(a, a, b),
        lambda a, b: bootstrap(mean_distance, a, b),
    ],
)
def test_mistakes_are_told_by_every_metric(metric, real, fake, words):
    with pytest.raises(GenzooError, match=words):
        metric(real, fake)


@pytest.mark.parametrize(
    "metric",
    [
        frechet_distance,
        frechet_extrapolated,
        kid,
        gaussian_mmd,
        sliced_wasserstein,
        neighbour_metrics,
        lambda a, b: feature_likelihood_divergence(a, a, b),
        authenticity,
        lambda a, b: data_copying(a, b, b),
    ],
)
def test_real_features_that_do_not_vary_tell_nothing(metric):
    constant, varied = torch.ones(60, 3), normal(60, 3, seed=0)
    with pytest.raises(GenzooError, match="features are equal"):
        metric(constant, varied)
    metric(varied, constant)  # a generator of one image is evaluated like any other


def test_rows_of_good_features_pass():
    check_features(GOOD, torch.ones(2, 3, dtype=torch.long), "this")


def coverage(pairs, metric):
    """Of the metric's mean over the pairs, by their intervals; and the mean width of these over that of the truth."""
    values = torch.tensor([metric(*pair) for pair in pairs])
    found = torch.tensor(
        [bootstrap(metric, *pair, draws=40, generator=seeded(i)) for i, pair in enumerate(pairs)]
    )
    covered = (found[:, 0] <= values.mean()) & (values.mean() <= found[:, 1])
    width = (found[:, 1] - found[:, 0]).mean() / (2 * 1.96 * values.std())
    return covered.double().mean().item(), width.item()


def test_intervals_cover_for_unequal_laws():
    pairs = [(normal(121, 3, seed=i), 1.5 * normal(80, 3, seed=1000 + i) + 0.5) for i in range(60)]
    covered, width = coverage(pairs, frechet_distance)
    assert covered >= 0.85 and 0.8 < width < 1.15


def test_intervals_of_a_mean_are_those_of_its_standard_error():
    pairs = [(normal(200, 2, seed=i), normal(100, 2, seed=1000 + i) + 2) for i in range(20)]
    _, width = coverage(pairs, lambda a, b: (b.mean() - a.mean()).item())
    assert width == pytest.approx(1, rel=0.35)  # 20 values have a deviation to 16%
    a, b = pairs[0]
    low, high = bootstrap(lambda a, b: (b.mean() - a.mean()).item(), a, b, draws=2000, generator=seeded())
    stderr = (a.mean(1).var() / len(a) + b.mean(1).var() / len(b)).sqrt().item()
    assert (high - low) / (2 * 1.96) == pytest.approx(stderr, rel=0.07)
    assert (high + low) / 2 == pytest.approx((b.mean() - a.mean()).item(), abs=0.3 * stderr)


def test_intervals_of_equal_laws_are_wide_enough():
    """Copies of rows, or halves' bias, would move them off the value altogether: the bias is 5 deviations here."""
    pairs = [(normal(100, 12, seed=i), normal(100, 12, seed=1000 + i)) for i in range(30)]
    covered, width = coverage(pairs, frechet_distance)
    assert covered >= 0.9 and 1 <= width < 2


def test_intervals_leave_the_global_generator_alone_and_refuse_few_rows():
    state = torch.get_rng_state()
    a, b = normal(20, 2, seed=0), normal(20, 2, seed=1)
    first, second = (bootstrap(mean_distance, a, b, draws=20, generator=seeded(3)) for _ in range(2))
    assert first == second and torch.equal(state, torch.get_rng_state())
    with pytest.raises(GenzooError, match="four or more images a side, got 20 and 3"):
        bootstrap(mean_distance, a, b[:3])
    with pytest.raises(GenzooError, match="10 or more draws, got 5"):
        bootstrap(mean_distance, a, b, draws=5)


@pytest.mark.parametrize(("m", "n", "sizes"), [(50, 10, (40, 10)), (50, 25, (25, 25)), (51, 80, (26, 25))])
def test_a_reference_value_compares_disjoint_parts(m, n, sizes):
    real = torch.arange(m)[:, None].double()
    seen = []
    reference_value(lambda a, b: seen.append((a, b)) or 0.0, real, n, seeded(), draws=3)
    assert len(seen) == 3 and not torch.equal(seen[0][1], seen[1][1])
    for a, b in seen:
        assert (len(a), len(b)) == sizes
        assert torch.equal(torch.cat([a, b]).sort(0).values, real)
        assert not torch.equal(b.flatten(), torch.arange(len(b)).double())


def test_a_reference_value_is_the_bias():
    real = normal(4000, 10, seed=0)
    floor = reference_value(frechet_distance, real, 500, seeded(), draws=20)
    assert floor == pytest.approx(frechet_reference(10, 500, 3500), rel=0.15)
    with pytest.raises(GenzooError, match="a reference value needs four or more real images"):
        reference_value(frechet_distance, real[:3], 2)


def test_vendi_tells_mistakes_too():
    with pytest.raises(GenzooError, match="NaN"):
        vendi_score(GOOD * math.nan)
