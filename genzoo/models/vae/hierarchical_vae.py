"""Hierarchical VAE: a latent vector z_1, then groups of latents z_2 .. z_G from coarse to fine.

    P(x) = int P(x|z) prod_g p(z_g | z_<g) dz,    q(z|x) = prod_g q(z_g | z_<g, x)
    loss            -E_q[log P(x|z)] + weighted sum_g KL(q(z_g | z_<g, x) || p(z_g | z_<g))
    log_likelihood  E log 1/K sum_k P(x|z_k) p(z_k) / q(z_k|x)               (Burda et al. 2016, equation 8)

Prior and posterior share the top-down pass (Sonderby et al. 2016, ladder VAE; Child 2021, VDVAE, equation 3);
all are diagonal Gaussians but the vector's prior, a learned mixture of them. The KL of a group is in closed form
given the latents before it, which are sampled; the vector's is estimated from its draw. The KL weighting sees
the groups apart, so free bits and balancing act on each. P(x|z) is an output distribution per sub-pixel. Classes
and vectors enter every residual block of encoder, prior and decoder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from genzoo.core.bounds import BelowOne, OptionalDepth, OptionalWidth, Width
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.passes import decodings_per_pass, slices
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss, evaluating
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.nn.embeddings import Condition, condition_width
from genzoo.nn.ladder import NARROWING, LadderOptions, Level, TopDown, TopPosterior
from genzoo.nn.latent_priors import gaussian_prior
from genzoo.nn.resnet import ConvEncoder
from genzoo.nn.vae_nets import ScaledImages
from genzoo.objectives.elbo import (
    ACTIVE,
    Balanced,
    DiagonalGaussian,
    DiagonalMixture,
    ImportanceBound,
    KLWeighting,
    activity,
    class_shares,
    gaussian_kl,
    kl_to_mixture,
    normal_noise,
    repeated,
)
from genzoo.objectives.pixels import as_images, output_distribution


@dataclass(frozen=True)
class HVAEConfig(ModelConfig):
    """Ladder of stochastic blocks; the tuples have an entry per resolution, half the image's first, then a quarter.

    Small images use the last entries only, so that no map is smaller than 2x2 but of the smallest images.
    """

    top: Width = 32
    """Numbers in the latent vector above the groups."""
    prior_components: OptionalWidth = 128
    """Gaussians in the vector's learned prior; 0: one normal, which follows the condition if there is one."""
    channels: tuple[Width, ...] = (32, 64, 96)
    """Channels."""
    latent_channels: tuple[Width, ...] = (2, 4, 8)
    """Channels of latents in each group."""
    groups: tuple[OptionalDepth, ...] = (1, 2, 2)
    """Groups of latents."""
    blocks: OptionalDepth = 1
    """Residual blocks per resolution of the encoder."""
    head: Width = 24
    """Channels at the image's own resolution, before its parameters."""
    residual_posterior: bool = True
    """Posteriors relative to their priors (NVAE)."""
    dropout: BelowOne = 0.0
    """Dropout inside the residual blocks."""
    output: str = "auto"
    """auto (follows the levels), bernoulli, categorical, logistics or gaussian."""
    components: Width = 10
    """Components of the logistic mixture."""
    kl: KLWeighting = field(default_factory=Balanced)
    """How the groups' KL is weighted in training."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "HVAE":
        """Sides of any length are halved by rounding up, so every image size works."""
        if spec.levels is None:
            raise GenzooError("the hvae needs integer images, these data are real-valued")
        if not len(self.channels) == len(self.latent_channels) == len(self.groups) >= 1:
            raise GenzooError(
                "channels, latent_channels and groups of an hvae must be equally long, an entry per resolution"
            )
        if min(*self.channels, *self.latent_channels, *self.groups, self.head, self.top) < 1:
            raise GenzooError("top, channels, latent_channels, groups and head of an hvae must be positive")
        return HVAE(spec, self, self.levels(spec))

    def levels(self, spec: DataSpec) -> tuple[Level, ...]:
        """The resolutions that images of this size use, the finest first: a 1x1 map would repeat the vector."""
        halvings = max(1, (max(spec.shape[1:]) - 1).bit_length() - 1)
        every = tuple(
            Level(*entry) for entry in zip(self.channels, self.latent_channels, self.groups, strict=True)
        )
        return every[-halvings:]


class LatentGroup(NamedTuple):
    """The latents of one group `[b, ...]`, drawn from `q` (None: from `p`), and its prior `p`."""

    z: Tensor
    q: DiagonalGaussian | None
    p: DiagonalGaussian | DiagonalMixture


class HVAE(GenerativeModel):
    """Bottom-up encoder, top-down decoder with groups of latents, output distribution; a lower bound."""

    config: HVAEConfig
    loss_unit = "nats"

    def __init__(self, spec: DataSpec, config: HVAEConfig, levels: tuple[Level, ...]) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        channels, height, width = spec.shape
        cond_width = condition_width(spec)
        options = LadderOptions(config.top, cond_width, config.dropout)
        self.distribution = output_distribution(config.output, spec, config.components)
        self.features = ScaledImages(spec.levels or 2)
        self.condition = Condition(spec)
        widths = tuple(level.width for level in levels)
        self.encoder = ConvEncoder(channels, widths, config.blocks, cond_width, config.dropout, NARROWING)
        out, residual = channels * self.distribution.n_params, config.residual_posterior
        self.decoder = TopDown((height, width), levels, out, config.head, options, residual=residual)
        self.top = TopPosterior(levels[-1].width, self.decoder.sizes[-1], options)
        self.prior = gaussian_prior(config.top, config.prior_components, cond_width)
        self.groups = 1 + sum(level.groups for level in levels)
        """G, the vector and the groups; everything per group lists the coarsest first."""
        self.samples = 64
        """K, the latents per image of `log_likelihood`."""
        self.chunk = decodings_per_pass(height * width * out)
        """Decodings per pass outside of training: bounds memory."""

    @property
    def decoder_part(self) -> GenerativeModel:
        """Itself."""
        return self

    @property
    def likelihood(self) -> LikelihoodKind:
        """An importance-weighted average is an unbiased estimate of P(x), its log below log P(x) on average."""
        return LikelihoodKind.LOWER_BOUND

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """Negative bound in nats per image `[b]`, its KL weighted as the run's progress wants it.

        In evaluation mode the weighting is that of the end of a run, so that validation losses compare.
        Parts: `reconstruction`, -log P(x|z), `kl`, unweighted, and `kl_1` .. `kl_G`, those of the groups.
        """
        self.parameters_of(turn)
        images = check_images(batch.images, self.spec)
        cond = self.condition(batch.cond, len(images))
        maps, groups = self._descend(len(images), self._seen(images, cond), cond, generator)
        reconstruction = -self._log_prob(maps, images)
        kl = torch.stack([_kl(group) for group in groups], 1)
        total = reconstruction + self.config.kl(kl, self.progress if self.training else 1.0)
        each = {f"kl_{g}": kl_g for g, kl_g in enumerate(kl.unbind(1), start=1)}
        return Loss(total, {"reconstruction": reconstruction, "kl": kl.sum(1), **each})

    def _descend(
        self,
        n: int,
        seen: list[Tensor] | None,
        cond: Tensor | None,
        generator: torch.Generator | None,
        informed: int | None = None,
    ) -> tuple[Tensor, list[LatentGroup]]:
        """Output maps of `n` images and all groups; `seen` and `informed` as in `TopDown.forward`."""
        p = DiagonalMixture(*self.prior(cond, self.top))
        knows = seen is not None and informed != 0
        q = DiagonalGaussian(*self.top(seen[-1], cond)) if knows and seen else None
        z = p.sample(n, generator) if q is None else q.sample(generator)
        below = None if informed is None else max(informed - 1, 0)
        maps, groups = self.decoder(
            z, seen, cond, informed=below, noise=lambda like: normal_noise(like, generator)
        )
        others = [LatentGroup(g.z, DiagonalGaussian(*g.q), DiagonalGaussian(*g.p)) for g in groups]
        return maps, [LatentGroup(z, q, p), *others]

    def _seen(self, images: Tensor, cond: Tensor | None) -> list[Tensor]:
        return self.encoder.maps(self.features(images), cond)

    def _params(self, maps: Tensor) -> Tensor:
        """`[b, c * p, h, w]` to parameters `[b, c, h, w, p]`."""
        return rearrange(maps, "b (c p) h w -> b c h w p", p=self.distribution.n_params)

    def _log_prob(self, maps: Tensor, images: Tensor) -> Tensor:
        return self.distribution.log_prob(self._params(maps), images.long()).sum((1, 2, 3))

    # --- sample --------------------------------------------------------------------------------------------

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples `[n, c, h, w]`: group after group from its prior, then sub-pixels drawn from P(x|z), or its mean."""
        cond = self.condition.or_drawn(cond, n, generator)
        with evaluating(self):
            embedded, drawn = self.condition(cond, n), []
            for i in slices(n, self.chunk):
                of_part = None if embedded is None else embedded[i]
                maps, _ = self._descend(i.stop - i.start, None, of_part, generator)
                drawn.append(self._decoding.images(self.distribution, self._params(maps), generator))
        return as_images(torch.cat(drawn) if drawn else torch.zeros(0, *self.spec.shape), self.spec.levels)

    # --- likelihood ----------------------------------------------------------------------------------------

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """The IWAE bound with K = `samples` latents, in nats, and its standard error by the delta method.

        Without `cond` a class-conditional model averages over its classes. `details` hold K and the means over
        the images of the ELBO, of its two terms, elbo = -(reconstruction + kl), and of the KL of each group; without
        `cond` the class counts as the first group.
        """
        check_images(images, self.spec)
        with evaluating(self):
            if cond is None and self.spec.cond == "class":
                classes = torch.arange(self.spec.cond_size)
                each = [self._bound(images, c.expand(len(images)), generator) for c in classes]
                bound = ImportanceBound.over_classes([b for b, _ in each])
                kl = _kl_over_classes([b for b, _ in each], torch.stack([kl for _, kl in each]))
            else:
                bound, kl = self._bound(images, cond, generator)
        details = {"conditional": cond is not None, "K": self.samples, **bound.means()}
        details["kl_per_group"] = kl.mean(0).tolist()
        return LogLikelihood(bound.nats, self.likelihood, self.spec, stderr=bound.stderr, details=details)

    def _bound(
        self, images: Tensor, cond: Tensor | None, generator: torch.Generator | None
    ) -> tuple[ImportanceBound, Tensor]:
        """The bound of each image, and the KL of its groups, float64 `[n, G]`."""
        embedded = self.condition(cond, len(images))
        bounds, kls = [], [torch.zeros(0, self.groups, dtype=torch.float64)]
        for part in slices(len(images), max(1, self.chunk // self.samples)):
            of_part = None if embedded is None else embedded[part]
            bound, kl = self._bound_of_few(images[part].to(self.device), of_part, generator)
            bounds.append(bound)
            kls.append(kl)
        return ImportanceBound.cat(bounds), torch.cat(kls)

    def _bound_of_few(
        self, images: Tensor, cond: Tensor | None, generator: torch.Generator | None
    ) -> tuple[ImportanceBound, Tensor]:
        seen, n = self._seen(images, cond), len(images)
        log_prob, log_ratio, kl = [], [], []
        for part in slices(self.samples, self.chunk):
            k = part.stop - part.start
            tiled = [repeated(x, k) for x in seen]
            of_part = None if cond is None else repeated(cond, k)
            maps, groups = self._descend(k * n, tiled, of_part, generator)
            log_prob.append(self._log_prob(maps, repeated(images, k)).view(k, n))
            log_ratio.append(torch.stack([_log_ratio(group) for group in groups]).sum(0).view(k, n))
            kl.append(torch.stack([_kl(group) for group in groups], 1).view(k, n, -1))
        mean_kl = torch.cat(kl).double().mean(0).cpu()
        return ImportanceBound.of(torch.cat(log_prob).cpu(), torch.cat(log_ratio).cpu()), mean_kl

    # --- what else people do with a VAE ----------------------------------------------------------------------

    def reconstruct(
        self,
        images: Tensor,
        cond: Tensor | None = None,
        *,
        informed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The expected images `[b, c, h, w]`, rounded, given latents drawn from the posterior.

        With `informed` only so many groups, the coarsest, know the image; the prior fills in the rest, which
        shows what each level of the hierarchy holds.
        """
        check_images(images, self.spec)
        with evaluating(self):
            embedded, shown = self.condition(cond, len(images)), []
            for i in slices(len(images), self.chunk):
                x, of_part = images[i].to(self.device), None if embedded is None else embedded[i]
                seen = self._seen(x, of_part)
                maps, _ = self._descend(len(x), seen, of_part, generator, informed)
                shown.append(self.distribution.mean(self._params(maps)))
        return as_images(torch.cat(shown) if shown else torch.zeros(0, *self.spec.shape), self.spec.levels)

    def latent_figures(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """How many latents there are and how many are active over `images`, in all and in each group."""
        with evaluating(self):
            embedded, shifts = self.condition(cond, len(images)), []
            for i in slices(len(images), self.chunk):
                of_part = None if embedded is None else embedded[i]
                seen = self._seen(images[i].to(self.device), of_part)
                _, groups = self._descend(len(seen[0]), seen, of_part, generator)
                shifts.append([_shift(group) for group in groups])
        moves = [activity(torch.cat(group)) for group in zip(*shifts, strict=True)]
        active = [int((move > ACTIVE).sum()) for move in moves]
        latents = sum(move.numel() for move in moves)
        return {"active_units": sum(active), "latents": latents, "active_units_per_group": active}

    def latent_picture(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """`[8, G + 2, c, h, w]`: images as the first 0 .. G groups know them, and the images themselves."""
        images, cond = images[:8], None if cond is None else cond[:8]
        stages = [
            self.reconstruct(images, cond, informed=g, generator=generator) for g in range(self.groups + 1)
        ]
        return torch.stack([*stages, images.to(stages[0])], 1)


def _kl_over_classes(each: Sequence[ImportanceBound], kl: Tensor) -> Tensor:
    """KL of q(y|x) to uniform classes and of the groups under q(y|x), `[n, 1 + G]`, from `kl` `[C, n, G]`."""
    shares = class_shares(each)  # [C, K, n]
    of_class = (torch.special.xlogy(shares, shares) + shares * math.log(len(each))).sum(0).mean(0)
    return torch.cat([of_class[:, None], (shares.mean(1)[..., None] * kl).sum(0)], 1)


def _kl(group: LatentGroup) -> Tensor:
    """KL(q || p) given the latents before the group, in nats `[b]`; 0 where z follows p."""
    z, q, p = group
    if q is None:
        return torch.zeros(len(z), device=z.device)
    return kl_to_mixture(q, p, z) if isinstance(p, DiagonalMixture) else gaussian_kl(q, p).flatten(1).sum(1)


def _log_ratio(group: LatentGroup) -> Tensor:
    """log q(z|x) - log p(z) `[b]`."""
    z, q, p = group
    return torch.zeros(len(z), device=z.device) if q is None else q.log_prob(z) - p.log_prob(z)


def _shift(group: LatentGroup) -> Tensor:
    """Posterior means `[b, ...]`, relative to the prior and in its scale where it depends on other latents."""
    _, q, p = group
    if q is None:
        return torch.zeros_like(group.z)
    return q.mean if isinstance(p, DiagonalMixture) else (q.mean - p.mean) * torch.exp(-p.log_scale)
