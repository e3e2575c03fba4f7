"""diffusers' `UNet2DModel` as a denoiser: DDPM's U-Net (Ho et al. 2020), set up for what processors do well.

Heads are wide, maps stay contiguous (group normalisation of bf16 maps in channels-last order takes nearly half of a
training step on a processor), and with `patch` nothing runs at full resolution. Images of any size are padded with
zeros at the lower and right edges to what the network needs, and its output is cropped. Maps are `[b, c, h, w]`.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import BelowOne, Depth, OptionalDepth, Width
from genzoo.core.errors import GenzooError
from genzoo.nn.attention import head_count
from genzoo.nn.denoiser_network import DenoiserConfig
from genzoo.nn.layers import zeroed

if TYPE_CHECKING:  # diffusers takes seconds to import: only who builds a network of it waits
    from diffusers.models.unets.unet_2d import UNet2DModel


@dataclass(frozen=True)
class UNetConfig(DenoiserConfig):
    """Widths per resolution, the first at that of the image, or of its patches."""

    channels: tuple[Width, ...] = (64, 128)
    """Channels at the full, a half, a quarter ... of the resolution; a small image uses the first few."""
    layers: Depth = 2
    """Residual blocks per resolution on the way down; one more on the way up."""
    attention: OptionalDepth = 0
    """How many of the lowest resolutions have attention after each of their blocks."""
    middle_attention: bool = True
    """Attention between the way down and the way up, at the lowest resolution."""
    head_width: Width = 64
    """Channels of an attention head, at least; fewer only where a map is narrower."""
    norm_groups: Width = 16
    """Groups of the normalisations, fewer where the widths are not divisible by it."""
    dropout: BelowOne = 0.0
    """Dropout inside the residual blocks."""
    patch: Width = 1
    """Side of the squares of pixels that are folded into channels before the network, and out of them after it."""

    def build(self, shape: tuple[int, ...], out_channels: int, cond_width: int) -> "UNetDenoiser":
        """As `DenoiserConfig.build`; raises `GenzooError` for anything but images."""
        channels, *sides = image_shape(shape, "a U-Net")
        patch = min(self.patch, max(sides))
        places = -(-max(sides) // patch)
        widths = self.channels[: max(1, (places - 1).bit_length())]  # the last resolution keeps two places
        multiple = patch * 2 ** (len(widths) - 1)
        height, width = (-(-side // multiple) * multiple // patch for side in sides)
        unet = self._unet(widths, (height, width), (channels * patch**2, out_channels * patch**2), cond_width)
        zeroed(unet.conv_out)
        return UNetDenoiser(unet, patch, cond_width)

    def _unet(
        self, widths: tuple[int, ...], sides: tuple[int, int], channels: tuple[int, int], cond_width: int
    ) -> "UNet2DModel":
        from diffusers.models.unets.unet_2d import UNet2DModel

        plain = max(0, len(widths) - self.attention)
        attending = math.gcd(*widths[min(plain, len(widths) - 1) :])
        groups = math.gcd(self.norm_groups, *widths)
        kinds = [""] * plain + ["Attn"] * (len(widths) - plain)
        return UNet2DModel(
            sample_size=sides[0] if sides[0] == sides[1] else sides,
            in_channels=channels[0],
            out_channels=channels[1],
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            block_out_channels=widths,
            layers_per_block=self.layers,
            dropout=self.dropout,
            attention_head_dim=attending // head_count(attending, self.head_width),
            norm_num_groups=groups,
            add_attention=self.middle_attention,
            class_embed_type="identity" if cond_width else None,
        )


class UNetDenoiser(nn.Module):
    """`unet` behind the interface of denoisers: `(x, c_noise, cond)` to `[b, out, h, w]`, of any height and width.

    Takes an existing `UNet2DModel` as well (a saved pipeline's, say): unconditional, with its "positional"
    embedding of `timestep`, which is `c_noise`. Raises `GenzooError` for others. The module is kept as `unet`.
    """

    def __init__(self, unet: "UNet2DModel", patch: int = 1, cond_width: int = 0) -> None:
        super().__init__()
        _check(unet, conditional=cond_width > 0)
        self.unet = unet
        self.patch = patch
        self.multiple = patch * 2 ** (len(unet.config["block_out_channels"]) - 1)
        width = unet.time_embedding.linear_2.out_features
        self.cond = nn.Linear(cond_width, width) if cond_width else None
        _keep_contiguous(unet)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """Pads and folds, asks the U-Net, unfolds and crops."""
        height, width = x.shape[2:]
        x = F.pixel_unshuffle(padded_to(x, self.multiple), self.patch)
        # A grey image in channels-last order also counts as contiguous: only a copy settles the strides.
        x = x.clone(memory_format=torch.contiguous_format)
        labels = None if self.cond is None else self.cond(cond)
        (y,) = self.unet(x, c_noise.to(x.device), class_labels=labels, return_dict=False)
        return F.pixel_shuffle(y, self.patch)[..., :height, :width]


def image_shape(shape: tuple[int, ...], network: str) -> tuple[int, int, int]:
    """`shape` if it is (channels, height, width); raises `GenzooError` that names the network otherwise."""
    if len(shape) != 3:
        raise GenzooError(f"{network} needs images, these data have shape {shape}: use another network")
    channels, height, width = shape
    return channels, height, width


def padded_to(x: Tensor, multiple: int) -> Tensor:
    """Zeros below and to the right of `[b, c, h, w]`, until `multiple` divides both sides.

    >>> padded_to(torch.ones(1, 1, 5, 8), 4).shape
    torch.Size([1, 1, 8, 8])
    """
    height, width = x.shape[2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple))


def _check(unet: "UNet2DModel", conditional: bool) -> None:
    kind = "identity" if conditional else None
    if unet.config["class_embed_type"] != kind or unet.config["num_class_embeds"] is not None:
        raise GenzooError("this UNet2DModel is class-conditional: only unconditional ones can be wrapped")
    embedding = unet.config["time_embedding_type"]
    if embedding != "positional":
        raise GenzooError(
            f'this UNet2DModel has a "{embedding}" time embedding: only "positional" is supported'
        )


def _keep_contiguous(unet: "UNet2DModel") -> None:
    """diffusers' attention returns its maps in channels-last order, which all that follow would inherit."""
    from diffusers.models.attention_processor import Attention

    for module in unet.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(_made_contiguous)


def _made_contiguous(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.contiguous()
