"""Configurations: frozen dataclasses, and their way into JSON and back.

A configuration never holds code. `from_json` builds only the types that the caller lists, so a run folder
can name a type but not bring one.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from genzoo.contract import DataSpec, Encoder, GenerativeModel, Trainable


@dataclass(frozen=True)
class TrainConfig:
    """How a model is optimised. Everything that depends on the budget is given as a share of the run."""

    batch_size: int = 64
    """Images per step over all processes."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    warmup_steps: int = 100
    """Steps of linear warm-up, at most a tenth of the run."""
    final_rate: float = 0.0
    """Learning rate at the end of the budget as a share of the peak; the decay is linear."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's moment decays."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay, on weights of two and more dimensions."""
    muon: bool = False
    """Muon's orthogonal steps for the kernels of hidden convolutions; all else keeps to AdamW."""
    clip_norm: float = 1.0
    """Largest global gradient norm; longer gradients are scaled down."""
    ema_share: float = 0.05
    """Horizon of the weight average as a share of the steps so far; 0 turns averaging off."""
    accumulate: int = 1
    """Gradient accumulation: micro-batches per step."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 autocast in training; "auto" uses it where the processor has AMX or the GPU supports it."""
    validations: int = 8
    """How often a run with a validation split measures it (and may keep the weights as the best)."""
    validation_images: int = 1024
    """The most validation images used during training."""


class TrainableConfig(ABC):
    """Base of every configuration that something trainable is built from: a frozen dataclass with `training`."""

    training: TrainConfig

    @abstractmethod
    def build(self, spec: "DataSpec") -> "Trainable":
        """Random weights for data of this spec. Raises `GenzooError` where it cannot be built."""


class ModelConfig(TrainableConfig, ABC):
    """Base of every family's configuration."""

    @abstractmethod
    def build(self, spec: "DataSpec") -> "GenerativeModel":
        """A model with random weights for data of this spec. Raises `GenzooError` where it cannot be built."""


class EncoderConfig(TrainableConfig, ABC):
    """Base of every encoder's configuration."""

    @abstractmethod
    def build(self, spec: "DataSpec") -> "Encoder":
        """An encoder with random weights for data of this spec. Raises `GenzooError` where it cannot be built."""


def to_json(value: Any) -> Any:
    """Dataclasses (tagged by type name), tuples, lists, dicts and plain values to JSON-able values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    if isinstance(value, dict):
        return {k: to_json(v) for k, v in value.items()}
    return value


def from_json(value: Any, types: Iterable[type]) -> Any:
    """The inverse of `to_json`; lists become tuples. Only `types` are built.

    >>> from_json(to_json(TrainConfig(betas=(0.8, 0.9))), [TrainConfig]).betas
    (0.8, 0.9)

    Raises `ValueError` on a type that is not listed or a field that the type does not have.
    """
    known = {t.__name__: t for t in types}
    if isinstance(value, list):
        return tuple(from_json(v, known.values()) for v in value)
    if not isinstance(value, dict):
        return value
    fields = {k: from_json(v, known.values()) for k, v in value.items() if k != "type"}
    if "type" not in value:
        return fields
    if value["type"] not in known:
        raise ValueError(f"unknown configuration type {value['type']!r}")
    kind = known[value["type"]]
    unknown = fields.keys() - {f.name for f in dataclasses.fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {sorted(unknown)[0]!r}")
    return kind(**fields)
