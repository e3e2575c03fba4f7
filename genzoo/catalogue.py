"""The names and one-line descriptions of all presets, without torch: what `--help` prints in an instant."""

DESCRIPTIONS: dict[str, str] = {
    "pixelcnn": "Gated PixelCNN: pixel after pixel by masked convolutions, exact likelihood",
    "pixel-transformer": "Causal transformer over raster pixels, exact likelihood",
    "vae": "Convolutional VAE with one latent vector, likelihood by importance sampling",
    "hvae": "Hierarchical VAE: groups of latents from coarse to fine, likelihood by importance sampling",
    "vqvae": "VQ-VAE: an image as a small grid of codes, with a simple prior; two-part code length",
    "vq-transformer": "VQ-VAE, then a causal transformer over its codes, in one run",
    "vqgan": "VQ-VAE with a patch discriminator and a feature loss, then a causal transformer over its codes",
    "ddpm": "DDPM with the cosine schedule and v-prediction, for samples; likelihood by the variational bound",
    "ddpm-likelihood": "Variational diffusion that predicts levels, for likelihood; variational bound",
    "edm": "EDM: preconditioned denoising on the variance-exploding path; likelihood by the variational bound",
    "flow": "Flow matching on straight paths, for samples; likelihood by the ODE",
    "flow-likelihood": "Flow matching on dequantised images, for likelihood; likelihood by the ODE",
    "ot-flow": "Flow matching with optimal-transport pairs of noise and images; likelihood by the ODE",
    "shortcut": "Shortcut model: a flow that knows how far it steps, draws in one to four network calls; ODE",
    "gan": "GAN in the manner of R3GAN: relativistic loss, R1 and R2, no normalisation; one pass, no likelihood",
    "image-to-image": "U-Net from an input image (--cond mask, edges ...), L1 and a patch discriminator; no likelihood",
    "image-to-image-l1": "The same U-Net from an input image, trained by L1 alone; no likelihood",
}
"""Preset name to description; `genzoo.presets` holds the recipe that goes with each name."""

DEFAULT_PRESET = "pixelcnn"
"""What `train` trains when it is not told."""
