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

ENCODER_DESCRIPTIONS: dict[str, str] = {
    "simclr": "SimCLR: two views of an image told from all other images of the batch",
    "moco": "MoCo: a view told from a queue of former images, seen by a slow copy of the network",
    "barlow": "Barlow Twins: equal features of two views, no feature twice; no negatives",
    "vicreg": "VICReg: equal features of two views, each with variance of its own; no negatives",
    "swav": "SwAV: crops of an image predict each other's prototypes, of which all get equal shares",
    "dino": "DINO: small crops predict what a slow copy of the network makes of large ones",
    "supcon": "Supervised contrast: all views of a class together; needs labels",
    "triplet": "Triplets with semi-hard mining: nearer to the own class than to any other; needs labels",
    "n-pair": "N-pair: each pair of a class against all other classes at once; needs labels",
    "margin": "Pairs pulled together or pushed beyond a margin, both kinds weighing the same; needs labels",
    "rotation": "Rotation: which quarter turn was an image given?",
    "jigsaw": "Jigsaw: by which permutation were an image's tiles shuffled?",
    "inpainting": "Masked autoencoding: a ViT sees a part of an image, a small decoder fills in the rest",
    "clip": "CLIP: images and captions in one space; captions of a folder, or made of the names of classes",
}
"""Encoder preset to description; `genzoo.encoder_presets` holds the recipes."""

DEFAULT_PRESET = "pixelcnn"
"""What `train` trains when it is not told."""
