"""Energies of texture: against SciPy's cosine transform window by window, and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from genzoo.nn.texture import LEAST, POWER, SCALES, TextureEnergies, cosine_windows, opponent


def images(c=1, side=12, n=3):
    return 2 * torch.rand(n, c, side, side, generator=torch.Generator().manual_seed(0)) - 1


def reference(x):
    """Of one grey image `[h, w]` in float64: every window through SciPy's orthonormal DCT-II."""
    found = []
    for _ in range(SCALES):
        if min(x.shape) < 3:
            break
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3)).reshape(-1, 3, 3)
        sizes = np.abs(dctn(windows, axes=(1, 2), norm="ortho")).reshape(-1, 9)[:, 1:]
        found.append(np.log((sizes**POWER).mean(0) + LEAST**POWER) / POWER)
        h, w = (s // 2 for s in x.shape)
        x = x[: 2 * h, : 2 * w].reshape(h, 2, w, 2).mean((1, 3))
    return np.concatenate(found)


def test_energies_are_those_of_the_cosine_transform():
    x = images(side=13)
    wanted = np.stack([reference(image[0].double().numpy()) for image in x])
    assert np.abs(TextureEnergies()(x).numpy() - wanted).max() < 1e-4


def test_windows_are_orthonormal_and_blind_to_constants():
    rows = cosine_windows().flatten(1).double()
    assert torch.allclose(rows @ rows.T, torch.eye(8, dtype=torch.float64), atol=1e-6)
    assert rows.sum(1).abs().max() < 1e-6


@pytest.mark.parametrize("value", [-1.0, 0.3])
def test_flat_images_have_the_least_energy(value):
    found = TextureEnergies()(torch.full((2, 3, 12, 12), value))
    assert found.shape == (2, 28) and torch.allclose(
        found, torch.full_like(found, math.log(LEAST)), atol=1e-3
    )


def test_grey_colours_have_no_chroma():
    grey = images().expand(-1, 3, -1, -1)
    turned = opponent(grey)
    assert turned[:, 1:].abs().max() < 1e-6
    assert torch.allclose(turned.square().sum(1), grey.square().sum(1), atol=1e-5)  # orthonormal


def test_colours_are_seen_at_coarser_scales_as_a_whole():
    """Grey features are those of the grey image; a fine pattern of colour alone leaves them as they are."""
    grey = images(side=24).expand(-1, 3, -1, -1)
    pattern = (torch.arange(24)[:, None] + torch.arange(24)) % 2 * 0.2 - 0.1
    red_against_blue = pattern * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
    plain, coloured = TextureEnergies()(grey), TextureEnergies()(grey + red_against_blue)
    assert torch.allclose(plain, coloured, atol=1e-4)  # the mean over 2 x 2 pixels is no colour
    stripes = ((torch.arange(24) // 4) % 2 * 0.2 - 0.1) * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
    seen = TextureEnergies()(grey + stripes) - plain
    assert plain.shape == (3, 28) and seen[:, [16, 26]].min() > 0.01
    assert torch.allclose(plain[:, :8], TextureEnergies()(grey[:, :1] * math.sqrt(3))[:, :8], atol=1e-5)


def test_every_scale_sees_its_own_size():
    """Stripes of 4 pixels are flat within fine windows but for their edges, and rough at the coarsest scale."""
    stripes = ((torch.arange(24) // 4) % 2 * 2 - 1.0).expand(1, 1, 24, 24)
    fine, _, coarse = TextureEnergies()(stripes).view(3, 8).max(1).values
    assert coarse > fine


def test_small_sides_have_fewer_scales_or_none():
    of = [TextureEnergies()(images(side=side)).shape[1] for side in (2, 3, 6, 12, 40)]
    assert of == [0, 8, 16, 24, 24]
