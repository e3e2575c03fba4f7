"""Latent models: an autoencoder turns images into tokens, a second model learns the tokens.

    P(x) = sum_z P(z) P(x|z) >= sum_{z in S} P(z) P(x|z),    S: the encoder's code and its neighbours

The prior P(z) is any model of the zoo over the tokens' spec. One run trains both, one after the other: first the
autoencoder alone, then, with the autoencoder as it is by then, the prior on its tokens (the two stages of VQ-VAE,
van den Oord et al. 2017; with a transformer as in VQGAN, Esser et al. 2021). Either part may have several players.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss
from genzoo.models.autoregressive.pixel_models import HeadConfig, PixelTransformerConfig
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.models.vq.vqgan import VQGAN
from genzoo.models.vq.vqvae import VQVAE, VQTokenizer, VQVAEConfig
from genzoo.nn.embeddings import check_condition
from genzoo.objectives.quantisation import sum_over_codes

AUTOENCODER, PRIOR = "autoencoder", "prior"


def _token_transformer() -> PixelTransformerConfig:
    return PixelTransformerConfig(group=1, head=HeadConfig(code_width=32, output="categorical"))


@dataclass(frozen=True)
class LatentConfig(ModelConfig):
    """A VQ autoencoder and a causal transformer over its tokens; each part's own `training` is not used."""

    autoencoder: ModelConfig = field(default_factory=VQVAEConfig)
    """A VQ-VAE, or one with a discriminator (VQGAN)."""
    prior: PixelTransformerConfig = field(default_factory=_token_transformer)
    """Any model of integer images will do in a configuration; its flags are those of the transformer."""
    autoencoder_fraction: float = 0.5
    """Share of the training budget that trains the autoencoder; the rest trains the prior."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "LatentModel":
        """The autoencoder is unconditional; the prior gets the condition."""
        autoencoder = self.autoencoder.build(DataSpec(spec.shape, spec.levels))
        if not isinstance(autoencoder, (VQVAE, VQGAN)):
            raise GenzooError(
                f"a latent model needs an autoencoder with codes, {type(autoencoder).__name__} has none"
            )
        tokens = VQTokenizer(codec_of(autoencoder)).spec
        prior = self.prior.build(DataSpec(tokens.shape, tokens.levels, spec.cond, spec.cond_size))
        return LatentModel(spec, self, autoencoder, prior)


def codec_of(autoencoder: VQVAE | VQGAN) -> VQVAE:
    """The part that codes images and judges them given their codes."""
    return autoencoder.autoencoder if isinstance(autoencoder, VQGAN) else autoencoder


class LatentModel(GenerativeModel):
    """`autoencoder` and a `prior` over its tokens; the prior's spec carries the condition.

    The autoencoder's turns come first, the prior's follow; the only turn of a part is named after the part. Raises
    `GenzooError` where the prior is none of the autoencoder's tokens, or the share of the autoencoder leaves one of
    them no budget.
    """

    def __init__(
        self, spec: DataSpec, config: LatentConfig, autoencoder: VQVAE | VQGAN, prior: GenerativeModel
    ) -> None:
        super().__init__()
        tokens = VQTokenizer(codec_of(autoencoder)).spec
        if (prior.spec.shape, prior.spec.levels) != (tokens.shape, tokens.levels):
            raise GenzooError(
                f"the prior is made for {prior.spec}, but the autoencoder's tokens are {tokens.shape} "
                f"with {tokens.levels} levels"
            )
        if not 0 < config.autoencoder_fraction < 1:
            raise GenzooError(
                f"autoencoder_fraction must lie between 0 and 1, got {config.autoencoder_fraction}"
            )
        self.spec, self.config, self.autoencoder_fraction = spec, config, config.autoencoder_fraction
        self.autoencoder, self.prior = autoencoder, prior
        self._players = _players(AUTOENCODER, autoencoder.turns) | _players(PRIOR, prior.turns)
        self.turns = tuple(self._players)
        self.watched = tuple(f"{AUTOENCODER} {name}" for name in autoencoder.watched)

    @property
    def codec(self) -> VQVAE:
        """What codes images and judges them given their codes."""
        return codec_of(self.autoencoder)

    @property
    def tokenizer(self) -> VQTokenizer:
        """The autoencoder as a translator between images and tokens."""
        return VQTokenizer(self.codec)

    @property
    def likelihood(self) -> LikelihoodKind:
        """The lesser kind of the parts."""
        return min(self.codec.likelihood, self.prior.likelihood)

    @property
    def decoder_part(self) -> GenerativeModel:
        """What codes images; the prior's tokens are drawn in any case."""
        return self.codec

    def parameters_of(self, turn: str) -> Iterator[nn.Parameter]:
        """Those of the player in its part."""
        stage, own = self._player(turn)
        return self._part(stage).parameters_of(own)

    def span_of(self, turn: str) -> tuple[float, float]:
        """The autoencoder has the first `autoencoder_fraction` of the budget, the prior the rest.

        A player's own span is laid over that of its part.
        """
        stage, own = self._player(turn)
        start, end = self._span(stage)
        first, last = self._part(stage).span_of(own)
        return start * (1 - first) + end * first, start * (1 - last) + end * last

    def _player(self, turn: str) -> tuple[str, str]:
        """The part, and the turn's name there."""
        if turn not in self._players:
            raise ValueError(f"unknown turn {turn!r}, this model has {self.turns}")
        return self._players[turn]

    def _part(self, stage: str) -> GenerativeModel:
        return self.autoencoder if stage == AUTOENCODER else self.prior

    def _span(self, stage: str) -> tuple[float, float]:
        return (0.0, self.autoencoder_fraction) if stage == AUTOENCODER else (self.autoencoder_fraction, 1.0)

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(
        self, batch: Batch, turn: str = AUTOENCODER, *, generator: torch.Generator | None = None
    ) -> Loss:
        """The loss `[b]` of a player of the autoencoder, or of the prior on the tokens of the images.

        The turns of the prior leave the autoencoder as it is, its codebook included.
        """
        stage, own = self._player(turn)
        images = check_images(batch.images, self.spec)
        cond = check_condition(batch.cond, self.spec, len(images))
        start, end = self._span(stage)
        plays = start <= self.progress < end or self.progress >= 1.0 == end
        part = self._part(stage)
        part.progress = (self.progress - start) / (end - start) if plays else 1.0
        if stage == AUTOENCODER:
            return part.loss(Batch(images), own, generator=generator)
        return part.loss(Batch(self.tokenizer.encode(images), cond), own, generator=generator)

    # --- sample --------------------------------------------------------------------------------------------

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Tokens from the prior, then images `[n, c, h, w]` given them."""
        tokens = self.prior.sample(n, cond, generator=generator)
        return self.tokenizer.decode(tokens, generator=generator)

    # --- latents -------------------------------------------------------------------------------------------

    def latent_figures(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """Those of the autoencoder, which is unconditional."""
        return self.codec.latent_figures(images, generator=generator)

    def reconstruct(self, images: Tensor, cond: Tensor | None = None) -> Tensor:
        """What the autoencoder keeps of images: see there."""
        return self.codec.reconstruct(images)

    # --- likelihood ----------------------------------------------------------------------------------------

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """A lower bound on log P(images | cond) in nats: the log-sum over the encoder's codes and their neighbours.

        That takes an exact prior: a log-sum of random bounds on log P(z) would be no bound, so with any other
        prior the encoder's code stands alone. Raises `NoLikelihood` where the prior has none.
        """
        if self.prior.likelihood is LikelihoodKind.NONE:
            raise NoLikelihood("the prior over the tokens defines no probability, so the images have none")
        check_images(images, self.spec)
        if cond is not None or self.spec.cond == "vector":
            check_condition(cond, self.spec, len(images))
        exact = self.prior.likelihood is LikelihoodKind.EXACT
        neighbours = self.codec.neighbours if exact else 0
        nats, errors = [torch.zeros(0, dtype=torch.float64)], []
        size = max(1, self.codec.chunk // (1 + neighbours))
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            bound, error = self._bound(
                images[part], None if cond is None else cond[part], neighbours, generator
            )
            nats.append(bound)
            errors += [] if error is None else [error]
        details = {
            "conditional": cond is not None,
            "bound": "log-sum over codes",
            "codes": 1 + neighbours,
            "prior": self.prior.likelihood.name,
        }
        stderr = torch.cat(errors) if errors else None
        return LogLikelihood(torch.cat(nats), self.likelihood, self.spec, stderr, details)

    def _bound(
        self, images: Tensor, cond: Tensor | None, neighbours: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        """The bound `[n]` float64, and the standard error that comes from the prior."""
        codes = self.codec.nearby_codes(images, count=neighbours)
        n, s = codes.shape[:2]
        log_prob = self.codec.log_prob_given(codes, images).double().cpu()
        of_codes = None if cond is None else cond.repeat_interleave(s, 0)
        prior = self.prior.log_likelihood(codes.flatten(0, 1)[:, None], of_codes, generator=generator)
        return sum_over_codes(prior.nats.view(n, s).cpu(), log_prob), prior.stderr


def _players(stage: str, turns: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """The turns of a part by their names in the whole: with the part's name before them, if it is not all of it."""
    return {stage if turn == stage or len(turns) == 1 else f"{stage} {turn}": (stage, turn) for turn in turns}
