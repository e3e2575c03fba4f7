"""Run folders on disk: models as safetensors and JSON, training states as tensors, every file atomic.

Nothing in a run folder can execute code when it is opened: weights are safetensors, configurations are JSON
built from a list of known types, and the training state is read with `weights_only=True`.
"""

import io
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from genzoo.core.config import to_json
from genzoo.core.errors import GenzooError
from genzoo.core.files import explained_errors, is_ours, make_folder, write_atomically
from genzoo.core.folder_lock import LOCK
from genzoo.core.legacy import upgrade, upgrade_tensors
from genzoo.core.trainable import Trainable
from genzoo.data.identity import difference as data_difference

FORMAT = 1

CONFIG, WEIGHTS, STATE = "config.json", "model.safetensors", "state/state.pt"
METRICS, CURVE, SAMPLES = "metrics.jsonl", "loss.png", "samples"
_BEGUN = {LOCK, METRICS, WEIGHTS, "state"}


def save_model(
    model: Trainable,
    path: str | Path,
    *,
    raw: Mapping[str, Tensor] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes the run folder `path`: `model.safetensors`, then `config.json`.

    The weights that the model holds are stored as "ema.*", `raw` (the last weights without averaging) as
    "raw.*". `facts` are JSON-able and join `config.json` (seed, budget, data protocol ...).
    A saved model or a run that lies there is replaced. Raises `GenzooError` where the folder holds anything else, or
    cannot be written.
    """
    path = Path(path)
    _check_name(path)
    if not is_ours(path):
        _refuse_others(path)
    with explained_errors(path):
        make_folder(path)
    save_weights(model.state_dict(), path, raw=raw)
    save_config(model, path, facts)


def save_weights(
    weights: Mapping[str, Tensor], path: Path, *, raw: Mapping[str, Tensor] | None = None
) -> None:
    """Writes `model.safetensors` only: `weights` as "ema.*", `raw` as "raw.*"."""
    tensors = {f"ema.{k}": v for k, v in weights.items()}
    tensors |= {f"raw.{k}": v for k, v in (raw or {}).items()}
    # clones, because safetensors refuses tensors that share memory (tied weights)
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    write_atomically(path / WEIGHTS, safetensors_bytes(plain, metadata={"format": "pt"}), inside=path)


def save_config(model: Trainable, path: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Writes `config.json` only."""
    content = {**describe(model), **to_json(dict(facts or {}))}
    write_atomically(path / CONFIG, json.dumps(content, indent=2).encode(), inside=path)


def describe(model: Trainable) -> dict[str, Any]:
    """What rebuilds the model, JSON-able: format, spec and configuration."""
    return {"format": FORMAT, "spec": to_json(model.spec), "config": to_json(model.config)}


def read_config(path: Path) -> dict[str, Any]:
    """`config.json` of the run folder `path`. Raises `GenzooError` where there is none that can be read."""
    if not path.exists():
        raise GenzooError(f"no run folder at {path}; check the path")
    if not path.is_dir():
        raise GenzooError(f"{path} is a file, not a run folder; give the folder that training wrote (--out)")
    if not (path / CONFIG).is_file():
        raise GenzooError(f"{path} is not a run folder: it holds no {CONFIG}")
    try:
        content = upgrade(json.loads((path / CONFIG).read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise GenzooError(f"{path / CONFIG} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or not {"format", "spec", "config"} <= content.keys():
        raise GenzooError(f"{path / CONFIG} is not a genzoo configuration: format, spec or config is missing")
    if content["format"] != FORMAT:
        raise GenzooError(
            f"{path / CONFIG} has format {content['format']!r}, this genzoo reads {FORMAT}; "
            "use the version that wrote it"
        )
    return content


def load_weights(model: nn.Module, path: Path, weights: str = "ema") -> None:
    """Gives `model` the weights of the run folder `path`: "ema" (what the trained model held) or "raw".

    Raises `GenzooError` where they are missing, unreadable or do not fit.
    """
    tensors = _read_weights(path / WEIGHTS)
    chosen = {k.removeprefix(f"{weights}."): v for k, v in tensors.items() if k.startswith(f"{weights}.")}
    if not chosen:
        raise GenzooError(f'{path / WEIGHTS} holds no "{weights}" weights; load weights="ema"')
    fit_weights(model, chosen, path / WEIGHTS)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise GenzooError(f"{path} is missing: the run has no checkpoint yet")
    try:
        return upgrade_tensors(load_file(path))
    except (SafetensorError, OSError) as error:
        raise GenzooError(f"{path} is damaged or truncated ({error}); save the model again") from error


def fit_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """`load_state_dict` whose one-line `GenzooError` names the first tensor that does not fit."""
    own = model.state_dict()
    problem = next(_misfits(own, tensors), None)
    if problem:
        raise GenzooError(f"{source} does not fit its {CONFIG}: {problem}")
    model.load_state_dict(dict(tensors))


def _misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[str]:
    yield from (f"{k} is missing" for k in own if k not in given)
    yield from (f"{k} is unexpected" for k in given if k not in own)
    for k, v in own.items():
        if given[k].shape != v.shape:
            yield f"{k} has the shape {tuple(given[k].shape)}, the model needs {tuple(v.shape)}"


def save_state(state: Mapping[str, Any], path: str | Path) -> None:
    """Writes `state` (tensors, numbers, strings, dicts, lists) to `state/state.pt` of the run folder."""
    buffer, path = io.BytesIO(), Path(path)
    torch.save(dict(state), buffer)
    write_atomically(path / STATE, buffer.getbuffer(), inside=path)


def load_state(path: str | Path) -> dict[str, Any]:
    """The last saved state of the run folder, read with `weights_only=True`.

    Raises `GenzooError` where it is missing or unreadable.
    """
    file = Path(path) / STATE
    if not file.is_file():
        raise GenzooError(f"{file} is missing: this run cannot be resumed; train anew with another --out")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it holds no dictionary")
        return upgrade_tensors(state)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise GenzooError(f"{file} is damaged, this run cannot be resumed ({reason})") from error


def claim_folder(path: Path) -> None:
    """Checks that a new run may be written to `path`: to a new folder, an empty one, or one where a run had only begun.

    Raises `GenzooError` where it holds another run or anything else, and for a path that names no folder of its own.
    """
    _check_name(path)
    if is_ours(path):
        raise GenzooError(f"{path} holds another run; choose another --out or pass --resume")
    _refuse_others(path)


def _check_name(path: Path) -> None:
    if not path.name.strip() or path.name == "..":
        raise GenzooError(f"'{path}' names no folder of its own; name a new one with --out")


def _refuse_others(path: Path) -> None:
    """Raises `GenzooError` where `path` holds what is no part of a run that had only begun."""
    if not os.path.lexists(path):
        return
    with explained_errors(path):
        if not path.is_dir():
            raise GenzooError(f"{path} is a file; choose another --out")
        found = {entry.name for entry in os.scandir(path)}
    begun = LOCK in found and all(map(_may_be_ours, found))
    if found and not begun:
        raise GenzooError(f"{path} holds other files, such as {min(found)}; choose another --out")


def _may_be_ours(name: str) -> bool:
    """Whether a run that was killed before it had its `config.json` may have left a file of this name."""
    return name in _BEGUN or (name.startswith(".") and name.endswith(".tmp"))


def check_same_run(path: Path, model: Trainable, facts: Mapping[str, Any]) -> None:
    """Checks that `path` was trained with this model's configuration and these facts.

    The budget may differ: a larger one continues. Raises `GenzooError` naming the first differing field.
    """
    before = read_config(path)
    now = json.loads(json.dumps({**describe(model), **to_json(dict(facts))}))
    for key in [k for k in now if k != "budget"]:
        difference = first_difference(before.get(key), now[key], key)
        if key == "data" and isinstance(before.get(key), dict):  # the same data may lie elsewhere by now
            difference = data_difference(before[key], now[key])
        if difference:
            raise GenzooError(f"cannot resume {path}: {difference}; resume with what it was started with")


def first_difference(before: Any, now: Any, name: str) -> str | None:
    """Where two JSON values first differ, as "name.field was a, is b"; None where they are equal.

    >>> first_difference({"a": {"b": 1}}, {"a": {"b": 2}}, "config")
    'config.a.b was 1, is 2'
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            found = first_difference(before.get(key), now.get(key), f"{name}.{key}")
            if found:
                return found
        return None
    return None if before == now else f"{name} was {json.dumps(before)}, is {json.dumps(now)}"
