"""What an encoder's preset is: a recipe, its sizes, and how its views follow the data.

What views leave out an encoder learns to ignore.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data.augmentation_presets import LIGHT, augmentation_for, ground_of
from genzoo.data.augmentations import Augmentation, ColourJitter, Compose, MultiCrop, RandomCrop, cropped_to
from genzoo.models.base import EncoderConfig
from genzoo.models.preset import Recipe
from genzoo.nn.backbones import ResNetConfig, ViTConfig

# --- views -----------------------------------------------------------------------------------------------------


def upright_for(spec: DataSpec, kind: str | None) -> Augmentation:
    """Crops and shades, for puzzles about where things are and which way up: nothing is turned or slanted."""
    return Compose((cuts_for(spec, kind), LIGHT))


def cuts_for(spec: DataSpec, kind: str | None) -> Augmentation:
    """Crops alone, mirrored where the kind of images is."""
    parts = augmentation_for(spec, kind)
    crops = [part for part in getattr(parts, "parts", (parts,)) if isinstance(part, RandomCrop)]
    flip = max((crop.flip for crop in crops), default=0.0)
    return RandomCrop(scale=(0.6, 1.0), flip=flip, ground=ground_of(spec))


def captions_for(spec: DataSpec, kind: str | None) -> Augmentation:
    """What leaves captions true: hardly cropped, never mirrored or turned, colours as they are.

    A caption may say on which side a thing is, which way up, of which colour, and how large. Kinds whose captions are
    the names of their classes keep the views of their kind.
    """
    if kind in (None, "photographs"):
        crop = RandomCrop(scale=(0.8, 1.0), ratio=(0.9, 1.1), ground=None)
        return Compose((crop, ColourJitter(brightness=0.2, contrast=0.2)))
    return augmentation_for(spec, kind)


def crops_for(spec: DataSpec, kind: str | None) -> MultiCrop:
    """Two views, and four crops of a quarter of the image at nearly half its sides."""
    large = augmentation_for(spec, kind)
    size = tuple(max(min(side, 4), round(0.57 * side)) for side in spec.shape[1:])
    return MultiCrop(large, cropped_to(large, (size[0], size[1]), (0.15, 0.4)))


# --- presets ---------------------------------------------------------------------------------------------------


RESNETS = {
    "tiny": {"backbone": ResNetConfig((32, 64))},
    "small": {"backbone": ResNetConfig((64, 128, 256))},
    "base": {"backbone": ResNetConfig((96, 192, 384), blocks=2)},
    "large": {"backbone": ResNetConfig((128, 256, 512), blocks=3)},
}
VITS = {
    "tiny": {"backbone": ViTConfig(width=64, blocks=3, head_width=32)},
    "small": {"backbone": ViTConfig()},
    "base": {"backbone": ViTConfig(width=256, blocks=8)},
    "large": {"backbone": ViTConfig(width=384, blocks=12)},
}
_RATES = {"tiny": 3.0, "small": 2.0, "base": 1.0, "large": 0.5}
"""Learning rates by size, as multiples of the recipe's."""


@dataclass(frozen=True)
class EncoderPreset(Recipe):
    """A recipe, the fields that a size sets, and how its augmentation follows the data."""

    recipe: EncoderConfig
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: RESNETS)
    augmentation: Callable[[DataSpec, str | None], Augmentation | MultiCrop] = augmentation_for

    @override
    def config(self, size: str, spec: DataSpec, kind: str | None = None) -> EncoderConfig:
        """The configuration of `size` for data of `spec`, of a `kind` of images (None: guessed by the spec).

        Raises `GenzooError` for an unknown size or kind, and for vectors.
        """
        if size not in self.sizes:
            raise GenzooError(f"unknown size {size!r}: choose {', '.join(self.sizes)}")
        if len(spec.shape) != 3:
            raise GenzooError(
                f"encoders take images (channels, height, width), not data of shape {spec.shape}"
            )
        training = self.recipe.training
        changes = {
            "training": replace(training, learning_rate=training.learning_rate * _RATES[size]),
            "augmentation": self.augmentation(spec, kind),
            **self.sizes[size],
        }
        return replace(self.recipe, **changes)  # pyright: ignore[reportArgumentType]
