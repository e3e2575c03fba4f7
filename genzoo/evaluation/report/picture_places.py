"""Where an evaluation puts its pictures, beside the report."""

from pathlib import Path

JUDGED = Path("samples") / "judged.png"
"""Samples of an evaluation."""

BY_CLASS = Path("samples") / "by-class.png"
"""Those of a run that takes no classes, a row for each class that the feature extractor finds in them."""

TYPICAL = Path("samples") / "best-median-worst.png"
"""Samples of an evaluation by their distance from real images, a row each."""

NEIGHBOURS = Path("samples") / "nearest-neighbours.png"
"""Samples beside the training images that they may be copies of."""


def place_of(picture: Path, decode: str) -> Path:
    """Where a picture of samples goes that were decoded so: means beside draws.

    >>> place_of(JUDGED, "draw").name, place_of(JUDGED, "mean").name
    ('judged.png', 'judged-mean.png')
    """
    return picture if decode == "draw" else picture.with_stem(f"{picture.stem}-{decode}")


MAP = "embeddings.png"

PER_CLASS, MOST_CLASSES = 8, 40
"""Samples of a class, and classes at most, that pictures of classes show."""
