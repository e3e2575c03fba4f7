"""Encoders, one file per family, and the configuration types that a run folder of one may name."""

from genzoo.data.augmentations import (
    ColourJitter,
    GaussianBlur,
    MultiCrop,
    RandomCrop,
    RandomErasing,
    RandomGrey,
    Then,
)
from genzoo.encoders.clip import ClipConfig
from genzoo.encoders.inpainting import InpaintingConfig
from genzoo.encoders.momentum import MoCoConfig
from genzoo.encoders.multi_crop import DINOConfig, SwAVConfig
from genzoo.encoders.pretext import JigsawConfig, RotationConfig
from genzoo.encoders.views import ViewsConfig
from genzoo.networks.backbones import ProjectionConfig, ResNetConfig, ViTConfig
from genzoo.networks.text_tower import TextTowerConfig
from genzoo.objectives.clustering import CentredSoftmax, CrossView, Sinkhorn
from genzoo.objectives.contrastive import NCE, Decoupled, InfoNCE, Logistic, NPair, NTXent, QueuedInfoNCE
from genzoo.objectives.labelled import (
    AllTriplets,
    BatchHard,
    Instances,
    Margin,
    SemiHard,
    SupCon,
    Triplet,
    Tuplets,
)
from genzoo.objectives.redundancy import BarlowTwins, VICReg
from genzoo.objectives.two_towers import Clip, SigLIP

ENCODER_TYPES: tuple[type, ...] = (
    *(ViewsConfig, MoCoConfig, SwAVConfig, DINOConfig),
    *(RotationConfig, JigsawConfig, InpaintingConfig, ClipConfig, TextTowerConfig),
    *(ResNetConfig, ViTConfig, ProjectionConfig),
    *(Then, RandomCrop, RandomErasing, ColourJitter, RandomGrey, GaussianBlur, MultiCrop),
    *(InfoNCE, NTXent, Decoupled, NPair, Logistic, NCE, QueuedInfoNCE),
    *(Margin, SupCon, Tuplets, Triplet, Instances, AllTriplets, SemiHard, BatchHard),
    *(BarlowTwins, VICReg, CrossView, Sinkhorn, CentredSoftmax),
    *(Clip, SigLIP),
)
"""For `genzoo.models.CONFIG_TYPES`, which loading goes by."""
