"""The command that trains a run like one there is, rebuilt from its `config.json`."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.models.names import encoder_rows, model_rows
from genzoo.training.checkpoint import first_difference

SIZES = ("small", "tiny", "base", "large")


def train_command(config: Mapping[str, Any], run: Path) -> str:
    """`genzoo train ...` with the preset, data, seed, budget and the fields that differ from the preset's.

    What no flag can say (another object in a field's place) is told behind a `#`.
    """
    if not config.get("preset"):
        return f"# {run} was saved in Python; its configuration is in config.json"
    words = ["genzoo", "train", str(config["preset"])]
    for name, value in _settings(config):
        words += [f"--{name.replace('_', '-')}", str(value)]
    size, flags, rest = _differences(config)
    words += [] if size == "small" else ["--size", size]
    command = shlex.join([*words, *flags, "--out", str(run)])
    return f"{command}  # {rest}" if rest else command


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    data = config.get("data")
    arguments = data.get("arguments") if isinstance(data, Mapping) else None
    arguments = arguments if isinstance(arguments, Mapping) else {}
    names = {"data": "name", "data-root": "root", "image-size": "image_size", "cond": "cond"}
    for flag, key in names.items():
        if arguments.get(key) is not None:
            yield flag, arguments[key]
    yield "seed", config.get("seed", 0)
    budget = config.get("budget")
    yield from budget.items() if isinstance(budget, Mapping) else ()


def _differences(config: Mapping[str, Any]) -> tuple[str, list[str], str]:
    """The nearest size, the flags that lead from there to the run's configuration, and what no flag can say."""
    row, own = (model_rows() | encoder_rows()).get(str(config["preset"])), config["config"]
    if row is None:
        return "small", [], "the preset is unknown to this version"
    try:
        spec = from_json(config["spec"], [DataSpec])
        preset = row.recipe()
        stored = {size: json.loads(json.dumps(to_json(preset.config(size, spec)))) for size in SIZES}
    except (GenzooError, ValueError, TypeError):
        return "small", [], "see config.json"
    changes = {size: list(_leaves(base, own, "")) for size, base in stored.items()}
    size = min(SIZES, key=lambda s: len(changes[s]))
    plain = [(name, value) for name, value in changes[size] if not _holds_objects(value)]
    flags = [word for name, value in plain for word in _flag(name, value)]
    return size, flags, "" if len(plain) == len(changes[size]) else f"and {_odd(stored[size], own)}"


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_objects, value)))


def _odd(base: Any, own: Any) -> str:
    return first_difference(base, own, "config") or "see config.json"


def _leaves(base: Any, own: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The fields of `own` that differ from `base`; where the type does, the whole object (a dict)."""
    if isinstance(base, dict) and isinstance(own, dict) and base.get("type") == own.get("type"):
        for key in own:
            yield from _leaves(base.get(key), own[key], f"{name}.{key}".lstrip("."))
    elif base != own:
        yield name, own if not isinstance(base, dict) or isinstance(own, dict) else {"value": own}


def _flag(name: str, value: Any) -> list[str]:
    """How tyro takes the value of a field.

    >>> _flag("training.progress", False), _flag("network.channels", [8, 16])
    (['--training.no-progress'], ['--network.channels', '8', '16'])
    """
    name = name.replace("_", "-")
    if isinstance(value, bool):
        head, _, last = name.rpartition(".")
        return [f"--{head}.{'' if value else 'no-'}{last}" if head else f"--{'' if value else 'no-'}{last}"]
    values = value if isinstance(value, list) else [value]
    return [f"--{name}", *(str(v) for v in values)]
