"""Run folders back into models.

A run folder tells the types of its configuration by their names. They are looked for in the modules of genzoo, loaded
as they are needed, and in those that a user has registered (`register`); a folder can name a type, never bring one.
"""

import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from genzoo.core.bounded_build import BUILD_ERRORS, bounded, on_meta
from genzoo.core.bounds import shown
from genzoo.core.config import Configurable, from_json, type_names
from genzoo.core.errors import GenzooError
from genzoo.core.path_arguments import path_of, told_by_the_system
from genzoo.core.spec import DataSpec
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.core.trainable import Trainable, TrainableConfig
from genzoo.models.base import GenerativeModel
from genzoo.models.names import encoder_rows, model_rows
from genzoo.training.checkpoint import CONFIG, check_shapes, load_weights, read_config

ROOMS = ("genzoo.core", "genzoo.data", "genzoo.nn", "genzoo.objectives")
"""Where configuration types are defined, beside the folders of the families."""


@told_by_the_system()
@in_plain_surroundings
def load_model(path: str | Path, *, types: Iterable[type] = (), weights: str = "ema") -> Trainable:
    """The model of a run folder, in evaluation mode on the CPU.

    `types` are configuration classes beyond those that are known; `weights` is "ema" (what the trained model
    held) or "raw" (the last weights without averaging). Opens only `config.json` and `model.safetensors`.
    Raises `GenzooError` on anything that is missing, unreadable or does not fit.
    """
    path, types = path_of(path, "path"), list(types)
    if weights not in ("ema", "raw"):
        raise GenzooError(f'weights are "ema" or "raw", got {shown(weights)}')
    content = read_config(path)
    config, spec = _described(content, path, types)
    with _explained(path):
        shapes = on_meta(lambda: config.build(spec))
    if shapes is not None:
        check_shapes(shapes, path, weights)
    model = build_model(content, path, types)
    load_weights(model, path, weights)
    return model.eval()


def load_generative(path: str | Path) -> GenerativeModel:
    """`load_model` of a run that can draw; raises `GenzooError` for an encoder's, too."""
    model = load_model(path)
    if not isinstance(model, GenerativeModel):
        raise GenzooError(f"{path} holds an encoder, which draws nothing: name the run of a generative model")
    return model


def build_model(content: Mapping[str, Any], path: Path, types: Iterable[type] = ()) -> Trainable:
    """The untrained model that `config.json` describes; the global RNG is left as it was.

    Raises `GenzooError` where it names unknown types or fields, or values that no model can be built from.
    """
    config, spec = _described(content, path, types)
    with _explained(path), torch.random.fork_rng(), bounded():
        return config.build(spec)


def _described(
    content: Mapping[str, Any], path: Path, types: Iterable[type]
) -> tuple[TrainableConfig, DataSpec]:
    """The configuration and the spec in `config.json`; raises as `build_model` does."""
    with _explained(path):
        spec = from_json(content["spec"], [DataSpec])
        if not isinstance(spec, DataSpec):
            raise ValueError("its spec is none")
    return config_of(content, path, types), spec


def config_of(content: Mapping[str, Any], path: Path, types: Iterable[type] = ()) -> TrainableConfig:
    """The configuration in the `config.json` of the run folder `path`; loads the modules that define its types.

    Raises `GenzooError` where it names unknown types or fields, or is none.
    """
    types = list(types)
    with _explained(path):
        _load_types(type_names(content["config"]) - {kind.__name__ for kind in types}, content.get("preset"))
        config = from_json(content["config"], types)
        if not isinstance(config, TrainableConfig):
            raise ValueError(f"its config is a {type(config).__name__}")
        return config


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (*BUILD_ERRORS, GenzooError) as error:
        raise GenzooError(f"{path / CONFIG} describes no model of this zoo: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """In one line of bounded length."""
    text = " ".join(str(error).split())[:400]
    return f"no {text}" if isinstance(error, KeyError) else text or type(error).__name__


def _load_types(names: set[str], preset: Any) -> None:
    """Loads modules until all `names` are known: first those of the preset, then every one that may define some."""
    row = (model_rows() | encoder_rows()).get(preset) if isinstance(preset, str) else None
    if row is not None and names - Configurable.types().keys():
        row.recipe()
    families = [m.name for m in pkgutil.iter_modules(_models_path(), "genzoo.models.") if m.ispkg]
    for package in (*ROOMS, *families):
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            if not names - Configurable.types().keys():
                return
            import_module(module.name)


def _models_path() -> list[str]:
    return [str(Path(__file__).parent)]
