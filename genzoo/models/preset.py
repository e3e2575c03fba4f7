"""What a preset is: a recipe, its sizes, and what follows the data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import nn
from typing_extensions import override

from genzoo.core.bounded_build import BUILD_ERRORS, MOST_VALUES, bounded
from genzoo.core.bounds import check_seed, shown
from genzoo.core.errors import GenzooError, reason_of
from genzoo.core.free_memory import available_memory
from genzoo.core.spec import DataSpec
from genzoo.core.suggestions import suggestion
from genzoo.core.trainable import Trainable, TrainableConfig
from genzoo.models.base import ModelConfig

Config = TypeVar("Config", bound=TrainableConfig)
Row = TypeVar("Row")

SIZES = ("tiny", "small", "base", "large")
VECTORS = "vectors"
REAL = "real-valued"
CLASSES = "classes"
COND_VECTORS = "condition vectors"
LOW_RESOLUTION = "up to 16 pixels"
MANY_LEVELS = "more than 32 levels"

TRAITS = {
    VECTORS: lambda spec: len(spec.shape) != 3,
    REAL: lambda spec: spec.levels is None,
    CLASSES: lambda spec: spec.cond == "class",
    COND_VECTORS: lambda spec: spec.cond == "vector",
    LOW_RESOLUTION: lambda spec: len(spec.shape) == 3 and max(spec.shape[1:]) <= 16,
    MANY_LEVELS: lambda spec: spec.levels is not None and spec.levels > 32,
}
"""What an adjustment may depend on."""


def _with(config: Any, path: str, value: Any) -> Any:
    """`config` with another value of the field, or field of a part of a part ..., at `path`."""
    name, _, rest = path.partition(".")
    return replace(config, **{name: _with(getattr(config, name), rest, value) if rest else value})


class Recipe(ABC):
    """What a preset's row makes: configurations of several sizes that follow the data."""

    sizes: Mapping[str, Any]
    """Size to what it sets; the names of the sizes there are."""

    @abstractmethod
    def config(self, size: str, spec: DataSpec, kind: str | None = None) -> TrainableConfig:
        """The configuration of `size` for data of `spec`, of a `kind` of images where that matters.

        Raises `GenzooError` for an unknown size or kind, and for data that it cannot take.
        """

    def suited(self, spec: DataSpec) -> DataSpec:
        """`spec`, or one with what the recipe needs beyond it."""
        return spec


@dataclass(frozen=True)
class Preset(Recipe):
    """A recipe: one configuration per size, and the fields that are set otherwise for data with a trait."""

    sizes: Mapping[str, ModelConfig]
    adjustments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By trait: values of fields, which may be fields of a part, such as "autoencoder.quantiser"."""
    needs_input: bool = False
    """Whether it takes data with input images only, such as those of `load_data(..., cond="mask")`."""

    @override
    def config(self, size: str, spec: DataSpec, kind: str | None = None) -> ModelConfig:
        if size not in self.sizes:
            raise GenzooError(f"unknown size {size!r}: choose {', '.join(self.sizes)}")
        config = self.sizes[size]
        for trait, changes in self.adjustments.items():
            if TRAITS[trait](spec):
                for path, value in changes.items():
                    config = _with(config, path, value)
        return config

    @override
    def suited(self, spec: DataSpec) -> DataSpec:
        """`spec`, with an input image like the images themselves as its condition where the recipe needs one."""
        return DataSpec(spec.shape, spec.levels, "vector", spec.dims) if self.needs_input else spec


@dataclass(frozen=True)
class FixedPreset(Recipe):
    """One configuration, whatever the size and the data."""

    only: TrainableConfig
    sizes: Mapping[str, TrainableConfig] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", dict.fromkeys(SIZES, self.only))

    @override
    def config(self, size: str, spec: DataSpec, kind: str | None = None) -> TrainableConfig:
        return self.only


def named(name: str, rows: Mapping[str, Row], kind: str) -> Row:
    """The row of that name; raises `GenzooError`, which says the nearest name of this `kind`, otherwise."""
    if not isinstance(name, str):
        raise GenzooError(f"the name of a {kind} is a text, got {shown(name)}")
    if name in rows:
        return rows[name]
    raise GenzooError(f"unknown {kind} {shown(name)}: {suggestion(name, rows)}")


def overridden(name: str, config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration of the preset `name` with other values of some fields; `GenzooError` for an unknown field."""
    known = [f.name for f in fields(config)]  # pyright: ignore[reportArgumentType]
    for key in overrides:
        if key not in known:
            raise GenzooError(f"{name} has no field {shown(key)}: {suggestion(key, known)}")
        if isinstance(overrides[key], nn.Module):
            wanted, given = type(getattr(config, key)).__name__, type(overrides[key]).__name__
            raise GenzooError(
                f"{key} of {name} takes a configuration, such as {wanted}, and no {given}: a network of your own is "
                "what the `build` of a configuration of yours returns (docs/extending.md)"
            )
    return replace(config, **overrides)  # pyright: ignore[reportArgumentType]


def check_making(spec: Any, size: Any = "small") -> None:
    """Raises `GenzooError` unless these are a spec and the name of a size, whichever."""
    if not isinstance(spec, DataSpec):
        raise GenzooError(f"a model is built for a DataSpec, such as load_data(...).spec, got {shown(spec)}")
    if not isinstance(size, str):
        raise GenzooError(f"a size is one of {', '.join(SIZES)}, got {shown(size)}")


def build(config: TrainableConfig, spec: DataSpec, *, seed: int = 0) -> Trainable:
    """`config.build(spec)` with initial weights from `seed`; the global random state stays as it was.

    Raises `GenzooError` where it cannot be built, or has more parts than any network that could be meant, or more
    weights than there is memory for.
    """
    check_seed(seed)
    check_making(spec)
    free = available_memory()
    most = MOST_VALUES if free is None else free // torch.get_default_dtype().itemsize
    with torch.random.fork_rng(), bounded(most_values=most):
        torch.manual_seed(seed)
        try:
            return config.build(spec)
        except BUILD_ERRORS as error:
            if isinstance(error, GenzooError):
                raise
            raise GenzooError(f"no model can be built of this configuration: {reason_of(error)}") from error
