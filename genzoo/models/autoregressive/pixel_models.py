"""Autoregressive pixel models: P(x) = prod_i P(x_i | x_1 .. x_{i-1}), exact, in raster order.

Pixels are taken in groups of `group` neighbours of a row (colours included). A causal backbone summarises the
groups before, a small masked head the sub-pixels before inside the group, and an output distribution turns
the head's parameters into probabilities of integers. Predicting a few pixels from one context keeps the order
and the exactness of the factorisation and makes the backbone that many times cheaper.

Backbones: gated PixelCNN (van den Oord et al. 2016) and a causal transformer (Chen et al. 2020).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import BelowOne, Depth, OptionalDepth, OptionalWidth, Width
from genzoo.core.config import Configurable, TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss, evaluating
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.models.imputation import check_missing
from genzoo.nn.causal_transformer import CausalTransformer
from genzoo.nn.embeddings import CodeFeatures, Condition, ValueFeatures, condition_width
from genzoo.nn.gated_pixelcnn import GatedPixelCNN, VerticalLevel
from genzoo.nn.subpixel_head import SubpixelHead
from genzoo.objectives.pixels import OutputDistribution, output_distribution


@dataclass(frozen=True)
class HeadConfig(Configurable):
    """What stands between a group's context and the probability of its sub-pixels."""

    width: Width = 64
    """Hidden features per sub-pixel."""
    layers: OptionalDepth = 1
    """Residual layers."""
    bumps: OptionalWidth = 0
    """Soft indicators of a value beside the value itself, at the input of backbone and head."""
    code_width: OptionalWidth = 0
    """Features of a learned embedding for values that are codes without an order; 0 takes them as numbers."""
    output: str = "auto"
    """auto (follows the levels), bernoulli, categorical or logistics."""
    components: Width = 10
    """Components of the logistic mixture."""


@dataclass(frozen=True)
class PixelCNNConfig(ModelConfig):
    """Gated PixelCNN with a multi-resolution vertical stack."""

    group: Width = 2
    """Neighbouring pixels of a row that share a context."""
    width: Width = 64
    """Channels of the horizontal stack."""
    blocks: OptionalDepth = 5
    """Gated blocks of the horizontal stack."""
    reach: Width = 3
    """Groups that a horizontal block sees, the present one included."""
    vertical: tuple[Width, ...] = (64, 96, 128)
    """Channels of the vertical stack, one entry per resolution, halving the height each time."""
    vertical_blocks: OptionalDepth = 1
    """Gated blocks per resolution, on the way down and again on the way up."""
    dropout: BelowOne = 0.0
    """Dropout inside the gated blocks."""
    head: HeadConfig = field(default_factory=HeadConfig)
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "AutoregressiveModel":
        """Fewer resolutions where the image is too low to be halved that often."""
        parts = _Parts(spec, self.group, self.head)
        height, columns = parts.groups.grid
        depth = max(1, min(len(self.vertical), height.bit_length() - 1))
        levels = tuple(
            VerticalLevel(
                width, self.vertical_blocks, halve_width=columns >> n >= height >> n and columns > 1
            )
            for n, width in enumerate(self.vertical[:depth])
        )
        backbone = GatedPixelCNN(
            (height, columns),
            parts.group_features,
            width=self.width,
            blocks=self.blocks,
            reach=self.reach,
            levels=levels,
            cond_width=condition_width(spec),
            dropout=self.dropout,
        )
        return AutoregressiveModel(spec, self, parts, backbone)


