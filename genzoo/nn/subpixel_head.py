"""The last step of an autoregressive model: the sub-pixels inside one group, in order.

A group is a few neighbouring pixels of a row (or the colours of one pixel). The backbone says all about the
groups before; this head, a masked perceptron in the manner of MADE (Germain et al. 2015), adds the sub-pixels
of the group that come before the one being predicted.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BlockCausalLinear(nn.Module):
    """Linear map over `blocks` blocks of features in which a block sees those before it (and itself)."""

    def __init__(self, blocks: int, width_in: int, width_out: int, *, strict: bool) -> None:
        super().__init__()
        linear = nn.Linear(blocks * width_in, blocks * width_out)
        self.weight, self.bias = linear.weight, linear.bias
        sees = torch.ones(blocks, blocks).tril(-1 if strict else 0)
        mask = sees.repeat_interleave(width_out, 0).repeat_interleave(width_in, 1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., blocks * width_in]` to `[..., blocks * width_out]`."""
        return F.linear(x, self.weight * self.mask, self.bias)  # pyright: ignore[reportOperatorIssue]


class SubpixelHead(nn.Module):
    """Context `[..., width_in]` and the group's own features to parameters `[..., subpixels, n_params]`.

    The parameters of sub-pixel s depend on the context and on the sub-pixels before s.
    """

    def __init__(
        self, width_in: int, subpixels: int, features: int, n_params: int, *, width: int, layers: int
    ) -> None:
        super().__init__()
        self.subpixels = subpixels
        self.context = nn.Linear(width_in, subpixels * width)
        self.own = BlockCausalLinear(subpixels, features, width, strict=True)
        self.layers = nn.ModuleList(
            BlockCausalLinear(subpixels, width, width, strict=False) for _ in range(layers)
        )
        self.out = nn.Linear(width, n_params)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, context: Tensor, own: Tensor) -> Tensor:
        """`own` is `[..., subpixels * features]`: the group itself, of which each sub-pixel sees a part."""
        x = self.context(context) + self.own(own)
        for layer in self.layers:
            x = x + layer(F.relu(x))
        return self.out(F.relu(x).unflatten(-1, (self.subpixels, -1)))
