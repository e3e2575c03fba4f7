"""Which changes leave what an image shows: augmentations by kind of data, as data.

What views differ in, an encoder learns to ignore; so a row says what does *not* matter for its kind. Writing is never
mirrored. Strength is a matter of measurement on validation images (`benchmarks.views`): garments, which their
proportions tell apart, bear turns and shears less well than digits do.
"""

from collections.abc import Mapping
from dataclasses import replace

from genzoo.core.bounds import shown
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.core.suggestions import suggestion
from genzoo.data.augmentations import (
    Augmentation,
    ColourJitter,
    Compose,
    RandomCrop,
    RandomErasing,
    RandomGrey,
)

LIGHT = ColourJitter(brightness=0.3, contrast=0.3, gamma=0.3)
"""Shades of grey."""
SMALL_SIDE = 16
"""Images with no side longer than this have little to leave out."""

AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": Compose(),
    "small-digits": Compose((RandomCrop(scale=(0.6, 1.2), degrees=15.0, shear=10.0), LIGHT)),
    "digits": Compose((RandomCrop(scale=(0.4, 1.2), degrees=15.0, shear=10.0), LIGHT)),
    "garments": Compose(
        (
            RandomCrop(scale=(0.5, 1.0), ratio=(0.9, 1.1), flip=0.5),
            ColourJitter(brightness=0.4, contrast=0.4, gamma=0.4),
            RandomErasing(share=0.25, fill=-1.0),
        )
    ),
    "photographs": Compose(
        (
            RandomCrop(scale=(0.2, 1.0), flip=0.5, ground=None),
            ColourJitter(0.4, 0.4, 0.4, 0.1, share=0.8),
            RandomGrey(0.2),
        )
    ),
}
"""Names of kinds of data to what leaves them be; the last is SimCLR's for small images (Chen et al. 2020, B.9)."""


def augmentation_for(spec: DataSpec, kind: str | None = None) -> Augmentation:
    """The row `kind`, with what lies outside of an image at the centre of its darkest level.

    By default colour images are photographs and grey ones digits, because writing bears the least. Raises
    `GenzooError` for an unknown kind, and for data that are no images.
    """
    if len(spec.shape) != 3:
        raise GenzooError(f"augmentations take images, these data have shape {spec.shape}: leave them out")
    kind = kind or _likely_kind(spec)
    if kind not in AUGMENTATIONS:
        raise GenzooError(f"unknown kind of data {shown(kind)}: {suggestion(str(kind), AUGMENTATIONS)}")
    return on_ground(AUGMENTATIONS[kind], ground_of(spec))


def ground_of(spec: DataSpec) -> float:
    """The centre of the darkest level, in [-1, 1]."""
    return 1 / (spec.levels or 256) - 1


def on_ground(augmentation: Augmentation, ground: float) -> Augmentation:
    """`augmentation` with `ground` outside of its crops' images, save where the edge goes on."""
    if isinstance(augmentation, Compose):
        return Compose(tuple(on_ground(part, ground) for part in augmentation.parts))
    if isinstance(augmentation, RandomCrop) and augmentation.ground is not None:
        return replace(augmentation, ground=ground)
    return augmentation


def _likely_kind(spec: DataSpec) -> str:
    if spec.shape[0] > 1:
        return "photographs"
    return "small-digits" if max(spec.shape[1:]) <= SMALL_SIDE else "digits"
