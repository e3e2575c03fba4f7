"""The encoders' presets: names of recipes, as data. They feed `create_encoder`, the command line, tests and benchmarks.

A preset is one configuration, the fields that each size sets otherwise, and how its views follow the data. What views
leave out an encoder learns to ignore, so that their strength is chosen on validation (`benchmarks`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from genzoo.catalogue import ENCODER_DESCRIPTIONS
from genzoo.config import EncoderConfig, TrainConfig
from genzoo.contract import DataSpec, Encoder, GenzooError
from genzoo.data.augmentations import (
    Augmentation,
    ColourJitter,
    MultiCrop,
    RandomCrop,
    RandomGrey,
    Then,
    cropped_to,
)
from genzoo.encoders.clip import ClipConfig
from genzoo.encoders.inpainting import InpaintingConfig
from genzoo.encoders.momentum import MoCoConfig
from genzoo.encoders.multi_crop import DINOConfig, SwAVConfig
from genzoo.encoders.pretext import JigsawConfig, RotationConfig
from genzoo.encoders.views import ViewsConfig
from genzoo.networks.backbones import ProjectionConfig, ResNetConfig, ViTConfig
from genzoo.objectives.clustering import CentredSoftmax, CrossView
from genzoo.objectives.contrastive import NTXent, PairObjective, QueuedInfoNCE
from genzoo.objectives.labelled import LabelledObjective, Margin, SupCon, Triplet, Tuplets
from genzoo.objectives.redundancy import BarlowTwins, VICReg
from genzoo.presets import COLOUR, LOW_RESOLUTION, TRAITS, build, named, overridden

# --- views -----------------------------------------------------------------------------------------------------


def views_for(spec: DataSpec) -> Augmentation:
    """Two crops of an image that still show the same thing.

    Colour images are mirrored and lose or change their colours; grey ones may be writing, which is not mirrored.
    Below 17 pixels there is less to leave out. What lies outside of an image is its lowest level.
    """
    ground = 1 / (spec.levels or 256) - 1
    if TRAITS[COLOUR](spec):
        crop = RandomCrop(scale=(0.3, 1.0), flip=0.5, ground=ground)
        return Then((crop, ColourJitter(0.4, 0.4, 0.4, 0.1, share=0.8), RandomGrey(0.2)))
    scale = (0.6, 1.2) if TRAITS[LOW_RESOLUTION](spec) else (0.4, 1.2)
    crop = RandomCrop(scale=scale, degrees=15.0, shear=10.0, ground=ground)
    return Then((crop, ColourJitter(brightness=0.3, contrast=0.3, gamma=0.3)))


def upright_for(spec: DataSpec) -> Augmentation:
    """Crops and shades, for puzzles about where things are and which way up: nothing is turned or slanted."""
    light = ColourJitter(brightness=0.3, contrast=0.3, gamma=0.3)
    return Then((cuts_for(spec), light))


def cuts_for(spec: DataSpec) -> Augmentation:
    """Crops alone, mirrored in colour."""
    flip = 0.5 if TRAITS[COLOUR](spec) else 0.0
    return RandomCrop(scale=(0.6, 1.0), flip=flip, ground=1 / (spec.levels or 256) - 1)


def crops_for(spec: DataSpec) -> MultiCrop:
    """Two views as above, and four crops of a quarter of the image at nearly half its sides."""
    large = views_for(spec)
    size = tuple(max(min(side, 4), round(0.57 * side)) for side in spec.shape[1:])
    return MultiCrop(large, cropped_to(large, (size[0], size[1]), (0.15, 0.4)))


# --- presets ---------------------------------------------------------------------------------------------------


_RESNETS = {
    "tiny": {"backbone": ResNetConfig((32, 64))},
    "small": {"backbone": ResNetConfig((64, 128, 256))},
    "base": {"backbone": ResNetConfig((96, 192, 384), blocks=2)},
    "large": {"backbone": ResNetConfig((128, 256, 512), blocks=3)},
}
_VITS = {
    "tiny": {"backbone": ViTConfig(width=64, blocks=3, head_width=32)},
    "small": {"backbone": ViTConfig()},
    "base": {"backbone": ViTConfig(width=256, blocks=8)},
    "large": {"backbone": ViTConfig(width=384, blocks=12)},
}
_RATES = {"tiny": 3.0, "small": 2.0, "base": 1.0, "large": 0.5}
"""Learning rates by size, as multiples of the recipe's."""


