"""What the panel's image sets are drawn with: a VAE, VQ-VAEs of three code budgets and a flow of three trainings.

They learn from the training images alone, for minutes of processor time that are turned into steps
(`benchmarks.budget`), and are kept in a folder of run folders, so that panels of other feature extractors need not
train them again. They are to be told apart by anybody who looks, not to be good.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import genzoo
from benchmarks.budget import fitted_seconds, steps_for
from genzoo.core.random import seeded
from genzoo.core.trainable import evaluating
from genzoo.data.image_data import ImageData
from genzoo.models.base import GenerativeModel
from genzoo.models.diffusion.denoising_model import Diffusion
from genzoo.models.preset import build
from genzoo.models.vae.vector_vae import VAE
from genzoo.models.vq.vqvae import VQVAE, VQVAEConfig
from genzoo.training.checkpoint import CONFIG

CODEBOOKS = (512, 32, 4)
"""Entries; images keep as many codes each."""
MINUTES = (10.0, 2.0, 0.5)
"""Of processor time that the same preset learned for."""
UNFINISHED = (0.05, 0.15, 0.3)
"""Times at which denoising stops: signal and noise are then 1 - t and t."""
LARGE_SIDE = 48
"""Above it models are of the size tiny and see few images at once: a step of small ones costs seconds and gibibytes."""
LARGE_BATCH = 32
DECODER_MINUTES = 2.0
CODES_MINUTES = 1.0
DRAWN = 250
"""Images drawn at once."""


@dataclass(frozen=True)
class Workshop:
    """Trains what is asked for, once, into `folder`."""

    data: ImageData
    folder: Path
    seed: int = 0

    def vae(self) -> VAE:
        """The VAE preset."""
        model = self._trained("vae", self._created("vae"), DECODER_MINUTES)
        assert isinstance(model, VAE)
        return model

    def vqvae(self, codebook: int) -> VQVAE:
        """The VQ-VAE preset with so many codebook entries."""
        plain = self._created("vqvae").config
        assert isinstance(plain, VQVAEConfig)
        config = replace(plain, quantiser=replace(plain.quantiser, codebook_size=codebook))
        model = self._trained(
            f"vqvae-{codebook}", build(config, self.data.spec, seed=self.seed), CODES_MINUTES
        )
        assert isinstance(model, VQVAE)
        return model

    def flow(self, minutes: float) -> Diffusion:
        """The flow preset after so many minutes of processor time."""
        model = self._trained(f"flow-{minutes:g}", self._created("flow"), minutes)
        assert isinstance(model, Diffusion)
        return model

    def _created(self, preset: str) -> GenerativeModel:
        """A preset with the workshop's seed, of a size that the images allow."""
        if max(self.data.spec.shape[1:]) <= LARGE_SIDE:
            return genzoo.create(preset, self.data.spec, seed=self.seed)
        plain = genzoo.create(preset, self.data.spec, "tiny").config
        return build(
            replace(plain, training=replace(plain.training, batch_size=LARGE_BATCH)),
            self.data.spec,
            seed=self.seed,
        )

    def _trained(self, name: str, model: GenerativeModel, minutes: float) -> GenerativeModel:
        """`model` after its minutes, or what the folder holds of it."""
        folder = self.folder / name
        if (folder / CONFIG).is_file():
            kept = genzoo.load(folder)
            assert isinstance(kept, GenerativeModel)
            return kept
        steps = steps_for(self._seconds_of(model), minutes)
        model.fit(self.data.train, steps=steps, seed=self.seed, progress=False)
        model.save(folder)
        return model

    def _seconds_of(self, model: GenerativeModel) -> Callable[[int], float]:
        spec, config = self.data.spec, model.config

        def seconds(steps: int) -> float:
            return fitted_seconds(config.build(spec), self.data.train, steps, self.seed)

        return seconds


# --- what they draw ----------------------------------------------------------------------------------------------


def unfinished(model: Diffusion, n: int, generator: torch.Generator) -> dict[float, Tensor]:
    """`n` samples `[n, c, h, w]` at time 0 and, of the same ones, x_t over alpha at the times of `UNFINISHED`."""
    parts = [_unfinished(model, min(DRAWN, n - i), generator) for i in range(0, n, DRAWN)]
    return {t: torch.cat([part[t] for part in parts]) for t in parts[0]}


def _unfinished(model: Diffusion, n: int, generator: torch.Generator) -> dict[float, Tensor]:
    sampling, found = model.config.sampling, {}
    times = sampling.grid(model.path, sampling.steps)
    x = model.noise(n, generator)
    denoise = model.denoiser(None, sampling.precision)
    with evaluating(model):
        for stop in (*reversed(UNFINISHED), 0.0):
            until = times.new_tensor([stop])
            leg = torch.cat([times[times > stop], until])
            x = sampling.sampler.run(denoise, model.path, leg, x, generator)
            times = torch.cat([until, times[times < stop]])
            found[stop] = model.scale.images(x / model.path.at(until[0]).alpha)
    return found


def drawn_reconstructions(model: VAE, images: Tensor, generator: torch.Generator) -> Tensor:
    """`images` `[n, c, h, w]` as the decoder draws them, each sub-pixel from its own distribution."""
    with evaluating(model):
        parts = [
            model.distribution.sample(model.decode(model.encode(part).mean), generator=generator)
            for part in images.split(DRAWN)
        ]
    return torch.cat(parts).to(images.dtype)


def generator(purpose: str, seed: int) -> torch.Generator:
    """For what is drawn with the models."""
    return seeded("cpu", "panel", purpose, seed)
