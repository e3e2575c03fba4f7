"""Gated PixelCNN over groups of pixels: a vertical stack, then a horizontal one, without a blind spot.

van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders" (gates, the two stacks,
conditional biases); Salimans et al. 2017, "PixelCNN++" (lower-resolution levels in a causal network).

The *vertical* stack sees all rows above the present one. It has levels of halved height (and width, at
will): a level's row I holds only what rows above 2I say, so it may serve rows 2I and 2I + 1, and most of the
network runs on a quarter or a sixteenth of the positions. The *horizontal* stack starts from the vertical
stack's last features and sees the groups to the left in the present row.

Feature maps are `[b, c, h, w]`, stored channels-last. `forward` does a whole image at once; `stepper` does
one group at a time and keeps the activations of the rows above and the groups to the left, so that
sampling an image costs about as much as one `forward`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = dict[nn.Module, Tensor]
"""What the layers remember between steps: a layer's latest rows (or columns) of input, or a level's output."""


class _Gate(torch.autograd.Function):
    """tanh(a) sigmoid(b), keeping two tensors for the backward pass where autograd would keep four."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        a, b = a.tanh(), b.sigmoid()
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        grad_a = torch.ops.aten.tanh_backward(grad * b, a)
        return grad_a, torch.ops.aten.sigmoid_backward(grad * a, b)


def gate(a: Tensor, b: Tensor) -> Tensor:
    """tanh(a) * sigmoid(b): equation 2 of van den Oord et al. 2016."""
    return _Gate.apply(a, b)  # pyright: ignore[reportReturnType]


