"""Augmentation that a generator's gradient passes through: what a discriminator of few images is shown.

Both players' images get it alike, so that the generator is judged under the same distribution as the data and has
nothing to undo (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training").
"""

import torch
from torch import Tensor

GROUND = -1.0
"""What lies outside of an image in [-1, 1]: black."""
HOLE = 0.0
"""What a cut leaves: grey, which tells it from the ground."""


def shifted_and_cut(x: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Images `x` `[b, c, h, w]` in [-1, 1], a `share` of them moved and half that share with a part cut out.

    Translation by up to an eighth of each side (rounded), and cutout of half of each side around a random place (Zhao
    et al. 2020, section 3.2), drawn independently. Linear in `x`: every pixel is one of `x` or a constant.
    """
    b, _, height, width = x.shape
    device = x.device if generator is None else generator.device
    u = torch.rand(b, 6, generator=generator, device=device).to(x.device)
    moves, cuts = u[:, 0] < share, u[:, 1] < share / 2
    rows, inside_rows = _moved(height, u[:, 2], moves)
    columns, inside_columns = _moved(width, u[:, 3], moves)
    image = torch.arange(b, device=x.device)[:, None, None]
    moved = x[image, :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
    hole = _in_cut(height, u[:, 4])[:, :, None] & _in_cut(width, u[:, 5])[:, None, :] & cuts[:, None, None]
    shown = torch.where(inside, moved, moved.new_full((), GROUND))
    return torch.where(hole[:, None], shown.new_full((), HOLE), shown)


def _moved(size: int, u: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
    """Where each place of a side comes from, long `[b, size]` (clamped into it), and whether that is inside."""
    most = (size + 4) // 8
    shift = ((u * (2 * most + 1)).long() - most) * moves
    source = torch.arange(size, device=u.device) - shift[:, None]
    return source.clamp(0, size - 1), (source >= 0) & (source < size)


def _in_cut(size: int, u: Tensor) -> Tensor:
    """The places of a side in a cut around a random one, bool `[b, size]`."""
    length = size // 2
    start = (u * size).long() - length // 2
    places = torch.arange(size, device=u.device)
    return (places >= start[:, None]) & (places < start[:, None] + length)
