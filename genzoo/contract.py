"""The contract: what every model of the zoo takes, gives and promises.

A model assigns probability to *integer images as given*. Scaling, dequantisation and padding are the
model's own business and are accounted for inside it, so log-likelihoods of all families can be compared.
Shapes are written `[b, c, h, w]`; likelihoods are in nats unless a name says bits.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from typing_extensions import Self

if TYPE_CHECKING:
    from genzoo.config import EncoderConfig, ModelConfig, TrainableConfig
    from genzoo.data.split import Split


class GenzooError(Exception):
    """A mistake that a user can mend: the message is one line that says what was wrong and what to do."""


class NoLikelihood(GenzooError):
    """Raised by `log_likelihood` of a family that defines no probability of an image (a GAN, say)."""


class Likelihood(IntEnum):
    """How a reported log-likelihood relates to the true log P(x). Kinds of parts compose by `min`."""

    NONE = 0
    """No probability is defined; `log_likelihood` raises `NoLikelihood`."""
    ESTIMATE = 1
    """Numerical or Monte-Carlo, with no guaranteed direction."""
    LOWER_BOUND = 2
    """Its expectation is at most log P(x)."""
    EXACT = 3
    """log P(x) up to rounding."""

    def __str__(self) -> str:
        return self.name

    @property
    def symbol(self) -> str:
        """The relation printed between "bits/dim" and its figure: `=`, `<=` or `~`.

        >>> Likelihood.LOWER_BOUND.symbol
        '<='
        """
        return {0: "-", 1: "~", 2: "<=", 3: "="}[int(self)]


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of its data.

    `shape` is `(channels, height, width)` of an image, or any shape of real-valued data. `levels` is the
    number of values a sub-pixel takes (0 .. levels-1), or None for real-valued data. `cond` names what a
    model is conditioned on: None, "class" (`cond_size` classes) or "vector" (`cond_size` wide).

    >>> DataSpec((1, 8, 8), levels=17).dims
    64

    Raises `ValueError` where the parts contradict each other.
    """

    shape: tuple[int, ...]
    levels: int | None = 256
    cond: Literal["class", "vector"] | None = None
    cond_size: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(s) for s in self.shape))
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape must hold positive sizes, got {self.shape}")
        if self.levels is not None and len(self.shape) != 3:
            raise ValueError(f"discrete images have the shape (channels, height, width), got {self.shape}")
        if self.levels is not None and self.levels < 2:
            raise ValueError(f"levels must be at least 2 (or None for real-valued data), got {self.levels}")
        if self.cond not in (None, "class", "vector"):
            raise ValueError(f'cond must be None, "class" or "vector", got {self.cond!r}')
        if (self.cond is None) != (self.cond_size == 0):
            raise ValueError(f"cond={self.cond!r} does not go with cond_size={self.cond_size}")

    @property
    def dims(self) -> int:
        """D, the number of sub-pixels, unpadded."""
        return math.prod(self.shape)


class Batch(NamedTuple):
    """`images`: integers (uint8 or long) `[b, *shape]`, float for real-valued data.
    `cond`: long `[b]` classes, float `[b, cond_size]` vectors, or None."""

    images: Tensor
    cond: Tensor | None = None


class Loss(NamedTuple):
    """`total` `[b]` is what the trainer minimises the mean of; `parts`, each `[b]`, are logged only."""

    total: Tensor
    parts: dict[str, Tensor]


def bits_per_dim(nats: Tensor, spec: DataSpec) -> Tensor:
    """-nats / (D ln 2): the one place where nats of an image become bits per sub-pixel. `[b]` -> `[b]`.

    >>> uniform = torch.tensor([-64 * math.log(17)], dtype=torch.float64)
    >>> round(bits_per_dim(uniform, DataSpec((1, 8, 8), levels=17)).item(), 6), round(math.log2(17), 6)
    (4.087463, 4.087463)
    """
    return -nats.double() / (spec.dims * math.log(2))


@dataclass(frozen=True)
class LogLikelihood:
    """log P(x) of each image as given, in nats, with its kind and how it was come by.

    `nats` is float64 `[n]`; `stderr` `[n]` is the Monte-Carlo standard error of `nats`, None where nothing
    random was used; `details` holds the protocol (K, solver, tolerance, dequantisation ...).
    """

    nats: Tensor
    kind: Likelihood
    spec: DataSpec
    stderr: Tensor | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def bits_per_dim(self) -> Tensor:
        """-nats / (D ln 2) `[n]`, with D the unpadded number of sub-pixels."""
        return bits_per_dim(self.nats, self.spec)

    @classmethod
    def cat(cls, parts: "list[LogLikelihood]") -> "LogLikelihood":
        """One answer from those to successive parts of the images: the kind is the worst of them.

        Details that are floats (or lists of them) become means over images, all else is protocol and kept.
        """
        errors = [part.stderr for part in parts if part.stderr is not None]
        return cls(
            torch.cat([part.nats.double().cpu() for part in parts]),
            min(part.kind for part in parts),
            parts[0].spec,
            torch.cat(errors).cpu() if len(errors) == len(parts) else None,
            {key: _mean_detail(key, parts) for key in parts[0].details},
        )


