"""The twelve grids of the recorded bake-off on Fashion-MNIST, ranked by looking.

The grids are those of samples/bakeoff-fashion-mnist.html as recorded at commit 466dc0a: 64 samples of each entrant
after ten minutes, beside 64 real test images. They were ranked twice, the second time in the reverse order of
presentation, by the question "how many of these could be taken for pictures of real garments?", and written down here
before any figure of a new feature extractor was computed. Variety counts only where a grid shows its lack.
"""

from collections.abc import Mapping, Sequence

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