class CausalConv(nn.Module):
    """Convolution that sees, along one axis, only the present position and `reach` - 1 before it.

    `axis` 2 (vertical): `reach` rows by `across` columns, centred; `axis` 3 (horizontal): `reach` columns.
    The kernel is padded with zeros to a symmetric one: a library convolution over a few more taps costs less
    than the copies that asymmetric padding or cropping of the images would make.
    """

    def __init__(self, width_in: int, width_out: int, *, axis: int, reach: int, across: int = 1) -> None:
        super().__init__()
        self.axis, self.reach, self.across = axis, reach, across
        kernel = (reach, across) if axis == 2 else (1, reach)
        template = nn.Conv2d(width_in, width_out, kernel)
        assert template.bias is not None
        self.weight, self.bias = template.weight, template.bias

    def forward(self, x: Tensor, outputs: int = 1) -> tuple[Tensor, ...]:
        """`[b, c_in, h, w]` to `outputs` tensors `[b, c_out / outputs, h, w]`.

        Several contiguous outputs instead of one to be cut: slices of channels-last maps are slow to read.
        """
        r, a = self.reach - 1, self.across // 2
        zeros, padding = ((0, 0, 0, r), (r, a)) if self.axis == 2 else ((0, r), (0, r))
        weight = F.pad(self.weight, zeros).to(memory_format=torch.channels_last)
        parts = zip(weight.chunk(outputs), self.bias.chunk(outputs), strict=True)
        return tuple(F.conv2d(x, w, b, padding=padding) for w, b in parts)

    def step(self, x: Tensor, state: State) -> Tensor:
        """One new row `[b, c, 1, w]` (axis 2) or one new position `[b, c, 1, 1]` (axis 3), after those before."""
        if self.reach > 1:
            shape = list(x.shape)
            shape[self.axis] = self.reach - 1
            before = state[self] if self in state else x.new_zeros(shape)
            x = torch.cat([before, x], self.axis)
            state[self] = x.narrow(self.axis, 1, self.reach - 1)
        if self.axis == 3:  # one position: a matrix product
            return F.linear(x[:, :, 0].flatten(1), self.weight[:, :, 0].flatten(1), self.bias)[
                ..., None, None
            ]
        return F.conv2d(x, self.weight, self.bias, padding=(0, self.across // 2))


class GatedBlock(nn.Module):
    """x + out(dropout(gate(conv(x) + conditional bias))): residual, zero at the start."""

    def __init__(self, conv: CausalConv, width: int, cond_width: int, dropout: float) -> None:
        super().__init__()
        self.conv = conv
        self.cond = nn.Linear(cond_width, 2 * width, bias=False) if cond_width else None
        self.out = nn.Conv2d(width, width, 1)
        self.dropout = dropout
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """`[b, c, h, w]` and the condition `[b, cond_width]` to `[b, c, h, w]`."""
        a, b = self.conv(x, outputs=2)
        return x + self.out(F.dropout(self._gated(a, b, cond), self.dropout, self.training))

    def step(self, x: Tensor, cond: Tensor | None, state: State) -> Tensor:
        """The same for one new row or position."""
        a, b = self.conv.step(x, state).chunk(2, 1)
        gated = self._gated(a, b, cond)
        if gated.shape[2:] == (1, 1):
            return x + F.linear(gated[..., 0, 0], self.out.weight[..., 0, 0], self.out.bias)[..., None, None]
        return x + self.out(gated)

    def _gated(self, a: Tensor, b: Tensor, cond: Tensor | None) -> Tensor:
        if self.cond is not None:
            bias_a, bias_b = self.cond(cond)[..., None, None].chunk(2, 1)
            a, b = a + bias_a, b + bias_b
        return gate(a, b)


@dataclass(frozen=True)
class VerticalLevel:
    """One resolution of the vertical stack: its width, its blocks, and how the next level narrows it."""

    width: int
    blocks: int = 1
    halve_width: bool = False
    """Whether the next level has half the columns, not only half the rows."""


class VerticalStack(nn.Module):
    """A level of the vertical stack and, inside it, the levels below: blocks, down, inner, up, blocks."""

    def __init__(self, levels: tuple[VerticalLevel, ...], cond_width: int, dropout: float) -> None:
        super().__init__()
        level, *inner = levels

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                GatedBlock(
                    CausalConv(level.width, 2 * level.width, axis=2, reach=2, across=3),
                    level.width, cond_width, dropout,
                )
                for _ in range(level.blocks)
            )  # fmt: skip

        self.before = blocks()
        self.stride = (2, 2 if level.halve_width else 1)
        self.inner = None
        if inner:
            self.down = nn.Conv2d(level.width, inner[0].width, (2, 3), stride=self.stride)
            self.inner = VerticalStack(tuple(inner), cond_width, dropout)
            self.up = nn.Conv2d(inner[0].width, level.width, 1)
            self.after = blocks()

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """`[b, c, h, w]` to `[b, c, h, w]`; row i of the output depends on rows 0 .. i of the input."""
        for block in self.before:
            x = block(x, cond)
        if self.inner is None:
            return x
        below = self.inner(self.down(F.pad(x, (1, 1, 1, 0))), cond)  # row I below ends at row 2I here
        x = x + self._widen(self.up(below), x.shape[3]).repeat_interleave(2, 2)[:, :, : x.shape[2]]
        for block in self.after:
            x = block(x, cond)
        return x

    def step(self, x: Tensor, row: int, cond: Tensor | None, state: State) -> Tensor:
        """One new row `[b, c, 1, w]`, the `row`-th."""
        for block in self.before:
            x = block.step(x, cond, state)  # pyright: ignore[reportCallIssue]
        if self.inner is None:
            return x
        before = state[self.down] if self.down in state else torch.zeros_like(x)
        state[self.down] = x
        if row % 2 == 0:
            below = self.down(F.pad(torch.cat([before, x], 2), (1, 1)))
            state[self] = self._widen(self.up(self.inner.step(below, row // 2, cond, state)), x.shape[3])
        x = x + state[self]
        for block in self.after:
            x = block.step(x, cond, state)  # pyright: ignore[reportCallIssue]
        return x

    def _widen(self, x: Tensor, columns: int) -> Tensor:
        return x.repeat_interleave(self.stride[1], 3)[..., :columns]


class GatedPixelCNN(nn.Module):
    """Features of each group's predecessors in raster order: `[b, h, w, f]` to `[b, h, w, width]`.

    `grid` is (h, w) in groups, `features` = f the inputs per group, `width` the horizontal stack's channels,
    `blocks` its number of blocks and `reach` the groups that one of them sees.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        features: int,
        *,
        width: int,
        blocks: int,
        reach: int,
        levels: tuple[VerticalLevel, ...],
        cond_width: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width
        above = levels[0].width
        # + 1 input: a map of ones, so that the edge of the image is not taken for black pixels
        self.enter_above = CausalConv(features + 1, above, axis=2, reach=3, across=3)
        self.enter_left = CausalConv(features + 1, width, axis=3, reach=reach)
        self.place_above = nn.Parameter(torch.zeros(1, above, *grid))
        self.place_left = nn.Parameter(torch.zeros(1, width, *grid))
        self.vertical = VerticalStack(levels, cond_width, dropout)
        self.turn = nn.Conv2d(above, width, 1)
        self.horizontal = nn.ModuleList(
            GatedBlock(CausalConv(width, 2 * width, axis=3, reach=reach), width, cond_width, dropout)
            for _ in range(blocks)
        )
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Group features `[b, h, w, f]`, condition `[b, cond_width]` or None, to contexts `[b, h, w, width]`.

        The context at (i, j) depends on the groups of rows above i and on those left of j in row i.
        """
        x = _with_ones(x)
        (above,) = self.enter_above(F.pad(x, (0, 0, 1, 0))[:, :, :-1].contiguous(**_CHANNELS_LAST))
        (left,) = self.enter_left(F.pad(x, (1, 0))[..., :-1].contiguous(**_CHANNELS_LAST))
        above = self.vertical(above + self.place_above.to(above.dtype), cond)
        x = left + self.place_left.to(left.dtype) + self.turn(above)
        for block in self.horizontal:
            x = block(x, cond)
        return x.permute(0, 2, 3, 1)

    def stepper(self, x: Tensor, cond: Tensor | None) -> "GatedPixelCNNStepper":
        """Contexts one group at a time, read off features `x` `[b, h, w, f]` that the caller fills in as it goes."""
        return GatedPixelCNNStepper(self, x, cond)


class GatedPixelCNNStepper:
    """Walks over the groups in raster order; keeps each layer's latest rows and columns."""

    def __init__(self, net: GatedPixelCNN, x: Tensor, cond: Tensor | None) -> None:
        self.net, self.x, self.cond = net, x, cond
        self.rows: State = {}
        self.columns: State = {}
        self.start = torch.zeros_like(x)

    def context(self, i: int, j: int) -> Tensor:
        """The context `[b, width]` of group (i, j); to be called for every group, in raster order."""
        if j == 0:
            self._begin_row(i)
        left = _with_ones(self.x[:, i : i + 1, j - 1 : j]) if j else self._nothing(1)
        x = self.net.enter_left.step(left, self.columns) + self.from_above[..., j : j + 1]
        for block in self.net.horizontal:
            x = block.step(x, self.cond, self.columns)  # pyright: ignore[reportCallIssue]
        return x[..., 0, 0]

    def _begin_row(self, i: int) -> None:
        row = _with_ones(self.x[:, i - 1 : i]) if i else self._nothing(self.x.shape[2])
        above = self.net.enter_above.step(row, self.rows) + self.net.place_above[:, :, i : i + 1]
        above = self.net.vertical.step(above, i, self.cond, self.rows)
        self.from_above = self.net.turn(above) + self.net.place_left[:, :, i : i + 1]
        self.columns.clear()

    def _nothing(self, columns: int) -> Tensor:
        """Outside the image the ones are zeros, too."""
        return self.x.new_zeros(self.x.shape[0], self.x.shape[3] + 1, 1, columns)


_CHANNELS_LAST = {"memory_format": torch.channels_last}


def _with_ones(x: Tensor) -> Tensor:
    """`[b, h, w, f]` to `[b, f + 1, h, w]` with a last channel of ones."""
    return torch.cat([x, torch.ones_like(x[..., :1])], -1).permute(0, 3, 1, 2)
