"""Small puzzles, their parts, and the data they are tried on."""

from genzoo.core.spec import DataSpec
from genzoo.data.augmentations import Compose, RandomCrop
from genzoo.models.encoders.inpainting import InpaintingConfig
from genzoo.models.encoders.pretext import JigsawConfig, RotationConfig
from genzoo.nn.backbones import ProjectionConfig, ResNetConfig, ViTConfig

PLAIN, CROP = Compose(()), RandomCrop(scale=(0.5, 1.0), flip=0.5)
RESNET, VIT = ResNetConfig((8, 16)), ViTConfig(width=32, blocks=2, head_width=16)
HEAD = ProjectionConfig(16, 8)
DIGITS = DataSpec((1, 8, 8), levels=17, cond="class", cond_size=10)
RGB = DataSpec((3, 7, 6), levels=256)
TINY = DataSpec((1, 2, 2), levels=2)


def rotation(backbone=RESNET, augmentation=PLAIN):
    return RotationConfig(augmentation, backbone, HEAD)


def jigsaw(backbone=RESNET, augmentation=PLAIN, **fields):
    return JigsawConfig(augmentation, backbone, HEAD, **{"grid": 2, **fields})


def inpainting(backbone=VIT, augmentation=PLAIN, **fields):
    return InpaintingConfig(augmentation, backbone, decoder_width=16, **fields)
