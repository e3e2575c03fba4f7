"""What the checks share: example data, seeded generators, perturbed weights, a few training steps."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Trainable
from genzoo.models.base import Encoder

Model = TypeVar("Model", bound=Trainable)

NOISE = 0.5
"""Standard deviation of the perturbation of a bias, and of a weight times the root of its fan-in."""
CLASSES = 3
"""Of an encoder's labels where the spec names none."""


def require(holds: bool, message: str) -> None:
    """Raises `AssertionError`, also under `python -O`, where a check fails."""
    if not holds:
        raise AssertionError(message)


def require_refusal(call: Callable[[], object], what: str) -> None:
    """A mistake of the caller's must raise `ValueError` or `GenzooError`, nothing else, and say something."""
    try:
        call()
    except (ValueError, GenzooError) as error:
        require(bool(str(error).strip()), f"{what} raises {type(error).__name__} without a message")
    except Exception as error:
        kind = type(error).__name__
        raise AssertionError(f"{what} raises {kind} in place of a ValueError or GenzooError") from error
    else:
        raise AssertionError(f"{what} is accepted; it must raise a ValueError or GenzooError")


def seeded(model: Trainable, seed: int) -> torch.Generator:
    """A generator on the model's device."""
    return torch.Generator(model.device).manual_seed(seed)


def example_images(model: Trainable, n: int, seed: int = 0) -> Tensor:
    """Uniformly random integers, or standard normal values, `[n, *spec.shape]`."""
    spec, generator = model.spec, torch.Generator().manual_seed(seed)
    if spec.levels is None:
        return torch.randn(n, *spec.shape, generator=generator).to(model.device)
    images = torch.randint(spec.levels, (n, *spec.shape), generator=generator)
    return images.to(model.device, sample_dtype(spec))


def example_cond(model: Trainable, n: int, seed: int = 0) -> Tensor | None:
    """All classes in turn `[n]`, random vectors `[n, cond_size]`, or None.

    An encoder gets classes whatever its spec, as from the trainer: some learn from them, the others must not mind.
    """
    classes = CLASSES if model.spec.cond is None else model.spec.cond_size
    if model.spec.cond is None and not isinstance(model, Encoder):
        return None
    if model.spec.cond != "vector":
        return ((torch.arange(n) + seed) % classes).to(model.device)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, model.spec.cond_size, generator=generator).to(model.device)


def example_batch(model: Trainable, n: int, seed: int = 0) -> Batch:
    """Random images with their conditions."""
    return Batch(example_images(model, n, seed), example_cond(model, n, seed))


def easy_batch(model: Trainable) -> Batch:
    """Eight images, half white and half black, that differ in one sub-pixel each: easily learnt by heart."""
    n, dims = 8, model.spec.dims
    values = (torch.arange(dims) < (dims + 1) // 2).repeat(n, 1)
    values[torch.arange(n), torch.arange(n) % dims] ^= True
    images = values.reshape(n, *model.spec.shape).to(model.device)
    if model.spec.levels is None:
        return Batch(images.float(), example_cond(model, n))
    images = images.long() * (model.spec.levels - 1)
    return Batch(images.to(sample_dtype(model.spec)), example_cond(model, n))


def sample_dtype(spec: DataSpec) -> torch.dtype:
    """What `sample` gives: uint8 up to 256 levels, long above, the default float for real-valued data."""
    if spec.levels is None:
        return torch.get_default_dtype()
    return torch.uint8 if spec.levels <= 256 else torch.long


@torch.no_grad()
def perturb(model: Model, seed: int = 0) -> Model:
    """Adds noise to all parameters in place, so that layers that start at zero take part; returns the model.

    Weights get theirs scaled by the fan-in: activations stay of order one, and a check is not tried on a
    saturated network, where nearly everything holds.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        parameter.add_(noise, alpha=NOISE / fan_in**0.5)
    return model


def train(model: Trainable, batch: Batch, steps: int, rate: float) -> Iterator[Tensor]:
    """Adam steps on a fixed batch, all turns one after the other; yields each step's losses `[turns]`."""
    model.train()
    optimisers = {turn: torch.optim.Adam(list(model.parameters_of(turn)), lr=rate) for turn in model.turns}
    for step in range(steps):
        losses = []
        for turn, optimiser in optimisers.items():
            loss = model(batch, turn, seeded(model, step)).total.mean()
            model.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        yield torch.stack(losses)
    model.zero_grad(set_to_none=True)


class RandomState(NamedTuple):
    """The state of all global generators."""

    torch_cpu: Tensor
    torch_cuda: list[Tensor]
    numpy: tuple[Any, ...]
    python: tuple[object, ...]

    def changed(self, other: "RandomState") -> list[str]:
        """The generators in which two states differ."""
        pairs = zip(self.torch_cuda, other.torch_cuda, strict=True)
        differs = {
            "torch": not torch.equal(self.torch_cpu, other.torch_cpu),
            "torch.cuda": not all(torch.equal(a, b) for a, b in pairs),
            "numpy": not all(np.array_equal(a, b) for a, b in zip(self.numpy, other.numpy, strict=True)),
            "random": self.python != other.python,
        }
        return [name for name, differ in differs.items() if differ]


def random_state() -> RandomState:
    """A snapshot of the global generators of torch, numpy and python."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return RandomState(
        torch.get_rng_state(), cuda, tuple(np.random.get_state(legacy=True)), random.getstate()
    )


@contextmanager
def global_rng_kept() -> Iterator[None]:
    """Puts the global generators back where they were."""
    state = random_state()
    try:
        yield
    finally:
        torch.set_rng_state(state.torch_cpu)
        if state.torch_cuda:
            torch.cuda.set_rng_state_all(state.torch_cuda)
        np.random.set_state(state.numpy)
        random.setstate(state.python)
