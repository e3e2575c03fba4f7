"""The presets: names of recipes, as data. They feed `create`, the command line, the README's table and the tests.

A preset gives one configuration per size; `adjustments` are the fields that follow the data. The sizes small and below
suit two processor cores.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch

from genzoo.betas import CosineBetas
from genzoo.catalogue import DESCRIPTIONS
from genzoo.config import ModelConfig, TrainableConfig, TrainConfig
from genzoo.contract import DataSpec, GenerativeModel, GenzooError, Trainable
from genzoo.couplings import ClassAwareOptimalTransport, Independent, OptimalTransport
from genzoo.likelihood import BoundProtocol, DormandPrince, ExactIfSmall, OdeProtocol, RungeKutta4
from genzoo.models.autoregressive import HeadConfig, PixelCNNConfig, PixelTransformerConfig
from genzoo.models.diffusion import DiffusionConfig
from genzoo.models.gan import GANConfig
from genzoo.models.hvae import HVAEConfig
from genzoo.models.image_to_image import ImageToImageConfig
from genzoo.models.latent import LatentConfig
from genzoo.models.shortcut import ShortcutConfig
from genzoo.models.vae import VAEConfig
from genzoo.models.vqgan import VQGANConfig
from genzoo.models.vqvae import VQVAEConfig
from genzoo.networks.clocks import LogSNRClock, TimeClock
from genzoo.networks.conv_unet import ConvUNetConfig
from genzoo.networks.gan_nets import ConvGANNetworks, DenseGANNetworks
from genzoo.networks.mlp import MLPConfig
from genzoo.networks.patch_discriminator import PatchDiscriminatorConfig
from genzoo.networks.quantisers import QuantiserConfig
from genzoo.objectives.adversarial import R1, R2, Lazily
from genzoo.objectives.denoising import ELBOWeighting
from genzoo.objectives.times import LogitNormal, LogNormalSigma, StratifiedTimes, UniformLogSNR
from genzoo.paths import VE, DiscreteBetas, EDMTarget, Linear, VelocityTarget, VPCosine, VTarget
from genzoo.samplers import Heun, KarrasGrid, Sampling

Config = TypeVar("Config", bound=TrainableConfig)
Row = TypeVar("Row")

VECTORS = "vectors"
REAL = "real-valued"
CLASSES = "classes"
COND_VECTORS = "condition vectors"
LOW_RESOLUTION = "up to 16 pixels"
MANY_LEVELS = "more than 32 levels"

TRAITS = {
    VECTORS: lambda spec: len(spec.shape) != 3,
    REAL: lambda spec: spec.levels is None,
    CLASSES: lambda spec: spec.cond == "class",
    COND_VECTORS: lambda spec: spec.cond == "vector",
    LOW_RESOLUTION: lambda spec: len(spec.shape) == 3 and max(spec.shape[1:]) <= 16,
    MANY_LEVELS: lambda spec: spec.levels is not None and spec.levels > 32,
}
"""What an adjustment may depend on."""


def _with(config: Any, path: str, value: Any) -> Any:
    """`config` with another value of the field, or field of a part of a part ..., at `path`."""
    name, _, rest = path.partition(".")
    return replace(config, **{name: _with(getattr(config, name), rest, value) if rest else value})


@dataclass(frozen=True)
class Preset:
    """A recipe: one configuration per size, and the fields that are set otherwise for data with a trait."""

    sizes: Mapping[str, ModelConfig]
    adjustments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By trait: values of fields, which may be fields of a part, such as "autoencoder.quantiser"."""
    needs_input: bool = False
    """Whether it takes data with input images only, such as those of `load_data(..., cond="mask")`."""

    def config(self, size: str, spec: DataSpec) -> ModelConfig:
        """The configuration of `size` for data of `spec`; raises `GenzooError` for an unknown size."""
        if size not in self.sizes:
            raise GenzooError(f"unknown size {size!r}: choose {', '.join(self.sizes)}")
        config = self.sizes[size]
        for trait, changes in self.adjustments.items():
            if TRAITS[trait](spec):
                for path, value in changes.items():
                    config = _with(config, path, value)
        return config

    def suited(self, spec: DataSpec) -> DataSpec:
        """`spec`, with an input image like the images themselves as its condition where the recipe needs one."""
        return DataSpec(spec.shape, spec.levels, "vector", spec.dims) if self.needs_input else spec


