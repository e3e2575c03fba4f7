"""A model conditioned on vectors together with a model of the vectors: it draws with and without a vector.

    c ~ prior,  x ~ model given c           (Li, Katabi & He 2024, "Return of Unconditional Generation", RCG)

The vectors are an encoder's, say; the prior is a small flow over them. Both learn in one run, each in turns of its own;
neither sees anything of the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.models.diffusion.denoising_model import DiffusionConfig
from genzoo.nn.embeddings import check_condition
from genzoo.nn.mlp import MLPConfig
from genzoo.objectives.denoising.paths import Linear, VelocityTarget
from genzoo.objectives.denoising.times import LogitNormal
from genzoo.objectives.likelihood.divergence import ExactIfSmall
from genzoo.objectives.likelihood.ode import DormandPrince, OdeProtocol

PRIOR = "prior"


def flow_of_vectors(network: MLPConfig) -> DiffusionConfig:
    """Straight paths from noise to real-valued vectors."""
    protocol = OdeProtocol(solver=DormandPrince(1e-4), divergence=ExactIfSmall())
    return DiffusionConfig(
        path=Linear(), target=VelocityTarget(), times=LogitNormal(), network=network, protocol=protocol
    )


@dataclass(frozen=True)
class WithPriorConfig(ModelConfig):
    """What is drawn given a vector, and what draws the vector."""

    generator: ModelConfig
    """Any model that takes vectors as its condition; its `training` is that of the whole."""
    prior: DiffusionConfig = field(default_factory=lambda: flow_of_vectors(MLPConfig()))
    """Of real-valued vectors."""

    @property
    def training(self) -> TrainConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The generator's."""
        return self.generator.training

    def build(self, spec: DataSpec) -> "WithPrior":
        """Raises `GenzooError` for data without vectors."""
        if spec.cond != "vector":
            raise GenzooError("a prior is learnt of condition vectors: give --cond encoder:RUN")
        return WithPrior(
            spec, self, self.generator.build(spec), self.prior.build(DataSpec((spec.cond_size,), None))
        )


class WithPrior(GenerativeModel):
    """`generator` and a `prior` over its condition; what the generator is asked, given a vector, it answers itself."""

    config: WithPriorConfig

    def __init__(
        self, spec: DataSpec, config: WithPriorConfig, generator: GenerativeModel, prior: GenerativeModel
    ) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.generator, self.prior = generator, prior
        self.turns = (PRIOR, *generator.turns)
        self.watched = generator.watched
        self.no_mean = generator.no_mean

    @property
    def likelihood(self) -> LikelihoodKind:
        """The generator's, given a vector."""
        return self.generator.likelihood

    @property
    def decoder_part(self) -> GenerativeModel | None:
        """The generator's."""
        return self.generator.decoder_part

    def parameters_of(self, turn: str) -> Iterator[nn.Parameter]:
        """The prior's, or those of the generator's turn."""
        return self.prior.parameters() if turn == PRIOR else self.generator.parameters_of(turn)

    def span_of(self, turn: str) -> tuple[float, float]:
        """The prior plays all the time, the generator as it does alone."""
        return (0.0, 1.0) if turn == PRIOR else self.generator.span_of(turn)

    def loss(self, batch: Batch, turn: str = PRIOR, *, generator: torch.Generator | None = None) -> Loss:
        """The prior's loss on the vectors, or the generator's on the images given them, `[b]`."""
        self.parameters_of(turn)
        self.generator.progress = self.prior.progress = self.progress
        if turn != PRIOR:
            return self.generator.loss(batch, turn, generator=generator)
        vectors = check_condition(batch.cond, self.spec, len(batch.images))
        assert vectors is not None
        return self.prior.loss(Batch(vectors), generator=generator)

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images `[n, *spec.shape]`: of the given vectors, or of vectors drawn from the prior."""
        vectors = self.prior.sample(n, generator=generator) if cond is None else cond
        return self.generator.sample(n, vectors, generator=generator)

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """log P(images | cond) of the generator. Without vectors it would be an integral over all of them: refused."""
        return self.generator.log_likelihood(images, cond, generator=generator)
