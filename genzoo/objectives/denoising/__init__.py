"""Gaussian paths, and what a denoiser learns on them."""