_FAST = TrainConfig(batch_size=32, learning_rate=4e-3)
_STEADY = TrainConfig(batch_size=64, learning_rate=1e-3)

_LATENT = TrainConfig(batch_size=128, learning_rate=4e-3, clip_norm=20.0)
_MUON = replace(_LATENT, muon=True)

_VQ_TINY = VQVAEConfig(widths=(16, 32), blocks=1, neighbours=7)
_VQ_SMALL = VQVAEConfig(widths=(64, 128), blocks=2)
_VQ_BASE = VQVAEConfig(widths=(96, 192), blocks=4)
_VQ_LARGE = VQVAEConfig(widths=(192, 384), blocks=6, quantiser=QuantiserConfig(codes=1024))
_FEW_CODES = QuantiserConfig(codes=64)
"""For images so small that a code is a few pixels: of more, each is too rare for a prior to learn."""


def _token_prior(width: int, blocks: int, dropout: float = 0.1) -> PixelTransformerConfig:
    """Over codes, which are names and not amounts."""
    head = HeadConfig(code_width=32, output="categorical")
    return PixelTransformerConfig(group=1, width=width, blocks=blocks, dropout=dropout, head=head)


def _vqgan(autoencoder: VQVAEConfig, *widths: int) -> VQGANConfig:
    return VQGANConfig(autoencoder, PatchDiscriminatorConfig(widths))


# --- diffusion and flow matching: rows of `genzoo.models.diffusion`'s table ------------------------------------

_DENOISING = TrainConfig(batch_size=64, muon=True)
_ODE = OdeProtocol(first=0.0, solver=RungeKutta4(10), divergence=ExactIfSmall(), draws=2)
_DDPM = DiffusionConfig(
    path=DiscreteBetas(CosineBetas()),
    target=VTarget(),
    clock=TimeClock(1000.0, -1.0),
    protocol=BoundProtocol(first=1e-3),
)
_VDM = DiffusionConfig(
    path=VPCosine(), levels_head=True, weighting=ELBOWeighting(), times=UniformLogSNR(), first=2e-5,
    clock=LogSNRClock(), protocol=BoundProtocol(first=2e-5),
)  # fmt: skip
_EDM = DiffusionConfig(
    path=VE(), target=EDMTarget(), times=LogNormalSigma(), clock=LogSNRClock(), unit_input=True,
    sampling=Sampling(Heun(), KarrasGrid(), steps=18), protocol=BoundProtocol(first=0.0),
)  # fmt: skip
_FLOW = DiffusionConfig(path=Linear(), target=VelocityTarget(), times=LogitNormal(), protocol=_ODE)


_UNETS = {
    "tiny": ConvUNetConfig(fine=16, widths=(32, 64), blocks=1, attention=0),
    "small": ConvUNetConfig(fine=32, widths=(64, 128)),
    "base": ConvUNetConfig(fine=48, widths=(128, 256), blocks=3),
    "large": ConvUNetConfig(fine=64, widths=(192, 384, 512), blocks=4, attention=2),
}


def _denoisers(
    recipe: DiffusionConfig | ShortcutConfig, adjustments: Mapping[str, Mapping[str, Any]] | None = None
) -> Preset:
    """The recipe on networks of four sizes; vectors get a perceptron, real-valued data the ODE."""
    rates = {"tiny": 3e-3, "small": 3e-3, "base": 1e-3, "large": 5e-4}
    sizes = {
        size: replace(recipe, network=network, training=replace(_DENOISING, learning_rate=rates[size]))
        for size, network in _UNETS.items()
    }
    without_levels: dict[str, Any] = {
        "protocol": OdeProtocol(solver=DormandPrince(1e-4), divergence=ExactIfSmall(), draws=2)
    }
    if isinstance(recipe, DiffusionConfig):
        without_levels |= {"levels_head": False}
    return Preset(sizes, {VECTORS: {"network": MLPConfig()}, REAL: without_levels, **(adjustments or {})})