def _mean_detail(key: str, parts: list[LogLikelihood]) -> Any:
    values = [part.details[key] for part in parts]
    numbers = torch.tensor(values[0]) if isinstance(values[0], (float, list, tuple)) else None
    if numbers is None or not numbers.is_floating_point():
        return values[0]
    counts = torch.tensor([float(len(part.nats)) for part in parts], dtype=torch.float64)
    stacked = torch.tensor(values, dtype=torch.float64)  # [parts] or [parts, k]
    return (torch.tensordot(counts, stacked, dims=1) / counts.sum().clamp(min=1)).tolist()


class Trainable(nn.Module, ABC):
    """What the trainer takes, a run folder holds and `load` gives back: generative models and encoders.

    `spec` and `config` rebuild it (`config.build(spec)`); `turns` lists the players that the trainer steps one after
    the other, each with its own parameters and loss.
    """

    spec: DataSpec
    config: "TrainableConfig"
    turns: tuple[str, ...] = ("model",)
    watched: tuple[str, ...] = ()
    """Parts of the losses that a progress bar is to show, by their names in `metrics.jsonl`."""
    comparable_losses: bool = True
    """Whether a lower loss on held-out images means a better model. Not where the loss is against something that moves,
    such as a momentum copy or a queue: there the last weights are kept, not those of the lowest loss."""
    progress: float = 1.0
    """The share of the training budget used, set by the trainer before each step for schedules inside a loss
    (KL warm-up, say). Outside of training it is 1, so that losses are those of the end of a run."""

    # --- what a family defines ---------------------------------------------------------------------------

    @abstractmethod
    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The objective of one turn, `[b]` and differentiable in that turn's parameters."""

    def parameters_of(self, turn: str) -> Iterator[nn.Parameter]:
        """The parameters that `turn` trains; over all turns they partition the model's parameters."""
        if turn not in self.turns:
            raise ValueError(f"unknown turn {turn!r}, this model has {self.turns}")
        return self.parameters()

    def span_of(self, turn: str) -> tuple[float, float]:
        """The part of the training budget, as shares from and to, in which the trainer steps `turn`.

        Outside of it nothing touches the turn's parameters, and the learning rate's schedule is laid over it. At
        any time some turn must play.
        """
        self.parameters_of(turn)
        return 0.0, 1.0

    # --- what they all share -------------------------------------------------------------------------------

    @final
    def progress_of(self, turn: str) -> float | None:
        """The share of `turn`'s span that is used at this `progress`, 0 to 1; None where it does not play."""
        start, end = self.span_of(turn)
        plays = start <= self.progress < end or self.progress >= 1.0 == end
        return (self.progress - start) / (end - start) if plays else None

    @final
    def forward(self, batch: Batch, turn: str = "model", generator: torch.Generator | None = None) -> Loss:
        """`loss`, so that hooks, compilation and distributed wrappers see it."""
        return self.loss(batch, turn, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @final
    def fit(
        self,
        data: "Split | Tensor | tuple[Tensor, Tensor]",
        *,
        val: "Split | Tensor | tuple[Tensor, Tensor] | None" = None,
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
        it goes. The hyper-parameters are `self.config.training`.
        """
        from genzoo.trainer import Budget, Trainer  # the contract knows nothing of training until it is asked

        budget = Budget(minutes=minutes, steps=steps, epochs=epochs)
        Trainer(self, budget, seed=seed, out=out, progress=progress).fit(data, val)
        return self

    @final
    def save(self, path: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` into the folder `path`, each atomically."""
        from genzoo.checkpoint import save_model

        save_model(self, path)


class GenerativeModel(Trainable, ABC):
    """Every family of the zoo: `fit`, `sample`, `log_likelihood`, `save`; final classes fill in the abstract part."""

    config: "ModelConfig"
    deterministic: bool = False
    """Whether there is one sample for each condition: the model predicts."""

    @property
    @abstractmethod
    def likelihood(self) -> Likelihood:
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


class Encoder(Trainable, ABC):
    """The sister contract: images to vectors, for conditioning and for evaluation."""

    config: "EncoderConfig"
    width: int
    """Numbers in a vector."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Integer images `[n, c, h, w]` to float32 `[n, width]`, in evaluation mode and without gradients."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; the module's training mode is as before afterwards."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


def check_images(images: Tensor, spec: DataSpec) -> Tensor:
    """`images` if they are integers `[n, *spec.shape]` in 0 .. levels-1; raises `GenzooError` otherwise."""
    if tuple(images.shape[1:]) != spec.shape:
        raise GenzooError(
            f"images must have the shape [n, {', '.join(map(str, spec.shape))}], got {list(images.shape)}"
        )
    if spec.levels is None:
        return images
    if images.is_floating_point() or images.dtype == torch.bool:
        raise GenzooError(f"images must be integers 0..{spec.levels - 1}, got {images.dtype}")
    if images.numel() and (int(images.max()) >= spec.levels or int(images.min()) < 0):
        raise GenzooError(
            f"images must lie in 0..{spec.levels - 1}, found {int(images.min())}..{int(images.max())}"
        )
    return images
