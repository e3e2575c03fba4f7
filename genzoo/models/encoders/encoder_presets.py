"""Presets of encoders."""

from dataclasses import replace
from typing import TYPE_CHECKING

from genzoo.models.names import PresetRow

if TYPE_CHECKING:
    from genzoo.core.config import TrainConfig
    from genzoo.models.encoders.encoder_preset import EncoderPreset
    from genzoo.nn.backbones import ProjectionConfig
    from genzoo.objectives.contrastive import PairObjective
    from genzoo.objectives.supervised import LabelledObjective


def _training() -> "TrainConfig":
    from genzoo.core.config import TrainConfig

    return TrainConfig(batch_size=256, learning_rate=1e-3, optimizer="muon")


def _projection(width: int, out: int, layers: int = 2, *, batch_norm: bool = False) -> "ProjectionConfig":
    from genzoo.nn.backbones import ProjectionConfig

    return ProjectionConfig(width, out, layers, batch_norm=batch_norm)


def _two_views(
    objective: "PairObjective | LabelledObjective", projection: "ProjectionConfig | None" = None
) -> "EncoderPreset":
    from genzoo.data.augmentations import Compose
    from genzoo.models.encoders.encoder_preset import EncoderPreset
    from genzoo.models.encoders.views import ViewsConfig
    from genzoo.nn.backbones import ResNetConfig

    head = projection or _projection(256, 128)
    return EncoderPreset(ViewsConfig(ResNetConfig(), head, Compose(), objective, _training()))


def _simclr() -> "EncoderPreset":
    from genzoo.objectives.contrastive import NTXent

    return _two_views(NTXent(0.2))


def _moco() -> "EncoderPreset":
    from genzoo.data.augmentations import Compose
    from genzoo.models.encoders.encoder_preset import EncoderPreset
    from genzoo.models.encoders.moco import MoCoConfig
    from genzoo.nn.backbones import ResNetConfig
    from genzoo.objectives.contrastive import QueuedInfoNCE

    head = _projection(256, 128)
    return EncoderPreset(
        MoCoConfig(ResNetConfig(), head, Compose(), QueuedInfoNCE(0.2), queue=2048, training=_training())
    )


def _barlow() -> "EncoderPreset":
    from genzoo.objectives.redundancy import BarlowTwins

    return _two_views(BarlowTwins(), _projection(512, 512, 3, batch_norm=True))


def _vicreg() -> "EncoderPreset":
    from genzoo.objectives.redundancy import VICReg

    return _two_views(VICReg(), _projection(512, 512, 3, batch_norm=True))


def _swav() -> "EncoderPreset":
    from genzoo.data.augmentations import Compose
    from genzoo.models.encoders.encoder_preset import EncoderPreset, crops_for
    from genzoo.models.encoders.multi_crop import SwAVConfig
    from genzoo.nn.backbones import ResNetConfig

    head = _projection(256, 64, batch_norm=True)
    recipe = SwAVConfig(ResNetConfig(), head, Compose(), queue=1024, training=_training())
    return EncoderPreset(recipe, augmentation=crops_for)


def _dino() -> "EncoderPreset":
    from genzoo.data.augmentations import Compose
    from genzoo.models.encoders.encoder_preset import EncoderPreset, crops_for
    from genzoo.models.encoders.multi_crop import DINOConfig
    from genzoo.nn.backbones import ResNetConfig
    from genzoo.objectives.clustering import Centering, CrossViewLoss

    head = _projection(256, 64, batch_norm=True)
    objective = CrossViewLoss(Centering(0.05))
    recipe = DINOConfig(ResNetConfig(), head, Compose(), objective, training=_training())
    return EncoderPreset(recipe, augmentation=crops_for)


def _supcon() -> "EncoderPreset":
    from genzoo.objectives.supervised import SupCon

    return _two_views(SupCon(0.1))


def _triplet() -> "EncoderPreset":
    from genzoo.objectives.supervised import Triplet

    return _two_views(Triplet())


def _n_pair() -> "EncoderPreset":
    from genzoo.objectives.supervised import SupervisedNPair

    return _two_views(SupervisedNPair())


def _margin() -> "EncoderPreset":
    from genzoo.objectives.supervised import Margin

    return _two_views(Margin(balanced=True, normalise=True))


def _rotation() -> "EncoderPreset":
    from genzoo.data.augmentations import Compose
    from genzoo.models.encoders.encoder_preset import EncoderPreset, upright_for
    from genzoo.models.encoders.pretext import RotationConfig

    training = replace(_training(), batch_size=128)
    recipe = RotationConfig(Compose(), projection=_projection(256, 128), training=training)
    return EncoderPreset(recipe, augmentation=upright_for)


