"""Intervals cover what they say: each that a report shows has a row in the benchmark, and some are measured here."""

import dataclasses
from collections.abc import Mapping
from typing import get_args, get_origin, get_type_hints

import pytest
import torch

from benchmarks.interval_coverage import (
    COLLAPSED,
    EQUAL,
    INTERVALS,
    SHIFTED,
    WITHOUT,
    feature_sets,
    main,
    measured,
    metric_intervals,
    of_classification,
    of_metrics,
    of_ood,
    of_probes,
    of_translation,
)
from genzoo.evaluation.report.schema import PARTS
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.intervals import (
    bootstrap,
    design_effect,
    figures_of_parts,
    share_interval,
    variance_of_distance,
    variance_of_halves,
    wilson,
)
from genzoo.metrics.metric_registry import METRICS, MetricRow, by_halves


def figure_paths(kind, path, seen=()):
    """The paths of all figures in a type of a report; entries of a mapping count as one."""
    if kind is Estimate:
        return {path}
    if get_origin(kind) in (dict, Mapping):
        return figure_paths(get_args(kind)[1], path, seen)
    if get_args(kind):
        return {found for inner in get_args(kind) for found in figure_paths(inner, path, seen)}
    if dataclasses.is_dataclass(kind) and kind not in seen:
        hints = get_type_hints(kind)
        return {
            found
            for field in dataclasses.fields(kind)
            for found in figure_paths(hints[field.name], f"{path}.{field.name}", (*seen, kind))
        }
    return set()


def shown():
    """All figures that reports can show: those of samples by the registry, others by the types."""
    paths = {found for name, kind in PARTS.items() for found in figure_paths(kind, name)}
    by_name = {"quality.figures", "memorisation.figures"}
    assert by_name < paths
    more = {"quality.figures.class_accuracy", "quality.figures.accuracy_score"}
    return paths - by_name | more | {f"{row.question}.figures.{row.name}" for row in METRICS.rows.values()}


def test_every_figure_of_reports_has_a_row_or_no_interval():
    covered = {path for interval in INTERVALS for path in interval.covers}
    assert covered | set(WITHOUT) == shown()
    assert not covered & set(WITHOUT)


def test_a_new_metric_has_a_row_at_once():
    row = MetricRow("new", lambda real, fake: 0.0, by_halves)
    assert [interval.name for interval in metric_intervals({"new": row})][-1:] == ["new"]


@pytest.mark.slow
def test_figures_without_an_interval_have_none():
    sets = feature_sets(SHIFTED, 0, images=60)
    for row in METRICS.rows.values():
        figure = row.measure(row, sets) if row.name != "frechet_infinity" else None
        if figure is not None:
            path = f"{row.question}.figures.{row.name}"
            assert (figure.low is None) == (path in WITHOUT), path


def test_intervals_of_neighbours_are_wider_than_those_of_given_balls():
    """Balls move with the images: the variance is about twice that of independent images."""
    sets = [feature_sets(EQUAL, seed, images=100) for seed in range(4)]
    for name in ("precision", "recall", "coverage"):
        row = METRICS.rows[name]
        figures = [row.measure(row, one) for one in sets]
        wide = sum(figure.high - figure.low for figure in figures)
        given = sum(high - low for low, high in (wilson(figure.value, 100) for figure in figures))
        assert 1.2 < wide / given < 2, name


@pytest.mark.slow
@pytest.mark.parametrize("law", [EQUAL, SHIFTED])
def test_neighbours_cover(law):
    """With balls held fixed, as before, coverage, recall and precision cover 75 to 87%, and density 80%."""
    rows = [METRICS.rows[name] for name in ("precision", "recall", "density", "coverage")]
    drawn = [of_metrics(rows, None, law, seed, images=64) for seed in range(40)]
    for row in rows:
        figures = [found[row.name] for found in drawn]
        truth = sum(figure.value for figure in figures) / len(figures)
        right = sum(figure.low <= truth <= figure.high for figure in figures)
        assert right >= 35, row.name  # at a coverage of 95% more than 4 of 40 are outside in 1 of 60 cases


