"""Multi-head self-attention, written once (Vaswani et al. 2017, section 3.2)."""

from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.nn.layers import zeroed


def attend(qkv: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Queries, keys and values side by side, `[b, t, 3 width]`, to what each token sees, `[b, t, width]`.

    `mask` bool, broadcast to `[b, heads, t, t]`, is True where a token may look.
    """
    q, k, v = _by_head(qkv, heads)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def attend_written_out(qkv: Tensor, heads: int) -> Tensor:
    """`attend` without torch's fused kernel.

    Of few tokens that kernel takes nearly half of a training step on a processor, going backward.
    """
    q, k, v = _by_head(qkv, heads)
    weights = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)


def _by_head(qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
    """`[b, t, 3 width]` to three of `[b, heads, t, width / heads]`."""
    return qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def head_count(width: int, head_width: int) -> int:
    """The most attention heads that divide `width` into parts at least `head_width` wide (or one).

    >>> head_count(256, 64), head_count(200, 64), head_count(32, 64)
    (4, 2, 1)
    """
    return next(n for n in range(max(1, width // head_width), 0, -1) if width % n == 0)


class Attention(nn.Module):
    """Every token looks at every other; with `zero` nothing comes out of it at the start.

    `fused` takes torch's kernel, which is the slower one going backward over few tokens on a processor.
    """

    def __init__(self, width: int, head_width: int, *, zero: bool = False, fused: bool = True) -> None:
        super().__init__()
        self.heads, self.fused = head_count(width, head_width), fused
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width)) if zero else nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, t, width]` to the same."""
        return self.out((attend if self.fused else attend_written_out)(self.qkv(x), self.heads))
