"""The twelve grids of the recorded bake-off on Fashion-MNIST, ranked by looking.

The grids are those of samples/bakeoff-fashion-mnist.html as recorded at commit 466dc0a: 64 samples of each entrant
after ten minutes, beside 64 real test images. They were ranked twice, the second time in the reverse order of
presentation, by the question "how many of these could be taken for pictures of real garments?", and written down here
before any figure of a new feature extractor was computed. Variety counts only where a grid shows its lack.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import GenzooError

FIRST_LOOK: Sequence[str] = (
    "flow", "ddpm", "shortcut", "ddpm-likelihood", "pixelcnn", "pixel-transformer", "gan", "hvae", "vq-transformer",
    "vqgan", "vae", "vqvae",
)  # fmt: skip
"""Best first."""

SECOND_LOOK: Sequence[str] = (
    "flow", "ddpm", "shortcut", "ddpm-likelihood", "pixelcnn", "gan", "pixel-transformer", "hvae", "vqgan",
    "vq-transformer", "vae", "vqvae",
)  # fmt: skip

REASONS: Mapping[str, str] = {
    "flow": "smooth fabric, whole garments, straps and soles there; a few malformed shoes",
    "ddpm": "as flow, with some scratches on plain fabric",
    "shortcut": "as ddpm, more uneven greys and halves that do not meet",
    "ddpm-likelihood": "grain on fabric, a garment in six falls apart",
    "pixelcnn": "real texture pixel for pixel, but one in four is a fragment or two garments in one",
    "pixel-transformer": "as pixelcnn, more and larger fragments",
    "gan": "clear outlines, blotched insides, a grey veil on the ground, few bags and sandals",
    "hvae": "recognisable, blocks of grain, ragged edges",
    "vq-transformer": "outlines right, insides full of grain and holes, edges frayed",
    "vqgan": "as vq-transformer",
    "vae": "outlines right, each pixel drawn on its own: salt and pepper everywhere",
    "vqvae": "no garments: codes drawn one by one",
}


def mean_ranks() -> dict[str, float]:
    """Of both looks, 1 the best; equal where the looks disagree about neighbours.

    >>> mean_ranks()["flow"], mean_ranks()["gan"]
    (1.0, 6.5)
    """
    looks = (FIRST_LOOK, SECOND_LOOK)
    return {name: sum(look.index(name) + 1 for look in looks) / len(looks) for name in FIRST_LOOK}


PER_SIDE, ENLARGED, GAP = 8, 3, 1
"""Of a grid: pictures a side, pixels a pixel is shown by, and pixels between pictures."""


def recorded_grids(page: Path) -> dict[str, Tensor]:
    """The 64 samples of each entrant `[64, 1, h, w]` as the recorded page shows them, pixel for pixel.

    Raises `GenzooError` where the page holds no such grids.
    """
    shown = re.findall(
        r'<img[^>]*src="data:image/png;base64,([^"]+)"[^>]*alt="samples of ([^"]+)"', page.read_text("utf-8")
    )
    grids = {name: _pictures(base64.b64decode(content)) for content, name in shown if name in FIRST_LOOK}
    if missing := [name for name in FIRST_LOOK if name not in grids]:
        raise GenzooError(f"{page} shows no samples of {missing[0]}: give the page of the recorded bake-off")
    return grids


def _pictures(content: bytes) -> Tensor:
    """Cuts a grid into its pictures, each pixel once."""
    grid = torch.from_numpy(np.asarray(Image.open(io.BytesIO(content)).convert("L")).copy())
    step = (len(grid) - GAP) // PER_SIDE
    rows = [grid[GAP + r * step :][: step - GAP : ENLARGED] for r in range(PER_SIDE)]
    pictures = [row[:, GAP + c * step :][:, : step - GAP : ENLARGED] for row in rows for c in range(PER_SIDE)]
    return torch.stack(pictures)[:, None]
