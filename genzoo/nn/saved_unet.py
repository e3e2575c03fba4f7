"""A `UNet2DModel` of diffusers with every setting that it was saved with, as a configuration of genzoo."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from typing_extensions import Self

from genzoo.core.errors import GenzooError
from genzoo.nn.denoiser_network import DenoiserConfig
from genzoo.nn.layers import zeroed
from genzoo.nn.unet import UNetDenoiser, image_shape

if TYPE_CHECKING:  # diffusers takes seconds to import: only who builds a network of it waits
    from diffusers.models.unets.unet_2d import UNet2DModel


@dataclass(frozen=True)
class SavedUNetConfig(DenoiserConfig):
    """Rebuilds the U-Net of a pipeline; `UNetConfig` is the one to design a new one with."""

    unet: dict[str, Any]
    """The `config` of a `UNet2DModel`: numbers, strings, and tuples of them."""

    @classmethod
    def of(cls, unet: "UNet2DModel") -> Self:
        """That of an existing network, as it comes back from JSON: with tuples in place of lists."""
        settings = {k: v for k, v in unet.config.items() if not k.startswith("_")}
        return cls({k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})

    def build(self, shape: tuple[int, ...], out_channels: int, cond_width: int) -> nn.Module:
        """As `DenoiserConfig.build`; raises `GenzooError` where the U-Net is made for other channels or a condition."""
        from diffusers.models.unets.unet_2d import UNet2DModel

        if cond_width:
            raise GenzooError(
                "a saved UNet2DModel takes no condition: leave cond out, or use another network"
            )
        wanted = (image_shape(shape, "a saved UNet2DModel")[0], out_channels)
        unet = UNet2DModel.from_config(dict(self.unet))
        assert isinstance(unet, UNet2DModel)
        given = (unet.config["in_channels"], unet.config["out_channels"])
        if given != wanted:
            raise GenzooError(
                f"this saved UNet2DModel has {given[0]} channels in and {given[1]} out, "
                f"the model needs {wanted[0]} and {wanted[1]}: use another network"
            )
        zeroed(unet.conv_out)
        return UNetDenoiser(unet)