# --- two players -----------------------------------------------------------------------------------------------


def _gan(size: str) -> GANConfig:
    widths = {"tiny": (16, 32), "small": (48, 96), "base": (96, 192), "large": (128, 256, 512)}
    rates = {"tiny": 2e-3, "small": 1e-3, "base": 5e-4, "large": 3e-4}
    training = TrainConfig(
        batch_size=64, learning_rate=rates[size], betas=(0.0, 0.99), weight_decay=0.0, clip_norm=10.0
    )
    blocks = {"tiny": 1, "small": 1, "base": 2, "large": 3}[size]
    networks = ConvGANNetworks(widths[size], blocks)
    # paid each time the penalties would take more than half of the time
    return GANConfig(networks=networks, penalties=(Lazily(R1(0.5), 4), Lazily(R2(0.5), 4)), training=training)


_DENSE_GAN = {
    "networks": DenseGANNetworks(128, blocks=5, judging_blocks=1, waves=3.0),
    "penalties": (Lazily(R1(0.02), 4, final=0.3), Lazily(R2(0.02), 4, final=0.3)),
    "training": TrainConfig(
        batch_size=256,
        learning_rate=4e-3,
        betas=(0.0, 0.99),
        weight_decay=0.0,
        clip_norm=10.0,
        precision="fp32",
    ),
}
"""For vectors of about unit scale: many small, fast steps; measured on `benchmarks.gan_modes`."""


def _image_to_image(size: str, adversarial_weight: float = 1.0) -> ImageToImageConfig:
    """One recipe for both presets, so that they differ in the adversarial term alone."""
    widths = {"tiny": (16, 32), "small": (48, 96), "base": (96, 192), "large": (128, 256, 512)}
    rates = {"tiny": 3e-3, "small": 3e-3, "base": 1e-3, "large": 5e-4}
    return ImageToImageConfig(
        network=_UNETS[size],
        discriminator=PatchDiscriminatorConfig(widths[size], blocks=3 if size == "large" else 1),
        adversarial_weight=adversarial_weight,
        # inputs that are partly right hold L1 alone to doing nothing, where it has its kink; Muon's steps lead away
        training=replace(
            _DENOISING, learning_rate=rates[size], betas=(0.5, 0.99), weight_decay=0.0, clip_norm=10.0
        ),
    )


