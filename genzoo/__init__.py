"""genzoo: every family of generative image model behind one contract.

Names are imported when they are first used, so that `import genzoo` and `--help` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genzoo.checkpoint import load_model as load
    from genzoo.contract import (
        Batch,
        DataSpec,
        Encoder,
        GenerativeModel,
        GenzooError,
        Likelihood,
        LogLikelihood,
        Loss,
        NoLikelihood,
        bits_per_dim,
    )
    from genzoo.data import ImageData, load_data
    from genzoo.encoder_presets import create_encoder, list_encoders
    from genzoo.models.diffusers_format import from_diffusers
    from genzoo.presets import create, list_models

__version__ = "0.1.0"

_HOMES = {
    "from_diffusers": ("genzoo.models.diffusers_format", "from_diffusers"),
    "load": ("genzoo.checkpoint", "load_model"),
    "create": ("genzoo.presets", "create"),
    "list_models": ("genzoo.presets", "list_models"),
    "create_encoder": ("genzoo.encoder_presets", "create_encoder"),
    "list_encoders": ("genzoo.encoder_presets", "list_encoders"),
    "load_data": ("genzoo.data", "load_data"),
    "ImageData": ("genzoo.data", "ImageData"),
    **{
        name: ("genzoo.contract", name)
        for name in (
            "Batch", "DataSpec", "Encoder", "GenerativeModel", "GenzooError", "Likelihood", "LogLikelihood", "Loss",
            "NoLikelihood", "bits_per_dim",
        )
    },
}  # fmt: skip

__all__ = [
    "Batch",
    "DataSpec",
    "Encoder",
    "GenerativeModel",
    "GenzooError",
    "ImageData",
    "Likelihood",
    "LogLikelihood",
    "Loss",
    "NoLikelihood",
    "bits_per_dim",
    "create",
    "create_encoder",
    "from_diffusers",
    "list_encoders",
    "list_models",
    "load",
    "load_data",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'genzoo' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
