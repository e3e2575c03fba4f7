"""The encoders' presets: names of recipes, as data. They feed `create_encoder`, the command line, tests and benchmarks.

A preset is one configuration, the fields that each size sets otherwise, and how its views follow the data and the kind
of images (`genzoo.data.augmentation_presets`). What views leave out an encoder learns to ignore.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from genzoo.catalogue import ENCODER_DESCRIPTIONS
from genzoo.config import EncoderConfig, TrainConfig
from genzoo.contract import DataSpec, Encoder, GenzooError
from genzoo.data.augmentation_presets import LIGHT, augmentation_for, ground_of
from genzoo.data.augmentations import Augmentation, MultiCrop, RandomCrop, Then, cropped_to
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
from genzoo.presets import build, named, overridden

# --- views -----------------------------------------------------------------------------------------------------


def upright_for(spec: DataSpec, kind: str | None) -> Augmentation:
    """Crops and shades, for puzzles about where things are and which way up: nothing is turned or slanted."""
    return Then((cuts_for(spec, kind), LIGHT))


def cuts_for(spec: DataSpec, kind: str | None) -> Augmentation:
    """Crops alone, mirrored where the kind of images is."""
    parts = augmentation_for(spec, kind)
    crops = [part for part in getattr(parts, "parts", (parts,)) if isinstance(part, RandomCrop)]
    flip = max((crop.flip for crop in crops), default=0.0)
    return RandomCrop(scale=(0.6, 1.0), flip=flip, ground=ground_of(spec))


def crops_for(spec: DataSpec, kind: str | None) -> MultiCrop:
    """Two views, and four crops of a quarter of the image at nearly half its sides."""
    large = augmentation_for(spec, kind)
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
    views: Callable[[DataSpec, str | None], Augmentation | MultiCrop] = augmentation_for

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
            "augmentation": self.views(spec, kind),
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
        JigsawConfig(
            Then(), projection=ProjectionConfig(256, 64), grid=2, training=replace(_TRAINING, batch_size=128)
        ),
        views=upright_for,
    ),
    "inpainting": EncoderPreset(InpaintingConfig(Then(), training=_TRAINING), _VITS, cuts_for),
    "clip": EncoderPreset(ClipConfig(Then(), training=_TRAINING)),
}


def get_encoder_preset(name: str) -> EncoderPreset:
    """The preset of that name; raises `GenzooError` with the nearest name otherwise."""
    return named(name, ENCODERS, "encoder")


def create_encoder(
    name: str,
    spec: DataSpec,
    size: str = "small",
    *,
    kind: str | None = None,
    seed: int = 0,
    **overrides: Any,
) -> Encoder:
    """An encoder of a preset with random weights from `seed`; `overrides` are fields of the preset's configuration.

    `kind` is that of the images (see `genzoo.data.augmentation_presets`) and decides how views differ; None guesses
    by the spec.

    >>> create_encoder("moco", DataSpec((1, 8, 8), levels=17), "tiny", momentum=0.9).config.momentum
    0.9

    Raises `GenzooError` for an unknown preset, size, kind or field, and for data that are no images.
    """
    config = overridden(name, get_encoder_preset(name).config(size, spec, kind), overrides)
    encoder = build(config, spec, seed=seed)
    assert isinstance(encoder, Encoder)
    return encoder


def list_encoders() -> dict[str, str]:
    """Preset names with one-line descriptions."""
    return {name: ENCODER_DESCRIPTIONS[name] for name in ENCODERS}
