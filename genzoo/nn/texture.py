"""How rough images are, and in which way: energies of fixed small filters at several scales, with nothing to learn.

Every 3 x 3 window is written in the basis of the discrete cosine transform without its constant. How large a
coefficient is on average over all places says how much there is of edges, lines and single stray pixels; halving the
image by means gives the coarser scales. Energies of filters tell textures apart much as people do (Laws 1980; Heeger &
Bergen 1995), and see what the mean features of a trained network average away: pixels that were drawn one by one.

Colours are turned into grey and two differences first. Of these only the size at the coarser scales counts, all filters
together: eyes see fine changes of colour badly, and pictures that were JPEG files hold hardly any, so that the least
noise would outweigh all else.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 3
SCALES = 3
POWER = 0.7
"""Of the mean over places: below 1, faint faults in flat places count beside the sizes of edges."""
LEAST = 0.4
"""Added to sizes in images in [-1, 1], so that noise in flat places does not outweigh all else (with 0.03 it did on
pictures with white grounds)."""


class TextureEnergies(nn.Module):
    """Floats `[n, c, h, w]` in [-1, 1] to float32 `[n, features]`; sides below 3 pixels have none."""

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", cosine_windows(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """log(mean |coefficient|^p + least^p) / p, the finest scale first.

        At each scale of each filter on grey, and but for the finest scale of all filters together on either difference
        of colours. Images of other than three channels have all filters on all of them.
        """
        x, found = opponent(x.float()), [x.new_zeros(len(x), 0, dtype=torch.float32)]
        coloured = x.shape[1] == 3
        for scale in range(SCALES):
            if min(x.shape[2:]) < WINDOW:
                break
            responses = F.conv2d(x.flatten(0, 1)[:, None], self.basis).unflatten(0, x.shape[:2])
            sizes = responses.abs().pow(POWER).mean((3, 4))
            found.append(_level(sizes[:, :1] if coloured else sizes).flatten(1))
            if coloured and scale > 0:
                found.append(_level(sizes[:, 1:].mean(2)))
            x = F.avg_pool2d(x, 2)
        return torch.cat(found, 1)


def _level(sizes: Tensor) -> Tensor:
    return (sizes + LEAST**POWER).log() / POWER


def cosine_windows() -> Tensor:
    """The eight orthonormal windows `[8, 1, 3, 3]` of the two-dimensional DCT-II without the constant one."""
    places, waves = torch.arange(WINDOW) + 0.5, torch.arange(WINDOW)[:, None]
    lines = F.normalize(torch.cos(math.pi * waves * places / WINDOW), dim=1)
    windows = torch.einsum("ai,bj->abij", lines, lines).flatten(0, 1)
    return windows[1:, None]


def opponent(x: Tensor) -> Tensor:
    """Colours `[n, 3, h, w]` turned, by an orthonormal map, to grey, red against blue, and green against both.

    Images of another number of channels stay as they are.
    """
    if x.shape[1] != 3:
        return x
    turn = F.normalize(x.new_tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]]), dim=1)
    return torch.einsum("ij,njhw->nihw", turn, x)