def _jigsaw() -> "EncoderPreset":
    from genzoo.data.augmentations import Compose
    from genzoo.models.encoders.encoder_preset import EncoderPreset, upright_for
    from genzoo.models.encoders.pretext import JigsawConfig

    training = replace(_training(), batch_size=128)
    recipe = JigsawConfig(Compose(), projection=_projection(256, 64), grid=2, training=training)
    return EncoderPreset(recipe, augmentation=upright_for)


def _inpainting() -> "EncoderPreset":
    from genzoo.data.augmentations import Compose
    from genzoo.models.encoders.encoder_preset import VITS, EncoderPreset, cuts_for
    from genzoo.models.encoders.inpainting import InpaintingConfig

    return EncoderPreset(InpaintingConfig(Compose(), training=_training()), VITS, cuts_for)


def _clip() -> "EncoderPreset":
    from genzoo.data.augmentations import Compose
    from genzoo.models.encoders.clip import ClipConfig
    from genzoo.models.encoders.encoder_preset import RESNETS, EncoderPreset, captions_for

    return EncoderPreset(ClipConfig(Compose(), training=_training()), RESNETS, captions_for)


PRESETS = (
    PresetRow(
        "simclr",
        "SimCLR: two views of an image told from all other images of the batch",
        "[Chen et al. 2020](https://arxiv.org/abs/2002.05709)",
        _simclr,
    ),
    PresetRow(
        "moco",
        "MoCo: contrast against a queue of momentum-encoded keys",
        "[He et al. 2020](https://arxiv.org/abs/1911.05722)",
        _moco,
    ),
    PresetRow(
        "barlow",
        "Barlow Twins: equal features of two views, no feature twice; no negatives",
        "[Zbontar et al. 2021](https://arxiv.org/abs/2103.03230)",
        _barlow,
    ),
    PresetRow(
        "vicreg",
        "VICReg: equal features of two views, each with variance of its own; no negatives",
        "[Bardes et al. 2022](https://arxiv.org/abs/2105.04906)",
        _vicreg,
    ),
    PresetRow(
        "swav",
        "SwAV: crops of an image predict each other's prototypes, of which all get equal shares",
        "[Caron et al. 2020](https://arxiv.org/abs/2006.09882)",
        _swav,
    ),
    PresetRow(
        "dino",
        "DINO: small crops predict what a slow copy of the network makes of large ones",
        "[Caron et al. 2021](https://arxiv.org/abs/2104.14294)",
        _dino,
    ),
    PresetRow(
        "supcon",
        "Supervised contrast: all views of a class together; needs labels",
        "[Khosla et al. 2020](https://arxiv.org/abs/2004.11362)",
        _supcon,
    ),
    PresetRow(
        "triplet",
        "Triplets with semi-hard mining: nearer to the own class than to any other; needs labels",
        "[Schroff et al. 2015](https://arxiv.org/abs/1503.03832)",
        _triplet,
    ),
    PresetRow(
        "n-pair",
        "N-pair: each pair of a class against all other classes at once; needs labels",
        "[Sohn 2016](https://papers.nips.cc/paper/2016/hash/6b180037abbebea991d8b1232f8a8ca9-Abstract.html)",
        _n_pair,
    ),
    PresetRow(
        "margin",
        "Pairs pulled together or pushed beyond a margin, both kinds weighing the same; needs labels",
        "[Hadsell et al. 2006](https://doi.org/10.1109/CVPR.2006.100)",
        _margin,
    ),
    PresetRow(
        "rotation",
        "Rotation: which quarter turn was an image given?",
        "[Gidaris et al. 2018](https://arxiv.org/abs/1803.07728)",
        _rotation,
    ),
    PresetRow(
        "jigsaw",
        "Jigsaw: by which permutation were an image's tiles shuffled?",
        "[Noroozi & Favaro 2016](https://arxiv.org/abs/1603.09246)",
        _jigsaw,
    ),
    PresetRow(
        "inpainting",
        "Masked autoencoding: a ViT sees a part of an image, a small decoder fills in the rest",
        "[He et al. 2022](https://arxiv.org/abs/2111.06377)",
        _inpainting,
    ),
    PresetRow(
        "clip",
        "CLIP: images and captions in one space; captions of a folder, or made of the names of classes",
        "[Radford et al. 2021](https://arxiv.org/abs/2103.00020)",
        _clip,
    ),
)
