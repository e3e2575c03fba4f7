"""The doors of a model: what `sample`, `log_likelihood` and `embed` of every family are given is checked here, once.

Conditions come into their one form, and what a caller has set for the whole process changes nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from genzoo.core.bounds import Range, check_number, shown
from genzoo.core.conditions import as_condition
from genzoo.core.errors import GenzooError, InvalidValue
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec, check_images
from genzoo.core.surroundings import (
    check_weights,
    in_plain_surroundings,
    plain_surroundings,
    plain_tensor,
)

T = TypeVar("T")

MOST_SAMPLES = Range(0, 2**24)


def _check_generator(generator: Any) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InvalidValue(f"generator must be a torch.Generator or None, got {shown(generator)}")


def _checked_images(images: Any, spec: DataSpec) -> Tensor:
    if not isinstance(images, Tensor):
        raise GenzooError(
            f"images must be a torch tensor [n, {', '.join(map(str, spec.shape))}], got {shown(images)}"
        )
    check_images(images, spec)
    if spec.levels is None and not (images.is_floating_point() and bool(images.isfinite().all())):
        raise GenzooError("real-valued data must be finite floats")
    return plain_tensor(images)


def _checked_condition(cond: Any, spec: DataSpec, n: int) -> Tensor | None:
    found = as_condition(cond, spec, n)
    return None if found is None else plain_tensor(found)


# What a family adds of its own is handed on by name: the wrapped method is still the one that takes it.


def door_of_sample(method: Callable[..., T]) -> Callable[..., T]:
    """`GenerativeModel.sample`, checked."""

    @functools.wraps(method)
    def sample(
        self: Any, n: int, cond: Any = None, *, generator: torch.Generator | None = None, **own: Any
    ) -> T:
        check_number("n", n, MOST_SAMPLES, whole=True)
        _check_generator(generator)
        check_weights(self)
        with plain_surroundings():
            return method(self, int(n), _checked_condition(cond, self.spec, n), generator=generator, **own)

    return sample


def door_of_log_likelihood(method: Callable[..., T]) -> Callable[..., T]:
    """`GenerativeModel.log_likelihood`, checked."""

    @functools.wraps(method)
    def log_likelihood(
        self: Any, images: Any, cond: Any = None, *, generator: torch.Generator | None = None, **own: Any
    ) -> T:
        if self.likelihood is LikelihoodKind.NONE:  # whatever the arguments are, it says why
            return method(self, images, cond, generator=generator, **own)
        _check_generator(generator)
        check_weights(self)
        with plain_surroundings():
            images = _checked_images(images, self.spec)
            cond = _checked_condition(cond, self.spec, len(images))
            return method(self, images, cond, generator=generator, **own)

    return log_likelihood


def door_of_embed(method: Callable[..., T]) -> Callable[..., T]:
    """`Encoder.embed`, checked."""

    @functools.wraps(method)
    def embed(self: Any, images: Any, **own: Any) -> T:
        check_weights(self)
        with plain_surroundings():
            return method(self, _checked_images(images, self.spec), **own)

    return embed


def door_of_other(method: Callable[..., T]) -> Callable[..., T]:
    """What else draws or shows images: its weights are checked."""
    plain = in_plain_surroundings(method)

    @functools.wraps(method)
    def other(self: Any, *args: Any, **own: Any) -> T:
        check_weights(self)
        return plain(self, *args, **own)

    return other


DOORS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "sample": door_of_sample,
    "log_likelihood": door_of_log_likelihood,
    "embed": door_of_embed,
    "embed_images_shared": door_of_embed,
    **dict.fromkeys(
        ("decode", "draw", "embed_text", "impute", "interpolate", "invert", "reconstruct", "vary"),
        door_of_other,
    ),
}
"""Method to what checks it."""
