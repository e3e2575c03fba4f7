"""Run folders on disk: models as safetensors and JSON, training states as tensors, every file atomic.

Nothing in a run folder can execute code when it is opened: weights are safetensors, configurations are JSON
built from a list of known types, and the training state is read with `weights_only=True`.
"""

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from genzoo.core.bounded_build import BUILD_ERRORS, on_meta
from genzoo.core.bounds import shown
from genzoo.core.checked_json import read_json, short
from genzoo.core.config import to_json
from genzoo.core.errors import GenzooError
from genzoo.core.files import explained_errors, is_ours, write_atomically
from genzoo.core.folder_lock import LOCK, only_writer
from genzoo.core.legacy import upgrade, upgrade_tensors
from genzoo.core.regular_files import open_regular
from genzoo.core.trainable import Trainable
from genzoo.data.identity import difference as data_difference
from genzoo.training.run_facts import check_facts

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
    A saved model or a run that lies there is replaced. Raises `GenzooError` where the folder holds anything else, is
    being trained in, or cannot be written, and for a model that could not be loaded again (`check_rebuilds`).
    """
    path = Path(path)
    _check_name(path)
    if not is_ours(path):
        _refuse_others(path)
    check_rebuilds(model)
    with only_writer(path, f"another process trains in {path}; wait for it, or choose another folder"):
        save_weights(model.state_dict(), path, raw=raw)
        save_config(model, path, facts)


def check_rebuilds(model: Trainable) -> None:
    """Raises `GenzooError` unless the model's configuration builds tensors of its names and shapes, as loading will.

    They are built without memory, on the meta device, where that can be done.
    """
    advice = (
        "put a network of your own into a configuration that builds it, and register that (docs/extending.md)"
    )
    try:
        json.dumps(describe(model))
        again = on_meta(lambda: model.config.build(model.spec))
        if again is None:
            with torch.random.fork_rng(devices=[]):
                again = model.config.build(model.spec)
    except (GenzooError, *BUILD_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise GenzooError(
            f"this model could not be loaded again: its config builds no model ({reason}); {advice}"
        ) from error
    own, given = ({k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (again, model))
    problem = next(_misfits(own, given), None)
    if problem:
        raise GenzooError(
            f"this model could not be loaded again, since its config builds another: {problem}; {advice}"
        )


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
    if not os.path.lexists(path / CONFIG):
        raise GenzooError(f"{path} is not a run folder: it holds no {CONFIG}")
    content = upgrade(read_json(path / CONFIG, any_text=True))
    if not isinstance(content, dict) or not {"format", "spec", "config"} <= content.keys():
        raise GenzooError(f"{path / CONFIG} is not a genzoo configuration: format, spec or config is missing")
    if content["format"] != FORMAT:
        raise GenzooError(
            f"{path / CONFIG} has format {shown(content['format'])}, this genzoo reads {FORMAT}; "
            "use the version that wrote it"
        )
    check_facts(content, path / CONFIG)
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


def check_shapes(model: nn.Module, path: Path, weights: str = "ema") -> None:
    """As `load_weights`, by the head of the file alone: `model` may be on the meta device.

    So nothing of the size of a network is made that is not on disk, too.
    """
    with _explained(path / WEIGHTS), _by_text(path / WEIGHTS) as name, safe_open(name, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    chosen = {
        k.removeprefix(f"{weights}."): v
        for k, v in upgrade_tensors(shapes).items()
        if k.startswith(f"{weights}.")
    }
    if chosen:  # else `load_weights` says what there is
        _refuse_misfit(
            _misfits({k: tuple(v.shape) for k, v in model.state_dict().items()}, chosen), path / WEIGHTS
        )


def _read_weights(path: Path) -> dict[str, Tensor]:
    with _explained(path), _by_text(path) as name:
        return upgrade_tensors(load_file(name))


@contextmanager
def _by_text(path: Path) -> Iterator[Path]:
    """A name of the file that is text, which safetensors asks for: another one where its folder's name holds bytes."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        with open_regular(path) as file:  # only Linux and its like have such names
            yield Path(f"/dev/fd/{file.fileno()}")
        return
    yield path


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of reading weights, which are opened by their name, in one line."""
    if not os.path.lexists(path):
        raise GenzooError(f"{path} is missing: the run has no checkpoint yet")
    with open_regular(path):
        pass
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise GenzooError(f"{path} is damaged or truncated ({short(error)}); save the model again") from error


def fit_weights(model: nn.Module, tensors: Any, source: Path) -> None:
    """`load_state_dict` whose one-line `GenzooError` names the first tensor that does not fit."""
    check_tensors(model.state_dict(), tensors, source)
    model.load_state_dict(dict(tensors))


def check_tensors(own: Mapping[str, Tensor], tensors: Any, source: Path) -> None:
    """Raises `GenzooError` unless `tensors`, as read from `source`, have the names, shapes and kinds of `own`."""
    if not isinstance(tensors, dict) or not all(is_plain_tensor(v) for v in tensors.values()):
        raise GenzooError(f"{source} is damaged: it holds something else than the weights of a network")
    shapes = ({k: tuple(v.shape) for k, v in part.items()} for part in (own, tensors))
    _refuse_misfit(_misfits(*shapes), source)
    kinds = (
        f"{k} is {tensors[k].dtype}, the model needs {v.dtype}"
        for k, v in own.items()
        if not same_kind(tensors[k], v)
    )
    _refuse_misfit(kinds, source)


def is_plain_tensor(value: Any) -> bool:
    """Whether a value that was read is a tensor with all of its numbers in memory."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return not value.is_quantized and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def same_kind(given: Tensor, own: Tensor) -> bool:
    """Whether `given` may be copied into `own`: of the same type, or both of real numbers in 16, 32 or 64 bits."""
    real = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return given.dtype == own.dtype or (given.dtype in real and own.dtype in real)


def _refuse_misfit(problems: Iterator[str], source: Path) -> None:
    problem = next(problems, None)
    if problem:
        raise GenzooError(f"{source} does not fit its {CONFIG}: {problem}")


def _misfits(own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    yield from (f"{k} is missing" for k in own if k not in given)
    yield from (f"{short(k)} is unexpected" for k in given if k not in own)
    for k, shape in own.items():
        if given[k] != shape:
            yield f"{k} has the shape {given[k]}, the model needs {shape}"


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
    if not os.path.lexists(file):
        raise GenzooError(f"{file} is missing: this run cannot be resumed; train anew with another --out")
    with open_regular(file) as opened:
        try:
            state = torch.load(opened, map_location="cpu", weights_only=True)
            if not isinstance(state, dict):
                raise ValueError("it holds no dictionary")
            return upgrade_tensors(state)
        except Exception as error:  # reading a damaged pickle raises nearly anything
            reason = short(str(error).split("\n")[0]) or type(error).__name__
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
