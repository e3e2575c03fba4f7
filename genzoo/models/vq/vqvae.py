"""VQ-VAE: an autoencoder whose latents are a small image of codes (van den Oord, Vinyals & Kavukcuoglu 2017).

    loss = -log P(x | z(x)) + commitment,    P(x) = sum_z P(z) P(x|z) >= P(z(x)) P(x | z(x))

z(x) is the encoder's code, P(x|z) an output distribution over integers, so the right-hand side is the length of
a two-part code: first the codes, then the image given them. `log_likelihood` adds the codes near z(x) to the sum.
On its own the model has a simple prior, independent positions with the frequencies seen in training (each class its
own, where the condition is one); a `LatentModel` (`genzoo.models.vq.latent_model`) puts any model of the
zoo in its place. Quantisers: a codebook or FSQ.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import OptionalDepth, OptionalMany, Width
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.passes import slices
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss, evaluating
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.nn.embeddings import Condition, ValueFeatures, check_condition, condition_width
from genzoo.nn.quantisers import Quantiser, QuantiserConfig
from genzoo.nn.resnet import ConvDecoder, ConvEncoder, halved
from genzoo.objectives.pixels import Categorical, OutputDistribution, as_images, output_distribution
from genzoo.objectives.quantisation import code_shares, nearby_codes, perplexity, sum_over_codes, usage

FLOOR = 0.01
"""Share of the uniform distribution in the prior: a code never seen is unlikely, not impossible."""
PRIOR_DECAY = 0.99
"""Decay per step of the running frequencies of codes."""


@dataclass(frozen=True)
class VQVAEConfig(ModelConfig):
    """Convolutional encoder and decoder around a quantiser."""

    channels: tuple[Width, ...] = (64, 128)
    """Channels per resolution, each half the one before; small images use the last ones only."""
    blocks: OptionalDepth = 2
    """Residual blocks per resolution, in the encoder and again in the decoder."""
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    output: str = "auto"
    """auto (follows the levels), bernoulli, categorical or logistics."""
    components: Width = 5
    """Components of the logistic mixture."""
    neighbours: OptionalMany = 15
    """Codes beside the encoder's own that `log_likelihood` sums over."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "VQVAE":
        """Halves the image once per width, but not below about two codes a side."""
        if spec.levels is None:
            raise GenzooError("a VQ-VAE needs integer images, these data are real-valued")
        if not self.channels or self.neighbours < 0:
            raise GenzooError("a VQ-VAE needs at least one width and no negative number of neighbours")
        return VQVAE(
            spec, self, self.quantiser.build(), output_distribution(self.output, spec, self.components)
        )

    def stages(self, spec: DataSpec) -> tuple[int, ...]:
        """The widths that images of this size use."""
        depth = (max(spec.shape[1:]) // 2).bit_length() - 1
        return self.channels[-max(1, depth) :]


class VQVAE(GenerativeModel):
    """Encoder, quantiser, decoder and output distribution, with a prior of independent codes."""

    marginals: Tensor

    def __init__(
        self, spec: DataSpec, config: VQVAEConfig, quantiser: Quantiser, distribution: OutputDistribution
    ) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        widths, blocks, (channels, *size) = config.stages(spec), config.blocks, spec.shape
        cond_width = condition_width(spec)
        self.condition = Condition(spec)
        self.values = ValueFeatures(spec.levels or 0, 0)
        self.encoder = ConvEncoder(channels, widths, blocks, cond_width)
        self.to_code = nn.Conv2d(widths[-1], quantiser.width, 1)
        self.quantiser = quantiser
        self.from_code = nn.Conv2d(quantiser.width, widths[-1], 1)
        self.distribution = distribution
        out = channels * distribution.n_params
        self.decoder = ConvDecoder((size[0], size[1]), widths, blocks, out, cond_width)
        nn.init.zeros_(self.decoder.up[0].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.decoder.up[0].bias)  # pyright: ignore[reportArgumentType]
        self.grid = halved((size[0], size[1]), len(widths))
        tables = (spec.cond_size,) if spec.cond == "class" else ()
        uniform = torch.full((*tables, *self.grid, quantiser.codebook_size), 1 / quantiser.codebook_size)
        self.register_buffer("marginals", uniform)
        self.chunk = 256
        """Images, or images times codes, per forward pass of `sample` and `log_likelihood`."""
        self.neighbours = config.neighbours
        """Codes beside the encoder's own that `log_likelihood` sums over."""

    @property
    def decoder_part(self) -> GenerativeModel:
        """Itself."""
        return self

    @property
    def likelihood(self) -> LikelihoodKind:
        """A sum over some of the codes is a lower bound."""
        return LikelihoodKind.LOWER_BOUND

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """-log P(x | z(x)) plus the quantiser's loss `[b]`; in training mode the codes follow the features.

        Parts: `nll` and `rate` (-log P(z), nats) make the two-part code; `usage` (share of the codes that occur)
        and `perplexity` (codes in effective use) are those of the batch.
        """
        self.parameters_of(turn)
        return self.loss_and_params(batch, generator)[0]

    def loss_and_params(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Loss, Tensor]:
        """The loss, and the parameters `[b, c, h, w, n_params]` of P(x | z(x)), differentiable."""
        images = check_images(batch.images, self.spec)
        cond = self.condition(batch.cond, len(images))
        values, codes, commitment = self.quantiser(self._features(images, cond), generator)
        params = self._params(values, cond)
        nll = -self.distribution.log_prob(params, images.long()).sum((1, 2, 3))
        shares = code_shares(codes, self.quantiser.codebook_size)
        if self.training:
            self._count(codes, batch.cond)
        overall = shares.mean((0, 1))
        figures = {"usage": usage(overall), "perplexity": perplexity(overall)}
        parts = {"nll": nll, "rate": -self.log_prior(codes, batch.cond), "commitment": commitment}
        parts |= {name: value.expand(len(images)) for name, value in figures.items()}
        return Loss(nll + commitment, parts), params

    def _features(self, images: Tensor, cond: Tensor | None) -> Tensor:
        """Images `[b, c, h, w]` to what is quantised, `[b, width, h', w']`."""
        return self.to_code(F.silu(self.encoder(self.values(images)[..., 0], cond)))

    def _params(self, values: Tensor, cond: Tensor | None) -> Tensor:
        """Quantised features `[b, width, h', w']` to parameters `[b, c, h, w, n_params]`."""
        params = self.decoder(self.from_code(values), cond)
        return rearrange(params, "b (c p) h w -> b c h w p", p=self.distribution.n_params)

    # --- codes ---------------------------------------------------------------------------------------------

    def encode(self, images: Tensor, cond: Tensor | None = None) -> Tensor:
        """The codes of images `[n, c, h, w]`: long `[n, h', w']`."""
        check_images(images, self.spec)
        with evaluating(self):
            return self._by_chunk(
                lambda x, c: self.quantiser.encode(self._features(x, c)), images.to(self.device), cond
            )

    def decode(
        self, codes: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images `[n, c, h, w]` given codes long `[n, h', w']`: drawn from P(x|z), or its mean, as `decoding` says."""

        def draw(z: Tensor, c: Tensor | None) -> Tensor:
            params = self._params(self.quantiser.embed(z), c)
            return self._decoding.images(self.distribution, params, generator)

        with evaluating(self):
            images = self._by_chunk(draw, codes.to(self.device), cond)
        return as_images(images, self.spec.levels)

    def reconstruct(self, images: Tensor, cond: Tensor | None = None) -> Tensor:
        """The expected images, rounded, `[n, c, h, w]`, given the images' own codes."""
        return self._through_codes(images, cond, self.distribution.mean)

    def located(self, images: Tensor, cond: Tensor | None = None) -> Tensor:
        """As `reconstruct`, by the distribution's `location` in place of its mean: quick enough to train on."""
        return self._through_codes(images, cond, self.distribution.location)

    def _through_codes(
        self, images: Tensor, cond: Tensor | None, finish: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Integer images of what `finish` makes of the parameters, given the images' own codes."""

        def shown(x: Tensor, c: Tensor | None) -> Tensor:
            codes = self.quantiser.encode(self._features(x, c))
            return finish(self._params(self.quantiser.embed(codes), c))

        check_images(images, self.spec)
        with evaluating(self):
            return as_images(self._by_chunk(shown, images.to(self.device), cond), self.spec.levels)

    def latent_figures(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """How many codes there are, the share of them that `images` use, and how many are in effective use."""
        shares = code_shares(self.encode(images, cond), self.quantiser.codebook_size).mean((0, 1))
        figures = {"codebook_usage": usage(shares).item(), "codebook_perplexity": perplexity(shares).item()}
        return {"codes": self.quantiser.codebook_size, **figures}

    def nearby_codes(self, images: Tensor, cond: Tensor | None = None, *, count: int) -> Tensor:
        """The codes of images and those that differ in one position: long `[n, s, h', w']`, s <= 1 + count.

        Those come whose change the encoder's features favour most; the images' own codes are the first.
        """
        with evaluating(self):
            distances = self._by_chunk(
                lambda x, c: self.quantiser.distances(self._features(x, c)), images.to(self.device), cond
            )
        return nearby_codes(distances, count)

    def log_prior(self, codes: Tensor, cond: Tensor | None = None) -> Tensor:
        """log P(z | cond) in nats of codes long `[n, h', w']`: `[n]`. Of a condition only a class has a say."""
        check_condition(cond, self.spec, len(codes))
        rows, columns = (torch.arange(side, device=codes.device) for side in self.grid)
        places = (*self._table(cond, 2), rows[:, None], columns, codes)
        return self._smoothed(self.marginals[places]).log().sum((1, 2))

    def log_prob_given(self, codes: Tensor, images: Tensor, cond: Tensor | None = None) -> Tensor:
        """log P(x|z) in nats of each image `[n, c, h, w]` given each of its codes long `[n, s, h', w']`: `[n, s]`."""
        n, s = codes.shape[:2]
        images = images.to(self.device).long().repeat_interleave(s, 0)
        pairs = torch.arange(n * s, device=self.device)
        flat = codes.flatten(0, 1)

        def log_prob(rows: Tensor, c: Tensor | None) -> Tensor:
            params = self._params(self.quantiser.embed(flat[rows]), c)
            return self.distribution.log_prob(params, images[rows]).sum((1, 2, 3))

        with evaluating(self):
            cond = None if cond is None else cond.repeat_interleave(s, 0)
            return self._by_chunk(log_prob, pairs, cond).view(n, s)

    def _count(self, codes: Tensor, cond: Tensor | None) -> None:
        """Moves the prior's frequencies towards those of a batch; a class forgets as fast as its share of it says."""
        if self.spec.cond != "class" or cond is None:
            self.marginals.lerp_(
                code_shares(codes, self.quantiser.codebook_size).to(self.marginals), 1 - PRIOR_DECAY
            )
            return
        for label, count in zip(*(x.tolist() for x in cond.unique(return_counts=True)), strict=True):
            shares = code_shares(codes[cond == label], self.quantiser.codebook_size).to(self.marginals)
            self.marginals[label].lerp_(shares, 1 - PRIOR_DECAY ** (count * self.spec.cond_size / len(codes)))

    def _table(self, cond: Tensor | None, dims: int) -> tuple[Tensor, ...]:
        """What picks the frequencies of classes `cond` `[n]`, with `dims` axes more; nothing where all share them."""
        if self.spec.cond != "class" or cond is None:
            return ()
        return (cond.to(self.device).view(-1, *[1] * dims),)

    def _smoothed(self, shares: Tensor) -> Tensor:
        return (1 - FLOOR) * shares + FLOOR / self.quantiser.codebook_size

    def _by_chunk(
        self, function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, cond: Tensor | None
    ) -> Tensor:
        """`function` of `x` `[n, ...]` and the embedded condition, a bounded number of rows at a time."""
        embedded = self.condition(cond, len(x))
        parts = slices(max(len(x), 1), self.chunk)
        return torch.cat([function(x[p], None if embedded is None else embedded[p]) for p in parts])

    # --- sample --------------------------------------------------------------------------------------------

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Codes from the prior, then images `[n, c, h, w]` from P(x|z), see `decode`."""
        cond = self.condition.or_drawn(cond, n, generator)
        check_condition(cond, self.spec, n)
        prior, codes = Categorical(self.quantiser.codebook_size), []
        for start in range(0, max(n, 1), self.chunk):
            part = slice(start, min(start + self.chunk, n))
            shares = self.marginals[self._table(None if cond is None else cond[part], 0)]
            log_probs = self._smoothed(shares).log().expand(part.stop - part.start, -1, -1, -1)
            codes.append(prior.sample(log_probs, generator=generator))
        return self.decode(torch.cat(codes), cond, generator=generator)

    # --- likelihood ----------------------------------------------------------------------------------------

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """A lower bound on log P(images | cond) in nats: the log-sum over the encoder's code and its neighbours.

        Without `cond` a class-conditional model sums over its classes. Nothing is random here.
        """
        check_images(images, self.spec)
        if cond is None and self.spec.cond == "class":
            classes = torch.arange(self.spec.cond_size, device=images.device)
            each = torch.stack([self._bound(images, c.expand(len(images))) for c in classes])
            nats = each.logsumexp(0) - torch.tensor(float(len(classes))).double().log()
        else:
            nats = self._bound(images, check_condition(cond, self.spec, len(images)))
        details = {
            "conditional": cond is not None,
            "bound": "log-sum over codes",
            "codes": 1 + self.neighbours,
        }
        return LogLikelihood(nats, self.likelihood, self.spec, details=details)

    def two_part_code(self, images: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log P(z(x)) and log P(x | z(x)) in nats, float64 `[n]` each; their sum bounds log P(x) from below."""
        check_images(images, self.spec)
        codes = self.nearby_codes(images, cond, count=0)
        log_prior = self.log_prior(codes[:, 0], cond)
        log_prob = self.log_prob_given(codes, images, cond)[:, 0]
        return log_prior.double().cpu(), log_prob.double().cpu()

    def _bound(self, images: Tensor, cond: Tensor | None) -> Tensor:
        nats = [torch.zeros(0, dtype=torch.float64)]
        for part in slices(len(images), max(1, self.chunk // (1 + self.neighbours))):
            of_part = None if cond is None else cond[part]
            codes = self.nearby_codes(images[part], of_part, count=self.neighbours)
            of_codes = None if of_part is None else of_part.repeat_interleave(codes.shape[1], 0)
            log_prior = self.log_prior(codes.flatten(0, 1), of_codes).view(codes.shape[:2])
            log_prob = self.log_prob_given(codes, images[part], of_part)
            nats.append(sum_over_codes(log_prior.double(), log_prob.double()).cpu())
        return torch.cat(nats)


class VQTokenizer:
    """An autoencoder as a translator: images `[n, c, h, w]` to token images long `[n, 1, h', w']` and back.

    `spec` describes the tokens as data of their own. Raises `GenzooError` for a conditional autoencoder, whose
    tokens would mean something else under each condition.
    """

    def __init__(self, autoencoder: VQVAE) -> None:
        if autoencoder.spec.cond is not None:
            raise GenzooError("a tokenizer needs an unconditional autoencoder; condition the prior instead")
        self.autoencoder = autoencoder
        self.spec = DataSpec((1, *autoencoder.grid), levels=autoencoder.quantiser.codebook_size)

    def encode(self, images: Tensor) -> Tensor:
        """Integer images to tokens."""
        return self.autoencoder.encode(images)[:, None]

    def decode(self, tokens: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Tokens to images: see `VQVAE.decode`."""
        return self.autoencoder.decode(tokens[:, 0].long(), generator=generator)
