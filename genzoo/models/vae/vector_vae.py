"""Variational autoencoder: P(x) = int P(x|z) p(z) dz, with one vector z of latents per image.

    loss            -E_q(z|x)[log P(x|z)] + weighted KL(q(z|x) || p(z))      (Kingma & Welling 2014, equation 3)
    log_likelihood  E log 1/K sum_k P(x|z_k) p(z_k) / q(z_k|x)               (Burda et al. 2016, equation 8)

q is a diagonal Gaussian from a convolutional encoder, P(x|z) an output distribution per sub-pixel from its
mirror. p is a learned mixture of Gaussians, one normal, or a VampPrior (Tomczak & Welling 2018). How the KL
is weighted in training is an object of the configuration: beta-VAE, warm-up, free bits and so on are rows of
data. Classes and vectors enter encoder, decoder and prior.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.bounds import BelowOne, OptionalDepth, OptionalWidth, Positive, Share, Width
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.passes import decodings_per_pass, slices
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss, evaluating
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.models.imputation import LatentChain, check_missing, metropolis_within_gibbs
from genzoo.nn.embeddings import Condition, condition_width
from genzoo.nn.latent_paths import interpolate_linearly, interpolate_spherically, traverse
from genzoo.nn.latent_priors import VampPrior, gaussian_prior
from genzoo.nn.vae_nets import ImageDecoder, ImageEncoder, ScaledImages, Stages
from genzoo.objectives.elbo import (
    ACTIVE,
    DiagonalGaussian,
    DiagonalMixture,
    ImportanceBound,
    KLWeighting,
    WarmUp,
    activity,
    importance_weighted_bound,
    kl_to_mixture,
)
from genzoo.objectives.pixels import DiscretisedGaussian, OutputDistribution, as_images, output_distribution


@dataclass(frozen=True)
class VAEConfig(ModelConfig):
    """Convolutional VAE: residual blocks at half, quarter ... of the resolution around a vector of latents."""

    latent_dim: Width = 40
    """Numbers in the latent vector."""
    channels: tuple[Width, ...] = (32, 96)
    """Channels per resolution, the first at half of the image's."""
    blocks: OptionalDepth = 2
    """Residual blocks per resolution, in the encoder and again in the decoder."""
    dropout: BelowOne = 0.0
    """Dropout inside the residual blocks."""
    prior_components: OptionalWidth = 128
    """Gaussians in the learned prior; 0: a normal prior, which follows the condition if there is one."""
    pseudo_inputs: OptionalWidth = 0
    """Above 0 a VampPrior of so many components takes the mixture's place."""
    output: str = "auto"
    """auto (follows the levels), bernoulli, categorical, logistics, gaussian, sigma (Gaussian with one learned
    scale for all pixels) or mse (Gaussian of fixed scale: trains on squared errors)."""
    components: Width = 10
    """Components of the logistic mixture."""
    mse_scale: Positive = 0.1
    """Standard deviation of output mse, where the range of an image is 2."""
    importance_samples: Width = 1
    """Latents per image at the end of training; from 2 on the objective there is the IWAE bound."""
    importance_from: Share = 0.75
    """Share of the run after which it is; before, the ELBO learns more per second."""
    kl: KLWeighting = field(default_factory=WarmUp)
    """How the KL is weighted in training."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "VAE":
        """Sides of any length are halved by rounding up, so every image size works."""
        if spec.levels is None:
            raise GenzooError("the vae needs integer images, these data are real-valued")
        if min(self.latent_dim, self.importance_samples, *self.channels) < 1 or not self.channels:
            raise GenzooError("a vae needs at least one latent, one width and one importance sample")
        stages = Stages(self.channels, self.blocks, condition_width(spec), self.dropout)
        distribution, shared = self._distribution(spec), 1 if self.output == "sigma" else 0
        own = distribution.n_params - shared
        encoder = ImageEncoder(spec.shape, self.latent_dim, stages)
        decoder = ImageDecoder(spec.shape, self.latent_dim, own, stages, shared=shared)
        parts = VAEParts(ScaledImages(spec.levels), encoder, decoder, self._prior(spec), distribution)
        return VAE(spec, self, parts)

    def _distribution(self, spec: DataSpec) -> OutputDistribution:
        assert spec.levels is not None
        if self.output == "mse":
            return DiscretisedGaussian(spec.levels, scale=self.mse_scale)
        name = "gaussian" if self.output == "sigma" else self.output
        return output_distribution(name, spec, self.components)

    def _prior(self, spec: DataSpec) -> nn.Module:
        cond_width = condition_width(spec)
        if self.pseudo_inputs:
            return VampPrior(spec.shape, self.pseudo_inputs, cond_width)
        return gaussian_prior(self.latent_dim, self.prior_components, cond_width)


@dataclass(frozen=True)
class VAEParts:
    """What a VAE is made of; any of it can be replaced.

    `features` turns images into what `encoder(features, cond)` turns into means and log-scales `[b, d]`;
    `decoder(z, cond)` gives parameters `[b, *shape, p]` of `distribution`; `prior(cond, encode)` gives the
    components of a Gaussian mixture (see `latent_priors`). `cond` is the embedded condition `[b, 64]` or None.
    """

    features: nn.Module
    encoder: nn.Module
    decoder: nn.Module
    prior: nn.Module
    distribution: OutputDistribution


class VAE(GenerativeModel):
    """Encoder, decoder, prior and output distribution; a lower bound on the likelihood."""

    config: VAEConfig
    loss_unit = "nats"

    def __init__(self, spec: DataSpec, config: VAEConfig, parts: VAEParts) -> None:
        super().__init__()
        self.spec, self.config, self.distribution = spec, config, parts.distribution
        if config.importance_samples > 1 and not config.kl.linear:
            kind = type(config.kl).__name__
            raise GenzooError(f"{kind} does not go with importance_samples > 1: use WarmUp or ConstantBeta")
        self.features, self.encoder, self.decoder = parts.features, parts.encoder, parts.decoder
        self.prior = parts.prior
        self.condition = Condition(spec)
        self.samples = 64
        """K, the latents per image of `log_likelihood`."""
        per_image = spec.dims * parts.distribution.n_params
        self.chunk = decodings_per_pass(per_image)
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

        In evaluation mode bound and weighting are those of the end of a run, so that validation losses compare.
        Parts: `reconstruction`, -log P(x|z), and `kl`, unweighted.
        """
        self.parameters_of(turn)
        images = check_images(batch.images, self.spec)
        cond, progress = self.condition(batch.cond, len(images)), self.progress if self.training else 1.0
        k = self.config.importance_samples if progress >= self.config.importance_from else 1
        q, p = self._posterior(images, cond), self._prior(cond)
        z = q.repeated(k).sample(generator)
        reconstruction = self._log_prob(images, z, cond, k)
        kl = kl_to_mixture(q, p, z) if k == 1 else self._log_ratio(z, q, p, k)
        log_weights = reconstruction - self.config.kl(kl[:, None], progress)
        total = -importance_weighted_bound(log_weights.view(k, -1))
        parts = {"reconstruction": -reconstruction, "kl": kl}
        return Loss(total, {name: part.view(k, -1).mean(0) for name, part in parts.items()})

    def _log_prob(self, images: Tensor, z: Tensor, cond: Tensor | None, k: int) -> Tensor:
        """log P(x|z) `[k * b]` of `images` `[b, ...]` under k latents each, `z` `[k * b, d]`."""
        params = self.decoder(z, None if cond is None else cond.repeat(k, 1))
        return self.distribution.log_prob(params, images.repeat(k, 1, 1, 1)).flatten(1).sum(1)

    def _log_ratio(self, z: Tensor, q: DiagonalGaussian, p: DiagonalMixture, k: int) -> Tensor:
        """log q(z|x) - log p(z) `[k * b]`."""
        return q.repeated(k).log_prob(z) - p.repeated(k).log_prob(z)

    def _posterior(self, images: Tensor, cond: Tensor | None) -> DiagonalGaussian:
        return DiagonalGaussian(*self.encoder(self.features(images), cond))

    def _prior(self, cond: Tensor | None) -> DiagonalMixture:
        return DiagonalMixture(*self.prior(cond, self.encoder))

    # --- sample --------------------------------------------------------------------------------------------

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples `[n, c, h, w]`: z from the prior, then every sub-pixel drawn from P(x|z), or its mean."""
        cond = self.condition.or_drawn(cond, n, generator)
        with evaluating(self):
            embedded = self.condition(cond, n)
            z = self._prior(embedded).sample(n, generator)
            return self._images(z, embedded, lambda p: self._decoding.images(self.distribution, p, generator))

    def _images(self, z: Tensor, cond: Tensor | None, finish: Callable[[Tensor], Tensor]) -> Tensor:
        """Images from latents, chunk by chunk; `finish` turns parameters into values."""
        each = [
            finish(self.decoder(z[i], None if cond is None else cond[i])) for i in slices(len(z), self.chunk)
        ]
        return as_images(torch.cat(each) if each else torch.zeros(0, *self.spec.shape), self.spec.levels)

    # --- likelihood ----------------------------------------------------------------------------------------

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """The IWAE bound with K = `samples` latents, in nats, and its standard error by the delta method.

        Without `cond` a class-conditional model averages over its classes. `details` hold K and the means over
        the images of the ELBO and of its two terms: elbo = -(reconstruction + kl).
        """
        check_images(images, self.spec)
        with evaluating(self):
            if cond is None and self.spec.cond == "class":
                classes = torch.arange(self.spec.cond_size)
                each = [self._bound(images, c.expand(len(images)), generator) for c in classes]
                bound = ImportanceBound.over_classes(each)
            else:
                bound = self._bound(images, cond, generator)
        details = {"conditional": cond is not None, "K": self.samples, **bound.means()}
        return LogLikelihood(bound.nats, self.likelihood, self.spec, stderr=bound.stderr, details=details)

    def _bound(
        self, images: Tensor, cond: Tensor | None, generator: torch.Generator | None
    ) -> ImportanceBound:
        embedded = self.condition(cond, len(images))
        p = self._prior(embedded)
        each = []
        for part in slices(len(images), max(1, self.chunk // self.samples)):
            of_part = None if embedded is None else embedded[part]
            each.append(self._bound_of_few(images[part].to(self.device), of_part, p.rows(part), generator))
        return ImportanceBound.cat(each)

    def _bound_of_few(
        self, images: Tensor, cond: Tensor | None, p: DiagonalMixture, generator: torch.Generator | None
    ) -> ImportanceBound:
        q, reconstruction, log_ratio = self._posterior(images, cond), [], []
        for part in slices(self.samples, self.chunk):
            k = part.stop - part.start
            z = q.repeated(k).sample(generator)
            reconstruction.append(self._log_prob(images, z, cond, k).view(k, -1))
            log_ratio.append(self._log_ratio(z, q, p, k).view(k, -1))
        return ImportanceBound.of(torch.cat(reconstruction).cpu(), torch.cat(log_ratio).cpu())

    # --- what else people do with a VAE ----------------------------------------------------------------------

    def encode(self, images: Tensor, cond: Tensor | None = None) -> DiagonalGaussian:
        """q(z|x) of `images` `[b, c, h, w]`: mean and log-scale `[b, latent_dim]`, differentiable."""
        check_images(images, self.spec)
        return self._posterior(images.to(self.device), self.condition(cond, len(images)))

    def decode(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Parameters `[b, c, h, w, p]` of `distribution` from latents `[b, latent_dim]`, differentiable."""
        return self.decoder(z.to(self.device), self.condition(cond, len(z)))

    def reconstruct(self, images: Tensor, cond: Tensor | None = None) -> Tensor:
        """The expected images, rounded, `[b, c, h, w]` at the posteriors' means."""
        with evaluating(self):
            return self._shown(self.encode(images, cond).mean, self.condition(cond, len(images)))

    def interpolate(
        self, x_0: Tensor, x_1: Tensor, n: int, cond: Tensor | None = None, *, spherical: bool = False
    ) -> Tensor:
        """`[b, n, c, h, w]`: expected images along the path from the latents of `x_0` to those of `x_1`."""
        with evaluating(self):
            z_0, z_1 = self.encode(x_0, cond).mean, self.encode(x_1, cond).mean
            path = interpolate_spherically if spherical else interpolate_linearly
            z, embedded = path(z_0, z_1, n), self.condition(cond, len(x_0))
            embedded = None if embedded is None else embedded.repeat_interleave(n, 0)
            return self._shown(z.flatten(0, 1), embedded).view(len(x_0), n, *self.spec.shape)

    def traversals(
        self, images: Tensor, cond: Tensor | None = None, *, most: int = 10, n: int = 9, span: float = 3.0
    ) -> Tensor:
        """`[m, n, c, h, w]`: the first image with one latent at a time moved from end to end.

        The ends are `span` standard deviations of the posterior means of `images` from their average. The
        m = min(`most`, latent_dim) most active latents are shown, the most active first.
        `genzoo.data.image_grid.save_grid(grid.flatten(0, 1), model.spec, path, columns=n)` writes a picture.
        """
        with evaluating(self):
            mean = self._means(images, cond)
            scale = mean.std(0, correction=0)
            dims = scale.argsort(descending=True, stable=True)[:most]
            steps = torch.linspace(-span, span, n, device=mean.device)
            z = traverse(mean[0], dims, mean.mean(0)[dims, None] + scale[dims, None] * steps)
            first = None if cond is None else self.condition(cond[:1], 1)
            first = None if first is None else first.expand(len(dims) * n, -1)
            return self._shown(z.flatten(0, 1), first).view(len(dims), n, *self.spec.shape)

    def _means(self, images: Tensor, cond: Tensor | None) -> Tensor:
        """Posterior means `[n, latent_dim]`, a bounded number of images at a time."""
        parts = slices(len(images), self.chunk)
        return torch.cat([self.encode(images[i], None if cond is None else cond[i]).mean for i in parts])

    def activity(self, images: Tensor, cond: Tensor | None = None) -> Tensor:
        """Variance over `images` of each latent's posterior mean `[latent_dim]`; above `elbo.ACTIVE` it is in use.

        Burda et al. 2016, section 5.2.
        """
        with evaluating(self):
            return activity(self._means(images, cond))

    def latent_figures(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """How many latents there are, and how many are active over `images`."""
        active = int((self.activity(images, cond) > ACTIVE).sum())
        return {"active_units": active, "latents": self.config.latent_dim}

    def latent_picture(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Traversals of the most active latents from the first image: `[latents shown, 9, c, h, w]`."""
        return self.traversals(images, cond)

    def impute(
        self,
        images: Tensor,
        missing: Tensor,
        cond: Tensor | None = None,
        *,
        sweeps: int = 50,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`images` `[b, c, h, w]` with the pixels where `missing` (bool, broadcastable) is True drawn anew.

        By Metropolis within Gibbs, see `genzoo.models.imputation`: the more `sweeps`, the closer to P(missing | known).
        """
        missing = check_missing(missing, images)
        check_images(images, self.spec)
        with evaluating(self):
            embedded, filled = self.condition(cond, len(images)), []
            for i in slices(len(images), self.chunk):
                of_part = None if embedded is None else embedded[i]
                x, gaps = images[i].to(self.device), missing[i].to(self.device)
                z = self._prior(of_part).sample(len(x), generator)
                chain = self._chain(of_part, generator)
                filled.append(metropolis_within_gibbs(chain, x, gaps, z, sweeps=sweeps, generator=generator))
        return torch.cat(filled) if filled else images

    def _chain(self, cond: Tensor | None, generator: torch.Generator | None) -> LatentChain:
        p = self._prior(cond)

        def draw(params: Tensor) -> Tensor:
            return as_images(self.distribution.sample(params, generator=generator), self.spec.levels)

        def propose(x: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
            q = self._posterior(x, cond)
            return q.sample(generator), lambda z, params: self._log_weight(x, z, params, q, p)

        return LatentChain(lambda z: self.decoder(z, cond), draw, propose)

    def _log_weight(
        self, x: Tensor, z: Tensor, params: Tensor, q: DiagonalGaussian, p: DiagonalMixture
    ) -> Tensor:
        """log P(x|z) p(z) / q(z|x) `[b]`."""
        reconstruction = self.distribution.log_prob(params, x).flatten(1).sum(1)
        return reconstruction + p.log_prob(z) - q.log_prob(z)

    def _shown(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return self._images(z, cond, self.distribution.mean)
