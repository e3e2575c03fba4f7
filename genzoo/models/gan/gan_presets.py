"""Presets of two players: GANs and image-to-image."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from genzoo.models.names import PresetRow

if TYPE_CHECKING:
    from genzoo.models.gan.generator_model import GANConfig
    from genzoo.models.gan.image_to_image import ImageToImageConfig
    from genzoo.models.preset import Preset

_WIDTHS = {"tiny": (16, 32), "small": (48, 96), "base": (96, 192), "large": (128, 256, 512)}


def _gan() -> "Preset":
    from genzoo.models.preset import LOW_RESOLUTION, VECTORS, Preset

    sizes = {size: _gan_config(size) for size in _WIDTHS}
    return Preset(sizes, {LOW_RESOLUTION: {"augmentation_probability": 0.5}, VECTORS: _gan_of_vectors()})


def _gan_config(size: str) -> "GANConfig":
    from genzoo.core.config import TrainConfig
    from genzoo.models.gan.generator_model import GANConfig
    from genzoo.nn.gan_nets import ConvGANNetworks
    from genzoo.objectives.adversarial import R1, R2, Lazy

    rates = {"tiny": 2e-3, "small": 1e-3, "base": 5e-4, "large": 3e-4}
    blocks = {"tiny": 1, "small": 1, "base": 2, "large": 3}[size]
    training = TrainConfig(
        batch_size=64, learning_rate=rates[size], betas=(0.0, 0.99), weight_decay=0.0, clip_norm=10.0
    )
    # every fourth time: each time the penalties would take more than half of the time
    penalties = (Lazy(R1(0.5), every=4), Lazy(R2(0.5), every=4))
    return GANConfig(networks=ConvGANNetworks(_WIDTHS[size], blocks), penalties=penalties, training=training)


def _gan_of_vectors() -> dict[str, Any]:
    """For vectors of about unit scale: many small, fast steps; measured on `benchmarks.gan_modes`."""
    from genzoo.core.config import TrainConfig
    from genzoo.nn.gan_nets import DenseGANNetworks
    from genzoo.objectives.adversarial import R1, R2, Lazy

    training = TrainConfig(
        batch_size=256,
        learning_rate=4e-3,
        betas=(0.0, 0.99),
        weight_decay=0.0,
        clip_norm=10.0,
        precision="fp32",
    )
    return {
        "networks": DenseGANNetworks(128, blocks=5, discriminator_blocks=1, waves=3.0),
        "penalties": (Lazy(R1(0.02), every=4, final=0.3), Lazy(R2(0.02), every=4, final=0.3)),
        "training": training,
    }


def _image_to_image(adversarial_weight: float = 1.0) -> "Preset":
    """One recipe for both presets, so that they differ in the adversarial term alone."""
    from genzoo.models.preset import Preset

    sizes = {size: _image_to_image_config(size, adversarial_weight) for size in _WIDTHS}
    return Preset(sizes, needs_input=True)


def _image_to_image_config(size: str, adversarial_weight: float) -> "ImageToImageConfig":
    from genzoo.core.config import TrainConfig
    from genzoo.models.gan.image_to_image import ImageToImageConfig
    from genzoo.nn.conv_unet import UNETS
    from genzoo.nn.patch_discriminator import PatchDiscriminatorConfig

    rates = {"tiny": 3e-3, "small": 3e-3, "base": 1e-3, "large": 5e-4}
    muon = TrainConfig(batch_size=64, optimizer="muon")
    return ImageToImageConfig(
        network=UNETS[size],
        discriminator=PatchDiscriminatorConfig(_WIDTHS[size], blocks=3 if size == "large" else 1),
        adversarial_weight=adversarial_weight,
        # inputs that are partly right hold L1 alone to doing nothing, where it has its kink; Muon's steps lead away
        training=replace(
            muon, learning_rate=rates[size], betas=(0.5, 0.99), weight_decay=0.0, clip_norm=10.0
        ),
    )


PRESETS = (
    PresetRow(
        "gan",
        "GAN in the manner of R3GAN: relativistic loss, R1 and R2, no normalisation; one pass, no likelihood",
        "[Huang et al. 2024](https://arxiv.org/abs/2501.05441)",
        _gan,
    ),
    PresetRow(
        "image-to-image",
        "U-Net from an input image (--cond mask, edges ...), L1 and a patch discriminator; no likelihood",
        "[Isola et al. 2017](https://arxiv.org/abs/1611.07004)",
        _image_to_image,
    ),
    PresetRow(
        "image-to-image-l1",
        "The same U-Net from an input image, trained by L1 alone; no likelihood",
        "[Isola et al. 2017](https://arxiv.org/abs/1611.07004)",
        lambda: _image_to_image(adversarial_weight=0.0),
    ),
)