def test_distances_of_equal_and_unequal_laws_cover():
    row = METRICS.rows["frechet"]
    for law, most in ((EQUAL, 1.0), (SHIFTED, 0.995)):
        drawn = [of_metrics([row], None, law, seed, images=100)["frechet"] for seed in range(60)]
        truth = sum(figure.value for figure in drawn) / len(drawn)
        right = sum(figure.low <= truth <= figure.high for figure in drawn) / len(drawn)
        assert 0.88 <= right <= most, law


@pytest.mark.parametrize("draw", [of_classification, of_ood, of_probes, of_translation])
def test_sections_make_figures_with_intervals(draw):
    for law in (SHIFTED, COLLAPSED):
        for figure in draw(law, 0).values():
            assert figure.low < figure.value < figure.high
            assert figure.high <= 1 or figure.value > 1  # shares stay within 0 and 1


def test_means_and_shares_cover():
    for name in ("likelihood", "generalisation gap", "accuracies", "out-of-distribution"):
        interval = next(interval for interval in INTERVALS if interval.name == name)
        for law in interval.laws:
            for found in measured(interval, law, 150):
                assert 0.89 <= found.covered <= 0.995, (name, law)


def test_the_table_says_what_fails(capsys):
    assert main(["--sets", "3", "--only", "generalisation gap"]) in (0, 1)
    text = capsys.readouterr().out
    assert "gap" in text and "quality.figures.fld" in text and "CPU-seconds" in text


# --- the formulas ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 4), (4, 4), (392, 400), (7, 20)])
def test_wilson_is_scipys(k, n):
    from scipy.stats import binomtest

    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-4)
    assert 0 <= wilson(k / n, n)[0] <= k / n <= wilson(k / n, n)[1] <= 1


def test_an_area_under_the_curve_has_a_width_where_all_is_right():
    low, high = share_interval(1.0, 0.0, 50)
    assert low == pytest.approx(wilson(1.0, 50)[0]) and high == 1
    # with the error of 50 independent images it is that of these
    assert share_interval(0.8, (0.8 * 0.2 / 50) ** 0.5, 10**6) == pytest.approx(wilson(0.8, 50))


def rows(n, seed, d=4):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_variances_of_parts_of_each_degree():
    """Of a mean, of degree 1, and of the square of a mean about 0, of degree 2, whose variances are known."""
    n, one, two, distance = 40, [], [], []
    for seed in range(150):
        x, generator = rows(n, seed, 8), torch.Generator().manual_seed(seed)
        found, used = figures_of_parts(
            lambda part: torch.stack([part[:, 0].mean(), part.mean(0).square().sum()]),
            [x],
            generator=generator,
        )
        assert used == 1 and found.shape == (20, 2, 2)
        one.append(variance_of_halves(found)[0])
        two.append(variance_of_halves(found)[1])
        distance.append(variance_of_distance(found)[1])
    of_mean, of_square = 1 / n, 8 * 2 / n**2
    assert torch.stack(one).mean() == pytest.approx(of_mean, rel=0.1)
    assert torch.stack(two).mean() == pytest.approx(2 * of_square, rel=0.35)  # twice too large
    assert of_square < torch.stack(distance).mean() < 1.6 * of_square


def test_a_share_of_pairs_has_a_design_effect_of_two():
    effects = []
    for seed in range(60):
        hits = (rows(200, seed, 1) > 0.8).double()
        # images come in pairs that are always right together: 400 images are worth 200
        found, _ = figures_of_parts(
            lambda part: part.mean(), [hits], generator=torch.Generator().manual_seed(seed)
        )
        effects.append(design_effect(found, 400))
    assert torch.stack(effects).mean() == pytest.approx(2, rel=0.1)


def test_of_very_many_rows_some_stand_for_all(monkeypatch):
    monkeypatch.setattr("genzoo.metrics.intervals.MOST_ROWS", 100)
    x, y = rows(300, 0), rows(100, 1)
    sizes = []

    def difference(a, b):
        sizes.append((len(a), len(b)))
        return (a.mean() - b.mean()).item()

    low, high = bootstrap(difference, x, y, draws=200, generator=torch.Generator().manual_seed(0))
    assert sizes[0] == (37, 12)
    stderr = (x.mean(1).var() / 300 + y.mean(1).var() / 100).sqrt().item()
    assert (high - low) / (2 * 1.97) == pytest.approx(stderr, rel=0.3)
