"""Every preset by its name: models with random weights, and presets of one's own."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from genzoo.core.bounds import shown
from genzoo.core.config import allow_types_of
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.core.trainable import TrainableConfig
from genzoo.models.base import Encoder, EncoderConfig, GenerativeModel, ModelConfig
from genzoo.models.names import PresetRow, add_encoder_row, add_model_row, encoder_rows, model_rows
from genzoo.models.preset import FixedPreset, Recipe, build, check_making, named, overridden

# --- presets ---------------------------------------------------------------------------------------------------


def get_preset(name: str) -> Recipe:
    """A generative model's recipe; raises `GenzooError` with the nearest name otherwise."""
    return named(name, model_rows(), "preset").recipe()


def get_encoder_preset(name: str) -> Recipe:
    """An encoder's recipe; raises `GenzooError` with the nearest name otherwise."""
    return named(name, encoder_rows(), "encoder").recipe()


def every_preset() -> dict[str, Recipe]:
    """The recipes of all generative models by name."""
    return {name: row.recipe() for name, row in model_rows().items()}


def every_encoder_preset() -> dict[str, Recipe]:
    """The recipes of all encoders by name."""
    return {name: row.recipe() for name, row in encoder_rows().items()}


@in_plain_surroundings
def create(
    name: str, spec: DataSpec, size: str = "small", *, seed: int = 0, **overrides: Any
) -> GenerativeModel:
    """A model of a preset with random weights from `seed`; `overrides` are fields of the preset's configuration.

    >>> create("pixelcnn", DataSpec((1, 8, 8), levels=17), "tiny", blocks=1).config.blocks
    1

    Raises `GenzooError` for an unknown preset, size or field.
    """
    recipe = get_preset(name)
    check_making(spec, size)
    model = build(overridden(name, recipe.config(size, spec), overrides), spec, seed=seed)
    assert isinstance(model, GenerativeModel)
    return model


@in_plain_surroundings
def create_encoder(
    name: str,
    spec: DataSpec,
    size: str = "small",
    *,
    kind: str | None = None,
    seed: int = 0,
    **overrides: Any,
) -> Encoder:
    """An encoder of a preset with random weights from `seed`; `overrides` are fields of the preset's configuration.

    `kind` is that of the images (see `genzoo.data.augmentation_presets`) and decides how views differ; None guesses
    by the spec.

    >>> create_encoder("moco", DataSpec((1, 8, 8), levels=17), "tiny", momentum=0.9).config.momentum
    0.9

    Raises `GenzooError` for an unknown preset, size, kind or field, and for data that are no images.
    """
    recipe = get_encoder_preset(name)
    check_making(spec, size)
    config = overridden(name, recipe.config(size, spec, kind), overrides)
    encoder = build(config, spec, seed=seed)
    assert isinstance(encoder, Encoder)
    return encoder


def list_models() -> dict[str, str]:
    """Preset names with one-line descriptions."""
    return {name: row.description for name, row in model_rows().items()}


def list_encoders() -> dict[str, str]:
    """Preset names with one-line descriptions."""
    return {name: row.description for name, row in encoder_rows().items()}


# --- presets from outside --------------------------------------------------------------------------------------


def register(name: str, config: TrainableConfig, *, description: str = "", paper: str = "") -> None:
    """Makes `config` a preset called `name`, and its types known to run folders: all commands then take it.

    `config` is a `ModelConfig` or an `EncoderConfig`; its modules and those of its parts are trusted from now on.
    Registering a name again replaces it. Raises `GenzooError` for a name of genzoo's own, and for another object.
    """
    if not isinstance(config, (ModelConfig, EncoderConfig)) or not is_dataclass(config):
        raise GenzooError(
            f"register takes a configuration, a dataclass of ModelConfig or EncoderConfig, got {config!r}"
        )
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or name.startswith("-"):
        raise GenzooError(f"a preset needs a name that commands can take, got {shown(name)}")
    known = (model_rows() | encoder_rows()).get(name)
    if known is not None and not _is_registered(known):
        raise GenzooError(f"{name!r} is a preset of genzoo's own: register yours under another name")
    for module in {type(part).__module__ for part in _parts_of(config)}:
        if not module.startswith("genzoo."):
            allow_types_of(module)
    row = PresetRow(name, description, paper, _Fixed(config))
    (add_model_row if isinstance(config, ModelConfig) else add_encoder_row)(row)


class _Fixed:
    """A recipe of one configuration."""

    def __init__(self, config: TrainableConfig) -> None:
        self.config = config

    def __call__(self) -> Recipe:
        return FixedPreset(self.config)


def _is_registered(row: PresetRow) -> bool:
    return isinstance(row.recipe, _Fixed)


def _parts_of(value: Any) -> Iterator[Any]:
    """The configuration objects in `value`, itself first."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _parts_of(part)
    elif is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in fields(value):
            yield from _parts_of(getattr(value, field.name))
