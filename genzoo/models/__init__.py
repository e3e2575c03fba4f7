"""The families, one file each, and the configuration types that a run folder may name."""

from genzoo.config import TrainConfig
from genzoo.models.autoregressive import HeadConfig, PixelCNNConfig, PixelTransformerConfig

CONFIG_TYPES: tuple[type, ...] = (TrainConfig, HeadConfig, PixelCNNConfig, PixelTransformerConfig)