PRESETS: dict[str, Preset] = {
    "pixelcnn": Preset(
        sizes={
            "tiny": PixelCNNConfig(width=32, blocks=2, vertical=(32, 48), training=_FAST),
            "small": PixelCNNConfig(width=64, blocks=5, vertical=(64, 96, 128), training=_FAST),
            "base": PixelCNNConfig(
                width=128, blocks=6, vertical=(128, 192, 256), vertical_blocks=2,
                training=replace(_FAST, learning_rate=2e-3),
            ),
            "large": PixelCNNConfig(
                group=1, width=192, blocks=10, vertical=(192, 256, 384), vertical_blocks=4,
                training=TrainConfig(batch_size=128, learning_rate=1e-3),
            ),
        },
        adjustments={
            LOW_RESOLUTION: {"group": 1, "dropout": 0.5},
            MANY_LEVELS: {"head": HeadConfig(width=64, layers=2, bumps=10)},
        },
    ),
    "pixel-transformer": Preset(
        sizes={
            "tiny": PixelTransformerConfig(width=64, blocks=2, training=_FAST),
            "small": PixelTransformerConfig(width=128, blocks=4, training=_FAST),
            "base": PixelTransformerConfig(width=256, blocks=8, training=replace(_FAST, learning_rate=1e-3)),
            "large": PixelTransformerConfig(
                group=2, width=512, blocks=12, training=TrainConfig(batch_size=128, learning_rate=5e-4)
            ),
        },
        adjustments={
            LOW_RESOLUTION: {"group": 1, "dropout": 0.2},
            MANY_LEVELS: {"head": HeadConfig(width=64, layers=2, bumps=10)},
        },
    ),
    "vae": Preset(
        sizes={
            "tiny": VAEConfig(
                latents=16, widths=(24, 48), blocks=1, mixture=32, importance_samples=5, training=_MUON
            ),
            "small": VAEConfig(importance_samples=5, training=_MUON),
            "base": VAEConfig(
                latents=64, widths=(64, 192), blocks=3, mixture=256, importance_samples=5,
                training=replace(_MUON, learning_rate=2e-3),
            ),
            "large": VAEConfig(
                latents=128, widths=(128, 256, 512), blocks=4, mixture=512, importance_samples=5,
                training=replace(_MUON, learning_rate=1e-3),
            ),
        },
    ),
    "hvae": Preset(
        sizes={
            "tiny": HVAEConfig(
                top=16, mixture=32, widths=(16, 24, 32), latents=(1, 2, 4), groups=(1, 1, 2), head=16, training=_LATENT
            ),
            "small": HVAEConfig(training=_LATENT),
            "base": HVAEConfig(
                top=64, mixture=256, widths=(64, 128, 192), latents=(4, 8, 16), groups=(2, 3, 4), blocks=2, head=32,
                training=replace(_LATENT, learning_rate=1e-3),
            ),
            "large": HVAEConfig(
                top=128, mixture=512, widths=(128, 256, 384, 512), latents=(4, 8, 16, 16), groups=(4, 6, 6, 4),
                blocks=3, head=64, training=replace(_LATENT, learning_rate=5e-4),
            ),
        },
    ),
    "vqvae": Preset(
        sizes={
            "tiny": replace(_VQ_TINY, training=_STEADY),
            "small": replace(_VQ_SMALL, training=_STEADY),
            "base": replace(_VQ_BASE, training=_STEADY),
            "large": replace(_VQ_LARGE, training=replace(_STEADY, batch_size=128, learning_rate=5e-4)),
        },
        adjustments={LOW_RESOLUTION: {"quantiser": _FEW_CODES}},
    ),
    "vq-transformer": Preset(
        sizes={
            "tiny": LatentConfig(_VQ_TINY, _token_prior(width=64, blocks=2, dropout=0.0), training=_STEADY),
            "small": LatentConfig(_VQ_SMALL, _token_prior(width=128, blocks=4), training=_STEADY),
            "base": LatentConfig(_VQ_BASE, _token_prior(width=256, blocks=8), training=_STEADY),
            "large": LatentConfig(
                _VQ_LARGE, _token_prior(width=512, blocks=12),
                training=replace(_STEADY, batch_size=128, learning_rate=5e-4),
            ),
        },
        adjustments={LOW_RESOLUTION: {"autoencoder.quantiser": _FEW_CODES, "training.learning_rate": 4e-3}},
    ),
    "vqgan": Preset(
        sizes={
            "tiny": LatentConfig(
                _vqgan(_VQ_TINY, 16, 32), _token_prior(width=64, blocks=2, dropout=0.0), training=_STEADY
            ),
            "small": LatentConfig(_vqgan(_VQ_SMALL, 48, 96), _token_prior(width=128, blocks=4), training=_STEADY),
            "base": LatentConfig(_vqgan(_VQ_BASE, 64, 128), _token_prior(width=256, blocks=8), training=_STEADY),
            "large": LatentConfig(
                _vqgan(_VQ_LARGE, 96, 192, 384), _token_prior(width=512, blocks=12),
                training=replace(_STEADY, batch_size=128, learning_rate=5e-4),
            ),
        },
        adjustments={LOW_RESOLUTION: {"autoencoder.autoencoder.quantiser": _FEW_CODES}},
    ),
    "ddpm": _denoisers(_DDPM),
    "ddpm-likelihood": _denoisers(_VDM),
    "edm": _denoisers(_EDM),
    "flow": _denoisers(_FLOW),
    "flow-likelihood": _denoisers(replace(_FLOW, times=StratifiedTimes(), dequantised=True)),
    "ot-flow": _denoisers(
        replace(_FLOW, coupling=OptimalTransport()),
        # pairs over a whole batch would tell the noise about its condition
        {CLASSES: {"coupling": ClassAwareOptimalTransport()}, COND_VECTORS: {"coupling": Independent()}},
    ),
    "shortcut": _denoisers(ShortcutConfig(protocol=_ODE)),
    "gan": Preset(
        {size: _gan(size) for size in ("tiny", "small", "base", "large")},
        {LOW_RESOLUTION: {"augmentation": 0.5}, VECTORS: _DENSE_GAN},
    ),
    "image-to-image": Preset({size: _image_to_image(size) for size in _UNETS}, needs_input=True),
    "image-to-image-l1": Preset(
        {size: _image_to_image(size, adversarial_weight=0.0) for size in _UNETS}, needs_input=True
    ),
}  # fmt: skip


