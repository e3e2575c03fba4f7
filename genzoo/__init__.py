"""genzoo: VAEs, GANs, diffusion, flow matching and autoregressive image models through one API.

Names are imported when they are first used, so that `import genzoo` and `--help` do not wait for torch. The folders
`data`, `evaluation`, `metrics`, `nn`, `objectives` and `testing` are reached as attributes.
"""

from genzoo.core.lazy import lazy_names
from genzoo.core.version import __version__ as __version__

_HOMES = {
    "Batch": "genzoo.core.spec",
    "DataSpec": "genzoo.core.spec",
    "Encoder": "genzoo.models.base",
    "EncoderConfig": "genzoo.models.base",
    "GenerativeModel": "genzoo.models.base",
    "GenzooError": "genzoo.core.errors",
    "ImageData": "genzoo.data.image_data",
    "Likelihood": "genzoo.core.log_likelihood:LikelihoodKind",
    "LikelihoodKind": "genzoo.core.log_likelihood",
    "LogLikelihood": "genzoo.core.log_likelihood",
    "Loss": "genzoo.core.trainable",
    "ModelConfig": "genzoo.models.base",
    "NoLikelihood": "genzoo.core.errors",
    "TrainConfig": "genzoo.core.config",
    "bits_per_dim": "genzoo.core.log_likelihood",
    "class_numbers": "genzoo.models.class_numbers",
    "create": "genzoo.models.registry",
    "create_encoder": "genzoo.models.registry",
    "from_diffusers": "genzoo.models.diffusers_reader",
    "list_encoders": "genzoo.models.registry",
    "list_models": "genzoo.models.registry",
    "load": "genzoo.models.loading:load_model",
    "load_data": "genzoo.data.sources",
    "register": "genzoo.models.registry",
    "register_data": "genzoo.data.sources",
    "to_diffusers": "genzoo.models.diffusers_format",
}
"""Public name to the module that defines it."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
