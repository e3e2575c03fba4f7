"""The names of all presets with one-line descriptions, free of torch: what `--help` prints in an instant.

Each family lists its presets beside its code, in a module that imports torch only where a recipe is made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genzoo.models.preset import Recipe

MODEL_FAMILIES = (
    "genzoo.models.autoregressive.autoregressive_presets",
    "genzoo.models.vae.vae_presets",
    "genzoo.models.vq.vq_presets",
    "genzoo.models.diffusion.diffusion_presets",
    "genzoo.models.gan.gan_presets",
)
ENCODER_FAMILIES = ("genzoo.models.encoders.encoder_presets",)
DEFAULT_PRESET = "pixelcnn"
"""What `train` trains when it is not told."""


@dataclass(frozen=True)
class PresetRow:
    """A preset by its name: one line on what it is, its paper as Markdown, and its recipe, made when it is needed."""

    name: str
    description: str
    paper: str
    recipe: "Callable[[], Recipe]"


class _Table:
    """The rows of some families and those that users have registered."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._modules, self._added = modules, dict[str, PresetRow]()

    def own(self) -> dict[str, PresetRow]:
        """Those of genzoo by name, in the order of the families."""
        return {row.name: row for module in self._modules for row in import_module(module).PRESETS}

    def rows(self) -> dict[str, PresetRow]:
        """All by name, those that users have registered last."""
        return self.own() | self._added

    def add(self, row: PresetRow) -> None:
        self._added[row.name] = row


_MODELS, _ENCODERS = _Table(MODEL_FAMILIES), _Table(ENCODER_FAMILIES)


def model_rows() -> dict[str, PresetRow]:
    """The presets of generative models by name."""
    return _MODELS.rows()


def own_model_rows() -> dict[str, PresetRow]:
    """Those of them that are genzoo's own."""
    return _MODELS.own()


def encoder_rows() -> dict[str, PresetRow]:
    """The presets of encoders by name."""
    return _ENCODERS.rows()


def add_model_row(row: PresetRow) -> None:
    """Makes a preset of a generative model known, or another one of its name; see `genzoo.register`."""
    _MODELS.add(row)


def add_encoder_row(row: PresetRow) -> None:
    """Makes an encoder's preset known, or another one of its name; see `genzoo.register`."""
    _ENCODERS.add(row)
