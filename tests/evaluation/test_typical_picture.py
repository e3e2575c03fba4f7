"""The best, the median and the worst samples: closed forms, and faults that must count."""

import pytest
import torch

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.evaluation.features.feature_space import FeatureSpace
from genzoo.evaluation.features.whitening import Whitening
from genzoo.evaluation.typical_picture import Scores, best_median_worst, scores
from genzoo.metrics.quality import FeatureSets
from genzoo.models.encoders.embedding import prepared
from genzoo.nn.texture import TextureEnergies


def test_scores_of_points_on_a_line():
    """Real points at 0, 1 ... 99: the fifth nearest of a sample at 50.2 is at 48, of one at 200 at 95."""
    real = torch.arange(100.0).double()[:, None]
    samples = torch.tensor([[50.2], [200.0], [50.2]]).double()
    found = scores(FeatureSets(samples, real, real + 0.4, real))
    assert found.distances.tolist() == pytest.approx([2.2, 105.0, 2.2])
    assert found.typicality.tolist() == pytest.approx([1.0, 0.0, 1.0])


def test_rows_come_with_how_typical_they_are():
    """Of samples 0 to 23 away from the data's edge none, half and nearly all held-out images lie as far out."""
    found = Scores(torch.arange(24.0), torch.linspace(1, 0, 24))
    places, typical = found.rows()
    assert places.tolist() == [[*range(8)], [*range(8, 16)], [*range(16, 24)]]
    assert typical == pytest.approx([1 - 3.5 / 23, 0.5, 1 - 19.5 / 23], abs=1e-6)


def test_rows_are_near_middling_and_far():
    distances = torch.randperm(100, generator=torch.Generator().manual_seed(0)).double()
    rows = distances[best_median_worst(distances)]
    assert rows[0].tolist() == [*range(8)] and rows[2].tolist() == [*range(92, 100)]
    assert rows[1].tolist() == [*range(46, 54)]


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_few_samples_have_shorter_rows(n):
    rows = best_median_worst(torch.arange(n).double())
    assert rows.shape == (3, max(1, n // 3)) and int(rows.max()) < n


def test_noise_blur_and_blanks_lie_farther_out_than_digits():
    data = genzoo.load_data("digits")
    energies, spec = TextureEnergies(), data.spec
    whitening = Whitening.of(energies(prepared(data.train.images, spec)), 16, 0.1)
    space = FeatureSpace("texture", "", whitening.width, lambda x: whitening(energies(prepared(x, spec))))
    real, held, fresh = data.train.images[:400], data.val.images, data.test.images[:100]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(17, fresh.shape, generator=generator).to(torch.uint8)
    blurred = torch.nn.functional.avg_pool2d(fresh.float(), 3, stride=1, padding=1).round().to(torch.uint8)
    blank = torch.zeros_like(fresh)

    def typical(images):
        sets = FeatureSets(space(images), space(real), space(held), space(real))
        return scores(sets).typicality.mean().item()

    assert abs(typical(fresh) - 0.5) < 0.1
    assert max(typical(images) for images in (noise, blurred, blank)) < 0.15


def test_without_held_out_images_there_is_none():
    real = torch.arange(100.0).double()[:, None]
    with pytest.raises(GenzooError):
        scores(FeatureSets(real, real, real[:0], real))
