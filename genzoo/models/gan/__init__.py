"""Two players: GANs and image-to-image."""
