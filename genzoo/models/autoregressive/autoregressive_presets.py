"""Presets of autoregressive models over pixels."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from genzoo.models.names import PresetRow

if TYPE_CHECKING:
    from genzoo.models.preset import Preset


def _adjustments(dropout: float) -> dict[str, Any]:
    from genzoo.models.autoregressive.pixel_models import HeadConfig
    from genzoo.models.preset import LOW_RESOLUTION, MANY_LEVELS

    return {
        LOW_RESOLUTION: {"group": 1, "dropout": dropout},
        MANY_LEVELS: {"head": HeadConfig(width=64, layers=2, bumps=10)},
    }


def _pixelcnn() -> "Preset":
    from genzoo.core.config import TrainConfig
    from genzoo.models.autoregressive.pixel_models import PixelCNNConfig
    from genzoo.models.preset import Preset

    fast = TrainConfig(batch_size=32, learning_rate=4e-3)
    sizes = {
        "tiny": PixelCNNConfig(width=32, blocks=2, vertical=(32, 48), training=fast),
        "small": PixelCNNConfig(width=64, blocks=5, vertical=(64, 96, 128), training=fast),
        "base": PixelCNNConfig(
            width=128,
            blocks=6,
            vertical=(128, 192, 256),
            vertical_blocks=2,
            training=replace(fast, learning_rate=2e-3),
        ),
        "large": PixelCNNConfig(
            group=1,
            width=192,
            blocks=10,
            vertical=(192, 256, 384),
            vertical_blocks=4,
            training=TrainConfig(batch_size=128, learning_rate=1e-3),
        ),
    }
    return Preset(sizes, _adjustments(dropout=0.5))


def _pixel_transformer() -> "Preset":
    from genzoo.core.config import TrainConfig
    from genzoo.models.autoregressive.pixel_models import PixelTransformerConfig
    from genzoo.models.preset import Preset

    fast = TrainConfig(batch_size=32, learning_rate=4e-3)
    sizes = {
        "tiny": PixelTransformerConfig(width=64, blocks=2, training=fast),
        "small": PixelTransformerConfig(width=128, blocks=4, training=fast),
        "base": PixelTransformerConfig(width=256, blocks=8, training=replace(fast, learning_rate=1e-3)),
        "large": PixelTransformerConfig(
            group=2, width=512, blocks=12, training=TrainConfig(batch_size=128, learning_rate=5e-4)
        ),
    }
    return Preset(sizes, _adjustments(dropout=0.2))


PRESETS = (
    PresetRow(
        "pixelcnn",
        "Gated PixelCNN: pixel after pixel by masked convolutions, exact likelihood",
        "[van den Oord et al. 2016](https://arxiv.org/abs/1606.05328)",
        _pixelcnn,
    ),
    PresetRow(
        "pixel-transformer",
        "Causal transformer over raster pixels, exact likelihood",
        "[Chen et al. 2020](https://proceedings.mlr.press/v119/chen20s.html)",
        _pixel_transformer,
    ),
)
