"""The names and one-line descriptions of all presets, without torch: what `--help` prints in an instant."""

DESCRIPTIONS: dict[str, str] = {
    "pixelcnn": "Gated PixelCNN: pixel after pixel by masked convolutions, exact likelihood",
    "pixel-transformer": "Causal transformer over raster pixels, exact likelihood",
    "vae": "Convolutional VAE with one latent vector, likelihood by importance sampling",
    "hvae": "Hierarchical VAE: groups of latents from coarse to fine, likelihood by importance sampling",
    "vqvae": "VQ-VAE: an image as a small grid of codes, with a simple prior; two-part code length",
    "vq-transformer": "VQ-VAE, then a causal transformer over its codes, in one run",
}
"""Preset name to description; `genzoo.presets` holds the recipe that goes with each name."""

DEFAULT_PRESET = "pixelcnn"
"""What `train` trains when it is not told."""
