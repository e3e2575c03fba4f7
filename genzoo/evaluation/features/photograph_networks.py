"""Inception-v3 and DINOv2 as networks: what published weights are loaded into, and what they see of images.

Inception-v3   as FID has it (Heusel et al. 2017; pytorch-fid, torch-fidelity): torchvision's network with the
               padding left out of average pools and a maximum in the last block, as in TensorFlow 1; 2,048 features
               of images enlarged to 299 pixels by TensorFlow 1's bilinear resampling, 0 .. 255 to (x - 128) / 128
DINOv2         ViT-L/14, B/14 or S/14 (Oquab et al. 2023): the class token of images enlarged to 224 pixels by
               antialiased bicubic resampling, standardised as ImageNet (Stein et al. 2023, appendix)
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.errors import GenzooError

Network = TypeVar("Network", bound=nn.Module)

INCEPTION_SIDE, DINOV2_SIDE = 299, 224
FID_CLASSES = 1008
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of red, green and blue in [0, 1] that networks of ImageNet expect."""
AVERAGING = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b")
"""Blocks with an average pool; that of Mixed_7c takes the maximum in FID's network."""
HEAD_WIDTH = 64
"""Of attention in every DINOv2."""
OFFSET = 0.1
"""Added to the side before places are resampled, as DINOv2's authors do against rounding."""


# --- what networks see -----------------------------------------------------------------------------------------


def as_photographs(images: Tensor, levels: int) -> Tensor:
    """Integer images `[n, c, h, w]` as uint8 RGB `[n, 3, h, w]` in 0 .. 255; of other than three channels the first.

    >>> as_photographs(torch.tensor([[[[0, 16]]]]), levels=17).flatten().tolist()
    [0, 255, 0, 255, 0, 255]
    """
    x = (images.double() * (255 / (levels - 1))).round().to(torch.uint8)
    return x if x.shape[1] == 3 else x[:, :1].expand(-1, 3, -1, -1)


def resized_as_tensorflow_1(x: Tensor, side: int) -> Tensor:
    """`x` `[n, c, h, w]` to `side` pixels by the bilinear resampling of TensorFlow 1: corners stay, nothing is
    antialiased, and pixel i of the result lies at i h / side of the image rather than at (i + 1/2) h / side - 1/2."""
    rows, columns = (_bilinear(size, side).to(x) for size in x.shape[2:])
    return rows @ x @ columns.T


def _bilinear(size: int, side: int) -> Tensor:
    """Weights `[side, size]` of the pixels of a row."""
    place = torch.arange(side) * (size / side)
    low = place.long()
    part = (place - low)[:, None]
    weights = torch.zeros(side, size)
    weights.scatter_add_(1, low[:, None], 1 - part)
    return weights.scatter_add_(1, (low[:, None] + 1).clamp(max=size - 1), part)


def seen_by_inception(images: Tensor, levels: int) -> Tensor:
    """Integer images as FID's Inception-v3 takes them, `[n, 3, 299, 299]`."""
    return (resized_as_tensorflow_1(as_photographs(images, levels).float(), INCEPTION_SIDE) - 128) / 128


def seen_by_imagenet(images: Tensor, levels: int, side: int) -> Tensor:
    """Integer images as networks of ImageNet take them: antialiased bicubic resampling, standardised."""
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in IMAGENET)
    x = as_photographs(images, levels).float() / 255
    x = F.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    return (x - mean) / deviation


# --- Inception-v3 ----------------------------------------------------------------------------------------------


@final
class PatchedPool(nn.Module):
    """A block of Inception-v3, whose last branch begins with another pool than torchvision's."""

    def __init__(self, block: nn.Module, largest: bool) -> None:
        super().__init__()
        self.block, self.largest = block, largest

    @override
    def forward(self, x: Tensor) -> Tensor:
        """`[n, c, h, w]` to `[n, c', h, w]`."""
        pool = F.max_pool2d(x, 3, 1, 1) if self.largest else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        branch = self.block.branch_pool(pool)  # pyright: ignore[reportCallIssue]
        return torch.cat([self.block(x)[:, : -branch.shape[1]], branch], 1)


def fid_inception(weights: Mapping[str, Tensor], name: str) -> nn.Module:
    """FID's network `[n, 3, 299, 299]` -> `[n, 2048]` with these weights, from a file called `name`.

    Raises `GenzooError` where they do not fit.
    """
    from torchvision.models.inception import Inception3  # late: slow to import

    network = _filled(lambda: Inception3(FID_CLASSES, aux_logits=False, init_weights=False), weights, name)
    for block in AVERAGING:
        setattr(network, block, PatchedPool(getattr(network, block), largest=False))
    network.Mixed_7c = PatchedPool(network.Mixed_7c, largest=True)  # pyright: ignore[reportArgumentType]
    network.fc = nn.Identity()
    return network.eval()


