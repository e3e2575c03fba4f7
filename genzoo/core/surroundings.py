"""What a caller may have set for the whole process: inference mode, the default type and device. It changes no result.

A model's methods, its making, its training and its evaluation run inside `plain_surroundings`.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from genzoo.core.errors import GenzooError

P = ParamSpec("P")
T = TypeVar("T")

_CPU = torch.device("cpu")
_TYPES = (torch.float32, torch.float64)


@contextmanager
def plain_surroundings() -> Iterator[None]:
    """Inside, float32 and the processor are torch's defaults, and gradients can be had where code asks for them.

    Where gradients were off they stay off until somebody turns them on: `torch.inference_mode`, which does not allow
    that, becomes `torch.no_grad`.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device() != _CPU:
            stack.enter_context(_CPU)
        yield


def in_plain_surroundings(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, run inside `plain_surroundings`; tensors made in inference mode that it is given are copied."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with plain_surroundings():
            plain_args: Any = [_plain(value) for value in args]
            plain_kwargs: Any = {name: _plain(value) for name, value in kwargs.items()}
            return function(*plain_args, **plain_kwargs)

    return inside


def _plain(value: Any) -> Any:
    return plain_tensor(value) if isinstance(value, Tensor) else value


def plain_tensor(x: Tensor) -> Tensor:
    """`x`, or a copy of one that was made within `torch.inference_mode`, which takes no part in gradients."""
    return x.clone() if x.is_inference() else x


def check_weights(model: nn.Module) -> None:
    """Raises `GenzooError` for weights that models cannot compute with: of another precision, NaN or infinite ones."""
    for p in model.parameters():
        if p.is_floating_point() and p.dtype not in _TYPES:
            kind = str(p.dtype).removeprefix("torch.")
            raise GenzooError(
                f"this model's weights are {kind}: bring them back with model.float(); where bfloat16 is faster it is "
                "used by itself (precision)"
            )
        if p.is_inference():
            raise GenzooError(
                "this model's weights were moved or made within torch.inference_mode: do that outside of it, or load "
                "the model again"
            )
        if p.device.type == "meta":
            raise GenzooError(
                "this model's weights are on the meta device, which holds no numbers: load it again"
            )
    _check_finite(model)


def _check_finite(model: nn.Module) -> None:
    """Whatever was drawn or measured with NaN or infinite weights would look like a result and be none."""
    weights = {
        name: p.detach() for name, p in model.named_parameters() if p.is_floating_point() and p.numel()
    }
    if torch.nn.utils.get_total_norm(
        weights.values(), math.inf
    ).isfinite():  # one pass, one answer of the device
        return
    wrong = [name for name, p in weights.items() if not bool(p.isfinite().all())]
    raise GenzooError(
        f"{len(wrong)} of this model's weights hold NaN or infinity ({wrong[0]} ...), so it can neither draw nor be "
        "measured: train it anew with a lower learning rate"
    )
