"""What does a discriminator buy a VQ-VAE? `python -m benchmarks.vqgan [--steps 800 | --minutes 5] [--size tiny]`.

The autoencoders of `vq-transformer` and of `vqgan` are trained from the same weights for the same number of steps (or
time) and reconstruct validation images. The two-part code says what the discriminator costs in bits, sharpness and
Fréchet distance what it buys; L1 and PSNR lie between. Pictures show reconstructions beside the images.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import genzoo
from genzoo.data.image_grid import save_grid
from genzoo.evaluation.features.feature_space import FeatureSpace, some_images
from genzoo.evaluation.translation import compared
from genzoo.models.base import ModelConfig
from genzoo.models.preset import build
from genzoo.models.registry import get_preset
from genzoo.models.vq.latent_model import LatentConfig
from genzoo.models.vq.vqgan import VQGAN, VQGANConfig
from genzoo.models.vq.vqvae import VQVAE
from genzoo.training.trainer import Budget, Trainer

LIKELIHOOD_IMAGES = 500


def entrants(size: str, spec: genzoo.DataSpec) -> dict[str, ModelConfig]:
    """The autoencoder of `vqgan`, without and with its discriminator."""
    latent = get_preset("vqgan").config(size, spec)
    assert isinstance(latent, LatentConfig) and isinstance(latent.autoencoder, VQGANConfig)
    whole = replace(latent.autoencoder, training=latent.training)
    return {"VQ-VAE": replace(whole.autoencoder, training=latent.training), "VQGAN": whole}


def main() -> None:
    """Trains both and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--size", default="tiny", help="of the preset")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--minutes", type=float, help="each, in place of steps")
    parser.add_argument("--images", type=int, default=1000, help="validation images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for pictures")
    args = parser.parse_args()
    data = genzoo.load_data(args.data)
    budget = Budget(minutes=args.minutes) if args.minutes else Budget(steps=args.steps)
    images, spaces = some_images(data.val, args.images, args.seed), FeatureSpace.all_for(data.train)
    table = Table(title=f"{args.size}, {args.data}, {len(images)} validation images, seed {args.seed}")
    for column in (
        "",
        "<= bits/dim",
        "L1",
        "PSNR, dB",
        "sharpness",
        *(s.name for s in spaces),
        "steps",
        "cpu s",
    ):
        table.add_column(column, justify="right" if column else "left")
    for name, config in entrants(args.size, data.spec).items():
        model, start = build(config, data.spec, seed=args.seed), time.process_time()
        assert isinstance(model, (VQVAE, VQGAN))
        trained = Trainer(model, budget, seed=args.seed, progress=False)
        trained.fit(data.train)
        seconds = time.process_time() - start
        made = model.reconstruct(images)
        found = compared(made, images, data.spec, spaces)
        bits = model.log_likelihood(images[:LIKELIHOOD_IMAGES]).bits_per_dim.mean().item()
        figures = [f"{bits:.3f}", f"{found['l1']:.4f}", f"{found['psnr']:.2f}", f"{found['sharpness']:.3f}"]
        figures += [f"{distance:.3f}" for distance in found["frechet"].values()]
        table.add_row(name, *figures, str(trained.step), f"{seconds:.0f}")
        if args.out:
            pairs = torch.stack([made[:32], images[:32].to(made)], 1).flatten(0, 1)
            save_grid(pairs, data.spec, args.out / f"{name.lower()}.png", columns=8)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