@dataclass(frozen=True)
class PixelTransformerConfig(ModelConfig):
    """Causal transformer over groups of pixels in raster order."""

    group: Width = 4
    """Neighbouring pixels of a row that make one token."""
    width: Width = 128
    """Features per token."""
    blocks: OptionalDepth = 4
    """Transformer blocks."""
    head_width: Width = 64
    """Features per attention head."""
    expansion: Depth = 3
    """Hidden features of a block's perceptron per feature."""
    dropout: BelowOne = 0.0
    """Dropout on the residual branches."""
    head: HeadConfig = field(default_factory=HeadConfig)
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "AutoregressiveModel":
        """Tokens of `group` pixels; narrower at the right edge where the width does not divide."""
        parts = _Parts(spec, self.group, self.head)
        backbone = CausalTransformer(
            parts.groups.grid,
            parts.group_features,
            width=self.width,
            blocks=self.blocks,
            head_width=self.head_width,
            expansion=self.expansion,
            cond_width=condition_width(spec),
            dropout=self.dropout,
        )
        return AutoregressiveModel(spec, self, parts, backbone)


class PixelGroups:
    """Images `[b, c, h, w]` as groups `[b, h, columns, s]` of s = `size` * c sub-pixels and back.

    In a group pixels come from left to right and a pixel's colours follow each other. The last column is
    padded with zeros; `inside` `[columns, s]` tells which sub-pixels are the image's own and charged.
    """

    def __init__(self, shape: tuple[int, ...], size: int) -> None:
        self.channels, self.height, self.width = shape
        self.size = min(size, self.width)
        self.columns = -(-self.width // self.size)
        self.grid = (self.height, self.columns)
        self.subpixels = self.size * self.channels
        column = torch.arange(self.columns * self.size) < self.width
        self.inside = column.repeat_interleave(self.channels).view(self.columns, self.subpixels)

    def fold(self, images: Tensor) -> Tensor:
        """`[b, c, h, w]` to `[b, h, columns, s]`."""
        padded = F.pad(images, (0, self.columns * self.size - self.width))
        return rearrange(padded, "b c h (w k) -> b h w (k c)", k=self.size)

    def unfold(self, groups: Tensor) -> Tensor:
        """`[b, h, columns, s]` to `[b, c, h, w]`."""
        return rearrange(groups, "b h w (k c) -> b c h (w k)", k=self.size)[..., : self.width]


class _Parts(nn.Module):
    """What both backbones need around them: grouping, value features, head and output distribution."""

    def __init__(self, spec: DataSpec, group: int, head: HeadConfig) -> None:
        super().__init__()
        if spec.levels is None:
            raise GenzooError(
                "an autoregressive pixel model needs integer images, these data are real-valued"
            )
        self.groups = PixelGroups(spec.shape, group)
        self.features = (
            CodeFeatures(spec.levels, head.code_width)
            if head.code_width
            else ValueFeatures(spec.levels, head.bumps)
        )
        self.distribution: OutputDistribution = output_distribution(head.output, spec, head.components)
        self.head_config = head

    @property
    def group_features(self) -> int:
        return self.groups.subpixels * self.features.size

    def head(self, width_in: int) -> SubpixelHead:
        c, s = self.head_config, self.groups.subpixels
        n_params = self.distribution.n_params
        return SubpixelHead(width_in, s, self.features.size, n_params, width=c.width, layers=c.layers)


class AutoregressiveModel(GenerativeModel):
    """A causal backbone, a sub-pixel head and an output distribution; exact likelihood, cached sampling."""

    loss_unit = "nats"
    no_mean = "it draws each pixel given those before it, so that there is no image to take the mean of without draws"

    def __init__(
        self, spec: DataSpec, config: ModelConfig, parts: _Parts, backbone: GatedPixelCNN | CausalTransformer
    ) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.groups, self.features, self.distribution = parts.groups, parts.features, parts.distribution
        self.condition = Condition(spec)
        self.backbone = backbone
        self.head = parts.head(backbone.width)
        self.chunk = 64
        """Images per forward pass of `log_likelihood`."""

    @property
    def likelihood(self) -> LikelihoodKind:
        """The chain rule over a normalised distribution per sub-pixel is exact."""
        return LikelihoodKind.EXACT

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """-log P(x | cond) in nats per image `[b]`."""
        self.parameters_of(turn)
        nats = -self._log_prob(
            check_images(batch.images, self.spec), self.condition(batch.cond, len(batch.images))
        )
        return Loss(nats, {"nll": nats})

    def _log_prob(self, images: Tensor, cond: Tensor | None) -> Tensor:
        groups = self.groups.fold(images.long())
        x = self.features(groups).flatten(-2)
        params = self.head(self.backbone(x, cond), x)
        log_probs = self.distribution.log_prob(params, groups)  # [b, h, columns, s]
        return log_probs.masked_fill(~self.groups.inside.to(groups.device), 0).sum((1, 2, 3))

    # --- sample --------------------------------------------------------------------------------------------

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Exact samples `[n, c, h, w]`, group after group, with cached activations."""
        cond = self.condition.or_drawn(cond, n, generator)
        blank = torch.zeros(n, *self.spec.shape, dtype=torch.long)
        return self._fill_in(blank, torch.ones_like(blank, dtype=torch.bool), cond, generator)

    def impute(
        self,
        images: Tensor,
        missing: Tensor,
        cond: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`images` `[n, c, h, w]` with the pixels where `missing` (bool, broadcastable) is True drawn anew.

        Pixels are drawn in raster order, each given those before it, known or drawn; known pixels that come
        later are kept, but do not influence the ones before them.
        """
        missing = check_missing(missing, images)
        return self._fill_in(check_images(images, self.spec).long(), missing, cond, generator)

    def _fill_in(
        self, images: Tensor, missing: Tensor, cond: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        with evaluating(self):
            groups = self.groups.fold(images.to(self.device)).clone(memory_format=torch.contiguous_format)
            missing = self.groups.fold(missing.to(self.device))
            x = self.features(groups)  # [n, h, columns, s, f], kept in step with `groups`
            stepper = self.backbone.stepper(x.flatten(-2), self.condition(cond, len(x)))
            for i, j in self._raster():
                self._fill_group(
                    groups[:, i, j], x[:, i, j], missing[:, i, j], stepper.context(i, j), generator
                )
            images = self.groups.unfold(groups)
        return images.to(torch.uint8) if self.distribution.levels <= 256 else images

    def _fill_group(
        self,
        group: Tensor,
        x: Tensor,
        missing: Tensor,
        context: Tensor,
        generator: torch.Generator | None,
    ) -> None:
        """Draws the sub-pixels of one group in order: `group`, `missing` `[n, s]` and `x` `[n, s, f]` in place."""
        for s in missing.any(0).nonzero()[:, 0].tolist():
            params = self.head(context, x.flatten(-2))[:, s]
            drawn = self.distribution.sample(params, generator=generator)
            group[:, s] = torch.where(missing[:, s], drawn, group[:, s])
            x[:, s] = self.features(group[:, s])

    def _raster(self) -> Iterator[tuple[int, int]]:
        height, columns = self.groups.grid
        return ((i, j) for i in range(height) for j in range(columns))

    # --- likelihood ----------------------------------------------------------------------------------------

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """Exact log P(images | cond) in nats; without `cond` a class-conditional model sums over its classes."""
        check_images(images, self.spec)
        with evaluating(self):
            if cond is None and self.spec.cond == "class":
                classes = torch.arange(self.spec.cond_size)
                each = [self._chunked(images, c.expand(len(images))) for c in classes]
                nats = torch.stack(each).logsumexp(0) - torch.tensor(float(len(classes))).double().log()
            else:
                nats = self._chunked(images, cond)
        details = {"conditional": cond is not None, "order": "raster"}
        return LogLikelihood(nats, self.likelihood, self.spec, details=details)

    def _chunked(self, images: Tensor, cond: Tensor | None) -> Tensor:
        nats = []
        embedded = self.condition(cond, len(images))
        for start in range(0, len(images), self.chunk):
            part = slice(start, start + self.chunk)
            of_part = None if embedded is None else embedded[part]
            nats.append(self._log_prob(images[part].to(self.device), of_part).double().cpu())
        return torch.cat(nats) if nats else torch.zeros(0, dtype=torch.float64)