def torchvision_inception(weights: Mapping[str, Tensor], name: str) -> nn.Module:
    """torchvision's own network `[n, 3, 299, 299]` -> `[n, 2048]`, whose figures are others than FID's.

    Raises `GenzooError` where the weights do not fit.
    """
    from torchvision.models.inception import Inception3

    # these weights were made for [-1, 1]; with transform_input the network undoes ImageNet's standardisation
    network = _filled(lambda: Inception3(transform_input=True, init_weights=False), weights, name)
    network.fc = nn.Identity()
    return network.eval()


# --- DINOv2 ----------------------------------------------------------------------------------------------------


@final
class ScaledBranch(nn.Module):
    """x + gamma f(norm(x)), a residual branch with a learnt scale for each feature (Touvron et al. 2021)."""

    def __init__(self, width: int, branch: nn.Module) -> None:
        super().__init__()
        self.norm, self.branch = nn.LayerNorm(width, eps=1e-6), branch
        self.gamma = nn.Parameter(torch.ones(width))

    @override
    def forward(self, x: Tensor) -> Tensor:
        """`[n, l, width]` to the same."""
        return x + self.gamma * self.branch(self.norm(x))


@final
class PlainAttention(nn.Module):
    """Self-attention with heads of 64 features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """`[n, l, width]` to the same."""
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, -1, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width))


@final
class DINOv2(nn.Module):
    """The vision transformer of `depth` blocks, trained on `grid` x `grid` patches."""

    def __init__(self, width: int, depth: int, grid: int = 37, patch: int = 14) -> None:
        super().__init__()
        self.grid, self.patch = grid, patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.blocks = nn.ModuleList(_block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Images `[n, 3, s, s]` to class tokens `[n, width]`."""
        tokens = self.patches(x).flatten(2).mT + self._places(x.shape[-1] // self.patch)
        tokens = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def _places(self, side: int) -> Tensor:
        """Embeddings of places `[1, side^2, width]`, resampled as the authors' hub has it."""
        width = self.pos_embed.shape[-1]
        grid = self.pos_embed[:, 1:].mT.view(1, width, self.grid, self.grid)
        if side == self.grid:
            return grid.flatten(2).mT
        factor = (side + OFFSET) / self.grid
        return F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic").flatten(2).mT


def _block(width: int) -> nn.Sequential:
    mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    return nn.Sequential(ScaledBranch(width, PlainAttention(width)), ScaledBranch(width, mlp))


RENAMED = {
    "patch_embed.proj.": "patches.", ".norm1.": ".0.norm.", ".norm2.": ".1.norm.",
    ".ls1.gamma": ".0.gamma", ".ls2.gamma": ".1.gamma", ".attn.": ".0.branch.",
    ".mlp.fc1.": ".1.branch.0.", ".mlp.fc2.": ".1.branch.2.",
}  # fmt: skip
"""Names of weights in the authors' files (and timm's) to those above."""


def dinov2(weights: Mapping[str, Tensor], name: str, width: int, depth: int) -> nn.Module:
    """The network `[n, 3, s, s]` -> `[n, width]` with these weights, of the authors or of timm.

    Raises `GenzooError` where they do not fit.
    """
    own = {_renamed(key): value for key, value in weights.items() if key != "mask_token"}
    places = own.get("pos_embed")
    grid = 37 if places is None or places.ndim != 3 else math.isqrt(max(1, places.shape[1] - 1))
    return _filled(lambda: DINOv2(width, depth, grid), own, name).eval()


def _renamed(key: str) -> str:
    for old, new in RENAMED.items():
        key = key.replace(old, new)
    return key


def _filled(make: Callable[[], Network], weights: Mapping[str, Tensor], name: str) -> Network:
    """The network with all of these weights and no others; counters of batches, which older files lack, do nothing."""
    with torch.device("meta"):
        network = make()
    wanted = network.state_dict()
    weights = {key: torch.tensor(0) for key in wanted if key.endswith("num_batches_tracked")} | dict(weights)
    wrong = next((key for key in [*wanted, *weights] if _shape(wanted, key) != _shape(weights, key)), None)
    if wrong is not None:
        raise GenzooError(
            f"{name} does not hold the weights of this network: {wrong} has the shape {_shape(weights, wrong)}, "
            f"wanted {_shape(wanted, wrong)}; download the file anew, or remove it"
        )
    network.load_state_dict(weights, assign=True)
    return network.float()


def _shape(weights: Mapping[str, Tensor], key: str) -> list[int] | None:
    found = weights.get(key)
    return list(found.shape) if isinstance(found, Tensor) else None
