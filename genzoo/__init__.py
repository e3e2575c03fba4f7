"""genzoo: VAEs, GANs, diffusion, flow matching and autoregressive image models through one API.

Names are imported when they are first used, so that `import genzoo` and `--help` do not wait for torch.
"""

from importlib import import_module
from typing import Any

from genzoo.core.version import __version__ as __version__

_HOMES = {
    "Batch": "genzoo.core.spec",
    "DataSpec": "genzoo.core.spec",
    "Encoder": "genzoo.models.base",
    "EncoderConfig": "genzoo.models.base",
    "GenerativeModel": "genzoo.models.base",
    "GenzooError": "genzoo.core.errors",
    "ImageData": "genzoo.data.image_data",
    "Likelihood": "genzoo.core.log_likelihood",
    "LogLikelihood": "genzoo.core.log_likelihood",
    "Loss": "genzoo.core.trainable",
    "ModelConfig": "genzoo.models.base",
    "NoLikelihood": "genzoo.core.errors",
    "TrainConfig": "genzoo.core.config",
    "bits_per_dim": "genzoo.core.log_likelihood",
    "create": "genzoo.models.registry",
    "create_encoder": "genzoo.models.registry",
    "from_diffusers": "genzoo.models.diffusers_format",
    "list_encoders": "genzoo.models.registry",
    "list_models": "genzoo.models.registry",
    "load": "genzoo.models.registry",
    "load_data": "genzoo.data.sources",
    "register": "genzoo.models.registry",
    "register_data": "genzoo.data.sources",
    "to_diffusers": "genzoo.models.diffusers_format",
}
"""Public name to the module that defines it."""
_ROOMS = ("data", "evaluation", "metrics", "nn", "objectives", "testing")
"""Folders that are reached as attributes, too."""

__all__ = [*_HOMES, *_ROOMS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"genzoo.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'genzoo' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