def get_preset(name: str) -> Preset:
    """The preset of that name; raises `GenzooError` with the nearest name otherwise."""
    return named(name, PRESETS, "preset")


def named(name: str, rows: Mapping[str, Row], kind: str) -> Row:
    """The row of that name; raises `GenzooError`, which says the nearest name of this `kind`, otherwise."""
    if name in rows:
        return rows[name]
    near = difflib.get_close_matches(name, rows, n=1, cutoff=0)[0]
    raise GenzooError(f"unknown {kind} {name!r}: did you mean {near!r}? (one of {', '.join(rows)})")


def create(
    name: str, spec: DataSpec, size: str = "small", *, seed: int = 0, **overrides: Any
) -> GenerativeModel:
    """A model of a preset with random weights from `seed`; `overrides` are fields of the preset's configuration.

    >>> create("pixelcnn", DataSpec((1, 8, 8), levels=17), "tiny", blocks=1).config.blocks
    1

    Raises `GenzooError` for an unknown preset, size or field.
    """
    model = build(overridden(name, get_preset(name).config(size, spec), overrides), spec, seed=seed)
    assert isinstance(model, GenerativeModel)
    return model


def overridden(name: str, config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration of the preset `name` with other values of some fields; `GenzooError` for an unknown field."""
    known = [f.name for f in fields(config)]  # pyright: ignore[reportArgumentType]
    for key in overrides:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise GenzooError(f"{name} has no field {key!r}: did you mean {near!r}?")
    return replace(config, **overrides)  # pyright: ignore[reportArgumentType]


def build(config: TrainableConfig, spec: DataSpec, *, seed: int = 0) -> Trainable:
    """`config.build(spec)` with initial weights from `seed`; the global random state stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return config.build(spec)


def list_models() -> dict[str, str]:
    """Preset names with one-line descriptions."""
    return {name: DESCRIPTIONS[name] for name in PRESETS}


def preset_table() -> str:
    """The README's table: a row per preset, with its parameters per size on 28x28 grey 8-bit images.

    Those that need an input image have one of 28x28 grey pixels.
    """
    spec = DataSpec((1, 28, 28), levels=256)
    sizes = ("tiny", "small", "base", "large")
    rows = [
        "| preset | what it is | likelihood | " + " | ".join(sizes) + " |",
        "|---" * (3 + len(sizes)) + "|",
    ]
    for name, preset in PRESETS.items():
        suited = preset.suited(spec)
        with torch.device("meta"):
            models = [preset.config(size, suited).build(suited) for size in sizes]
        kind = models[0].likelihood.name.lower().replace("_", " ")
        counts = [f"{sum(p.numel() for p in m.parameters()) / 1e6:.2f} M" for m in models]
        rows.append(f"| `{name}` | {DESCRIPTIONS[name]} | {kind} | " + " | ".join(counts) + " |")
    return "\n".join(rows)
