"""A training state that was read from disk, checked before any of it is taken up."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import GenzooError
from genzoo.training.checkpoint import check_tensors, is_plain_tensor
from genzoo.training.optim import MOMENTS, Optimizers

COUNTS = ("step", "skipped", "skipped_in_row")


def check_state(state: Mapping[str, Any], model: nn.Module, source: Path) -> None:
    """Raises `GenzooError` unless counts, clocks and weights in `state` are those of a run of `model`.

    Optimisers check their own part, see `load_moments`.
    """
    best = state.get("best")
    fine = {
        **{name: _is_count(state.get(name)) for name in COUNTS},
        "seconds": _is_number(state.get("seconds")) and 0 <= state["seconds"] < 1e12,
        "done": _are_numbers(state.get("done")),
        "val_images": "val_images" in state
        and (state["val_images"] is None or _is_count(state["val_images"], 1)),
        "best": isinstance(best, dict)
        and _is_count(best.get("step"))
        and isinstance(best.get("loss"), float)
        and not math.isnan(best["loss"])
        and "weights" in best,
        "optimizers": isinstance(state.get("optimizers"), dict),
        "rows": state.get("rows") is None or _is_count(state["rows"]),
        "turn_steps": _are_numbers(state.get("turn_steps", {}), whole=True),
        "meter": state.get("meter") is None or _is_meter(state["meter"]),
    }
    for name, sound in fine.items():
        if not sound:
            raise GenzooError(f"{source} is not a state of this run: {name} is missing or of another kind")
    own = model.state_dict()
    chosen = [state.get("model"), state.get("average"), best["weights"]]  # pyright: ignore
    for tensors in chosen if chosen[-1] is not None else chosen[:-1]:
        check_tensors(own, tensors, source)


def load_moments(optimizer: "torch.optim.Optimizer | Optimizers", stored: Any, source: Path) -> None:
    """Gives the optimiser what it has learnt of its parameters; its decays stay those of the configuration.

    So do its rates, of which each step sets its own; that of the last one comes back where it is a number.

    Raises `GenzooError` where `stored` is the state of another one.
    """
    if isinstance(optimizer, Optimizers):
        parts = stored.get("each") if isinstance(stored, dict) else None
        if not isinstance(parts, (list, tuple)) or len(parts) != len(optimizer.each):
            raise _other(source, "its number")
        for each, part in zip(optimizer.each, parts, strict=True):
            load_moments(each, part, source)
        return
    own = optimizer.state_dict()
    groups = stored.get("param_groups") if isinstance(stored, dict) else None
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, dict) for group in groups):
        raise _other(source, "param_groups")
    if [group.get("params") for group in groups] != [group["params"] for group in own["param_groups"]]:
        raise _other(source, "the number of its parameters")
    _check_moments(optimizer, stored.get("state"), source)
    last = [{"lr": g["lr"]} if _is_number(g.get("lr")) else {} for g in groups]
    param_groups = [{**mine, **rate} for mine, rate in zip(own["param_groups"], last, strict=True)]
    optimizer.load_state_dict({"state": stored["state"], "param_groups": param_groups})


def _check_moments(optimizer: torch.optim.Optimizer, moments: Any, source: Path) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not isinstance(moments, dict) or not all(_is_count(number) for number in moments):
        raise _other(source, "its state")
    for number, of_one in moments.items():
        if (
            number >= len(parameters)
            or not isinstance(of_one, dict)
            or of_one.keys() != MOMENTS[type(optimizer)]
        ):
            raise _other(source, f"what it holds of parameter {number}")
        for name, value in of_one.items():
            shape = torch.Size() if name == "step" else parameters[number].shape
            if not _is_moment(value, shape):
                raise _other(source, f"{name} of parameter {number}")


def _is_moment(value: Any, shape: torch.Size) -> bool:
    if not is_plain_tensor(value) or not isinstance(value, Tensor) or value.shape != shape:
        return False
    return value.dtype.is_floating_point and value.element_size() > 1 and bool(value.isfinite().all())


def _other(source: Path, what: str) -> GenzooError:
    return GenzooError(f"{source} is not a state of this run: the optimiser's is another one's ({what})")


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: Any, *, whole: bool = False) -> bool:
    fits = _is_count if whole else _is_number
    return isinstance(value, dict) and all(isinstance(k, str) and fits(v) for k, v in value.items())


def _is_meter(value: Any) -> bool:
    if (
        not isinstance(value, dict)
        or not _is_count(value.get("steps"))
        or not isinstance(value.get("parts"), dict)
    ):
        return False
    parts = value["parts"].items()
    plain = all(isinstance(k, str) and is_plain_tensor(v) and v.numel() == 1 for k, v in parts)
    return plain and all(isinstance(value.get(name), (int, float)) for name in ("norm", "loss_sum"))
