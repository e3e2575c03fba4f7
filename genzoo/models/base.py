"""The contracts of the zoo: generative models and encoders, which train, save and load alike.

A model assigns probability to *integer images as given*. Scaling, dequantisation and padding are the model's own
business and are accounted for inside it, so that log-likelihoods of all families can be compared.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import Self

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.path_arguments import path_of
from genzoo.core.spec import DataSpec
from genzoo.core.trainable import Monitor, RunContext, Trainable, TrainableConfig
from genzoo.data.split import Split
from genzoo.models.doors import DOORS
from genzoo.objectives.decoding import Decoding


class ZooModel(Trainable, ABC):
    """What generative models and encoders share: `fit` and `save`; and the checks of what their methods are given."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, door in DOORS.items():
            if name in vars(cls):
                setattr(cls, name, door(vars(cls)[name]))

    @final
    def fit(
        self,
        data: Split | Tensor | tuple[Tensor, Tensor],
        *,
        val: Split | Tensor | tuple[Tensor, Tensor] | None = None,
        minutes: float | None = None,
        steps: int | None = None,
        epochs: float | None = None,
        seed: int = 0,
        out: str | Path | None = None,
        progress: bool = True,
    ) -> Self:
        """Trains in place until the budget (exactly one of `minutes`, `steps`, `epochs`) is used up; returns self.

        `data` is a split, uint8 images `[n, c, h, w]`, or `(images, labels or vectors)`. With `val` the
        weights that did best on it are kept, where losses can be compared. With `out` the run is saved there as
        it goes, into a folder that is new, empty or was begun before. The hyper-parameters are `self.config.training`.

        Raises `genzoo.core.errors.Interrupted`, a `KeyboardInterrupt`, where Ctrl-C, SIGTERM or SIGHUP ended it
        early: it has saved then, and the model holds the best weights so far. Raises `GenzooError` where an argument
        cannot be, for a folder that holds anything else or that another process trains in, and as `Trainer.fit` does.
        """
        from genzoo.training.trainer import (  # late, as are monitors: who only samples need not wait
            Budget,
            Trainer,
        )

        budget = Budget(minutes=minutes, steps=steps, epochs=epochs)
        Trainer(self, budget, seed=seed, out=out, progress=progress).fit(data, val)
        return self

    @final
    def save(self, path: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` into the folder `path`, each atomically.

        A saved model or a run that lies there is replaced. Raises `GenzooError` for a folder that holds anything else,
        and for a model that its configuration does not rebuild: a network that was exchanged by hand belongs into a
        configuration that builds it (`genzoo.register`).
        """
        from genzoo.training.checkpoint import save_model  # late: who only samples need not wait

        save_model(self, path_of(path, "path"))


class GenerativeModel(ZooModel, ABC):
    """Every family of the zoo: `fit`, `sample`, `log_likelihood`, `save`; final classes fill in the abstract part."""

    config: "ModelConfig"
    deterministic: bool = False
    """Whether there is one sample for each condition: the model predicts."""
    no_mean: str = "its samples are not drawn from an output distribution given latents"
    """Why there are no mean images, of a family without a `decoder_part`."""
    _decoding: Decoding = Decoding.DRAW

    @property
    def takes_labels(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether it is conditioned on anything."""
        return self.spec.cond is not None

    @property
    def decoder_part(self) -> "GenerativeModel | None":
        """The model, or the one in it, that ends in an output distribution given latents; None where there is none."""
        return None

    @property
    def decoding(self) -> Decoding:
        """Whether `sample` draws from the output distribution of the decoder, as it does at first, or gives its mean.

        Set it to a `Decoding` or its name, "draw" or "mean"; it is not saved with the model. Setting "mean" raises
        `GenzooError` where there is no such distribution, and says why.
        """
        return Decoding.DRAW if self.decoder_part is None else self.decoder_part._decoding

    @decoding.setter
    def decoding(self, decoding: Decoding | str) -> None:
        chosen, part = Decoding.named(decoding), self.decoder_part
        if part is not None:
            part._decoding = chosen
        elif chosen is not Decoding.DRAW:
            raise GenzooError(
                f"decoding by the mean takes a decoder with an output distribution, and here is none: {self.no_mean}"
            )

    @property
    @abstractmethod
    def likelihood(self) -> LikelihoodKind:
        """The kind that `log_likelihood` will report, derived from the model's parts."""

    @abstractmethod
    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws `[n, *spec.shape]`: integers 0..levels-1 (uint8 up to 256 levels), float for real-valued data.

        `cond` is long `[n]` or float `[n, cond_size]`; a class-conditional model draws the classes
        uniformly where it is None.
        """

    @abstractmethod
    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """log P(images) `[n]` (given `cond`); raises `NoLikelihood` where the family has none.

        Without `cond` a class-conditional model gives the likelihood under uniformly drawn classes.
        """

    def monitors(self, run: RunContext) -> list[Monitor]:
        """Sample grids; and the modes that samples cover, where no likelihood tells of those left out."""
        from genzoo.models.monitors import Gallery, ModeCounter

        modes = [ModeCounter(run)] if counts_modes(self) else []
        return [*modes, Gallery(run)]


class Encoder(ZooModel, ABC):
    """The sister contract: images to vectors, for conditioning and for evaluation."""

    config: "EncoderConfig"
    width: int
    """Numbers in a vector."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Integer images `[n, c, h, w]` to float32 `[n, width]`, in evaluation mode and without gradients."""


@runtime_checkable
class SharesSpaceWithTexts(Protocol):
    """An encoder whose images and texts lie in one space."""

    shared_width: int
    """Numbers in a vector of that space."""

    def embed_images_shared(self, images: Tensor) -> Tensor:
        """Integer images `[n, c, h, w]` to unit vectors `[n, shared_width]`."""
        ...

    def embed_text(self, texts: list[str]) -> Tensor:
        """Texts to unit vectors `[n, shared_width]`."""
        ...


def counts_modes(model: GenerativeModel) -> bool:
    """Whether modes are worth counting: a likelihood would tell of those left out, given vectors leave none out."""
    return model.spec.cond != "vector" and model.likelihood is LikelihoodKind.NONE


@contextmanager
def decoded(model: GenerativeModel, decoding: Decoding) -> Iterator[None]:
    """Samples are decoded so inside, and as before afterwards; raises `GenzooError` where the model cannot."""
    before = model.decoding
    model.decoding = decoding
    try:
        yield
    finally:
        model.decoding = before


class ModelConfig(TrainableConfig, ABC):
    """Base of every family's configuration."""

    @abstractmethod
    def build(self, spec: DataSpec) -> GenerativeModel:
        """A model with random weights for data of this spec. Raises `GenzooError` where it cannot be built."""


class EncoderConfig(TrainableConfig, ABC):
    """Base of every encoder's configuration."""

    @abstractmethod
    def build(self, spec: DataSpec) -> Encoder:
        """An encoder with random weights for data of this spec. Raises `GenzooError` where it cannot be built."""
