"""The names and one-line descriptions of all presets, without torch: what `--help` prints in an instant."""

DESCRIPTIONS: dict[str, str] = {
    "pixelcnn": "Gated PixelCNN: pixel after pixel by masked convolutions, exact likelihood",
    "pixel-transformer": "Causal transformer over raster pixels, exact likelihood",
}
"""Preset name to description; `genzoo.presets` holds the recipe that goes with each name."""

DEFAULT_PRESET = "pixelcnn"
"""What `train` trains when it is not told."""
