"""Conditions in the form that models take them, whatever form they come in."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genzoo.core.bounds import shown
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec, check_dense


def as_condition(cond: Any, spec: DataSpec, n: int) -> Tensor | None:
    """What a model of `spec` takes for `n` images: classes long `[n]` or vectors float `[n, cond_size]`; None is kept.

    `cond` is a tensor or array of any whole, or real, type, a list, or one class, or vector, for all images. Raises
    `GenzooError` for what is no condition of such a model: another length or width, a class that it does not have, a
    vector that is not finite.
    """
    if cond is None:
        return None
    if spec.cond is None:
        raise GenzooError("this model is unconditional: leave cond out, or train it with --cond")
    found = condition_tensor(cond)
    check_dense(found, "cond is")
    return _classes(found, spec, n) if spec.cond == "class" else _vectors(found, spec, n)


def condition_tensor(cond: Any) -> Tensor:
    """A tensor, an array or a list of numbers as a tensor; raises `GenzooError` for anything else."""
    if isinstance(cond, Tensor):
        return cond
    try:
        array = np.asarray(cond)
        if array.dtype.kind in "iufb":
            return torch.from_numpy(array if array.dtype.kind != "u" else array.astype(np.int64))
    except (ValueError, TypeError, OverflowError, RuntimeError):  # ragged lists, objects of other kinds
        pass
    raise GenzooError(f"cond must be classes or vectors, as a tensor, an array or a list, got {shown(cond)}")


def _classes(cond: Tensor, spec: DataSpec, n: int) -> Tensor:
    whole = not (cond.is_floating_point() or cond.is_complex() or cond.dtype == torch.bool)
    if not whole or cond.ndim > 1:
        raise GenzooError(f"cond must be integer classes [n], got {_kind_of(cond)}")
    cond = cond.long()
    cond = cond.expand(n) if cond.ndim == 0 else cond
    _check_length(cond, n)
    if cond.numel() and (int(cond.min()) < 0 or int(cond.max()) >= spec.cond_size):
        wrong = int(cond.min()) if int(cond.min()) < 0 else int(cond.max())
        raise GenzooError(
            f"class {wrong} is out of range: the model has {spec.cond_size} classes (0..{spec.cond_size - 1})"
        )
    return cond


def _vectors(cond: Tensor, spec: DataSpec, n: int) -> Tensor:
    size = spec.cond_size
    if cond.ndim not in (1, 2) or cond.shape[-1] != size or not cond.is_floating_point():
        raise GenzooError(f"cond must be float vectors [n, {size}], got {_kind_of(cond)}")
    cond = cond.expand(n, size) if cond.ndim == 1 else cond
    _check_length(cond, n)
    if not bool(cond.isfinite().all()):
        raise GenzooError("cond holds NaN or infinite values: remove these vectors")
    return cond if cond.dtype in (torch.float32, torch.float64) else cond.float()


def _check_length(cond: Tensor, n: int) -> None:
    if len(cond) != n:
        raise GenzooError(f"cond must be as long as the images: got {len(cond)} for {n}")


def _kind_of(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
