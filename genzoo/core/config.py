"""Configurations: frozen dataclasses, and their way into JSON and back.

A configuration never holds code. `from_json` builds only types that derive from `Configurable` and are defined below
genzoo or in a module that the user has named (`allow_types_of`), so a run folder can name a type but not bring one.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from genzoo.core.bounds import (
    BelowOne,
    Many,
    NotNegative,
    OptionalMany,
    Positive,
    Range,
    check_fields,
    shown,
)
from genzoo.core.errors import GenzooError


class Configurable:
    """Base of whatever a configuration is made of: a run folder names its type by the bare name of the class."""

    _made: ClassVar[list[type]] = []
    _packages: ClassVar[set[str]] = {"genzoo"}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Configurable._made.append(cls)
        if "__post_init__" in vars(cls):  # what it adds comes after the check that all have
            cls.__post_init__ = _after_check(vars(cls)["__post_init__"])

    def __post_init__(self) -> None:
        if dataclasses.is_dataclass(self):
            check_fields(self)

    @staticmethod
    def types() -> dict[str, type]:
        """The types that a run folder may name, of the modules that are loaded and allowed; the last of a name."""
        return {cls.__name__: cls for cls in Configurable._made if _package(cls) in Configurable._packages}


def _after_check(own: Callable[[Any], None]) -> Callable[[Any], None]:
    """A class's own `__post_init__`, which may count on fields of the right types and ranges."""

    @functools.wraps(own)
    def checked(self: Any) -> None:
        check_fields(self)
        own(self)

    return checked


def _package(cls: type) -> str:
    return "genzoo" if cls.__module__.startswith("genzoo.") else cls.__module__


def allow_types_of(module: str) -> None:
    """Lets run folders name the configuration types that the loaded `module` defines.

    Raises `GenzooError` where one of them has the name of another module's.
    """
    known = Configurable.types()
    for cls in Configurable._made:
        other = known.get(cls.__name__)
        if cls.__module__ == module and other is not None and other.__module__ != module:
            raise GenzooError(
                f"{module}.{cls.__name__} has the name of {other.__module__}.{cls.__name__}: rename it, since run "
                "folders tell types by their names"
            )
    Configurable._packages.add(module)


@dataclass(frozen=True)
class TrainConfig(Configurable):
    """How a model is optimised. Everything that depends on the budget is given as a share of the run."""

    batch_size: Many = 64
    """Images per step over all processes."""
    learning_rate: Annotated[float, Range(0, 1e6, low_open=True)] = 1e-3
    """Peak learning rate."""
    warmup_steps: OptionalMany = 100
    """Steps of linear warm-up, at most a tenth of the run."""
    final_lr_fraction: NotNegative = 0.0
    """Learning rate at the end of the budget as a share of the peak; the decay is linear."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    """AdamW's moment decays."""
    weight_decay: NotNegative = 0.01
    """AdamW's decoupled weight decay, on weights of two and more dimensions."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """"muon": its orthogonal steps for the kernels of hidden convolutions; all else keeps to AdamW."""
    clip_norm: Positive = 1.0
    """Largest global gradient norm; longer gradients are scaled down."""
    ema_fraction: NotNegative = 0.05
    """Horizon of the weight average as a share of the steps so far; 0 turns averaging off."""
    accumulate: Many = 1
    """Gradient accumulation: micro-batches per step."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 autocast in training; "auto" uses it where the processor has AMX or the GPU supports it."""
    validations: OptionalMany = 8
    """How often a run with a validation split measures it (and may keep the weights as the best)."""
    validation_images: Many = 1024
    """The most validation images used during training."""


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


def type_names(value: Any) -> set[str]:
    """The types that a JSON value names.

    >>> type_names({"type": "A", "parts": [{"type": "B"}]}) == {"A", "B"}
    True
    """
    if isinstance(value, list):
        return {name for part in value for name in type_names(part)}
    if not isinstance(value, dict):
        return set()
    own = {value["type"]} if isinstance(value.get("type"), str) else set()
    return own | {name for part in value.values() for name in type_names(part)}


def from_json(value: Any, types: Iterable[type] = ()) -> Any:
    """The inverse of `to_json`; lists become tuples. Built are `Configurable.types()` and `types`.

    >>> from_json(to_json(TrainConfig(betas=(0.8, 0.9)))).betas
    (0.8, 0.9)

    Raises `ValueError` on another type or a field that the type does not have.
    """
    return _from_json(value, Configurable.types() | {t.__name__: t for t in types})


def _from_json(value: Any, known: dict[str, type]) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(v, known) for v in value)
    if not isinstance(value, dict):
        return value
    fields = {k: _from_json(v, known) for k, v in value.items() if k != "type"}
    if "type" not in value:
        return fields
    if not isinstance(value["type"], str) or value["type"] not in known:
        raise ValueError(
            f"unknown configuration type {shown(value['type'])}; "
            "if it is your own, name its module with --import MODULE"
        )
    kind = known[value["type"]]
    if not dataclasses.is_dataclass(kind) or inspect.isabstract(kind):
        raise ValueError(f"{kind.__name__} is a kind of configuration and none itself")
    unknown = fields.keys() - {f.name for f in dataclasses.fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {sorted(unknown)[0]!r}")
    return kind(**fields)