@dataclass(frozen=True)
class EncoderPreset:
    """A recipe, the fields that a size sets, and how its augmentation follows the data."""

    recipe: EncoderConfig
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _RESNETS)
    views: Callable[[DataSpec], Augmentation | MultiCrop] = views_for

    def config(self, size: str, spec: DataSpec) -> EncoderConfig:
        """The configuration of `size` for data of `spec`; raises `GenzooError` for an unknown size, and for vectors."""
        if size not in self.sizes:
            raise GenzooError(f"unknown size {size!r}: choose {', '.join(self.sizes)}")
        if len(spec.shape) != 3:
            raise GenzooError(
                f"encoders take images (channels, height, width), not data of shape {spec.shape}"
            )
        training = self.recipe.training
        changes = {
            "training": replace(training, learning_rate=training.learning_rate * _RATES[size]),
            "augmentation": self.views(spec),
            **self.sizes[size],
        }
        return replace(self.recipe, **changes)  # pyright: ignore[reportArgumentType]


_TRAINING = TrainConfig(batch_size=256, learning_rate=1e-3, muon=True)
_NARROW, _WIDE = ProjectionConfig(256, 128), ProjectionConfig(512, 512, 3, batch_norm=True)
_CLUSTERS = ProjectionConfig(256, 64, batch_norm=True)


def _views(objective: PairObjective | LabelledObjective, projection: ProjectionConfig) -> EncoderPreset:
    return EncoderPreset(ViewsConfig(ResNetConfig(), projection, Then(), objective, _TRAINING))


ENCODERS: dict[str, EncoderPreset] = {
    "simclr": _views(NTXent(0.2), _NARROW),
    "moco": EncoderPreset(
        MoCoConfig(ResNetConfig(), _NARROW, Then(), QueuedInfoNCE(0.2), queue=2048, training=_TRAINING)
    ),
    "barlow": _views(BarlowTwins(), _WIDE),
    "vicreg": _views(VICReg(), _WIDE),
    "swav": EncoderPreset(
        SwAVConfig(ResNetConfig(), _CLUSTERS, Then(), queue=1024, training=_TRAINING), views=crops_for
    ),
    "dino": EncoderPreset(
        DINOConfig(ResNetConfig(), _CLUSTERS, Then(), CrossView(CentredSoftmax(0.05)), training=_TRAINING),
        views=crops_for,
    ),
    "supcon": _views(SupCon(0.1), _NARROW),
    "triplet": _views(Triplet(), _NARROW),
    "n-pair": _views(Tuplets(), _NARROW),
    "margin": _views(Margin(balanced=True, normalise=True), _NARROW),
    "rotation": EncoderPreset(
        RotationConfig(Then(), projection=_NARROW, training=replace(_TRAINING, batch_size=128)),
        views=upright_for,
    ),
    "jigsaw": EncoderPreset(
        JigsawConfig(Then(), projection=ProjectionConfig(256, 64), grid=2, training=_TRAINING),
        views=upright_for,
    ),
    "inpainting": EncoderPreset(InpaintingConfig(Then(), training=_TRAINING), _VITS, cuts_for),
    "clip": EncoderPreset(ClipConfig(Then(), training=_TRAINING)),
}


def get_encoder_preset(name: str) -> EncoderPreset:
    """The preset of that name; raises `GenzooError` with the nearest name otherwise."""
    return named(name, ENCODERS, "encoder")


def create_encoder(
    name: str, spec: DataSpec, size: str = "small", *, seed: int = 0, **overrides: Any
) -> Encoder:
    """An encoder of a preset with random weights from `seed`; `overrides` are fields of the preset's configuration.

    >>> create_encoder("moco", DataSpec((1, 8, 8), levels=17), "tiny", momentum=0.9).config.momentum
    0.9

    Raises `GenzooError` for an unknown preset, size or field, and for data that are no images.
    """
    config = overridden(name, get_encoder_preset(name).config(size, spec), overrides)
    encoder = build(config, spec, seed=seed)
    assert isinstance(encoder, Encoder)
    return encoder


def list_encoders() -> dict[str, str]:
    """Preset names with one-line descriptions."""
    return {name: ENCODER_DESCRIPTIONS[name] for name in ENCODERS}
