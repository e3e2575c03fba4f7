"""Validation during training: the averaged weights' loss on held-out images, and the best weights so far."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.random import seeded
from genzoo.core.spec import Batch
from genzoo.core.trainable import Loss, Trainable
from genzoo.training.processes import Feed


@dataclass(frozen=True)
class Score:
    """Mean losses on validation: of the last turn's `total`, and of every part by name."""

    loss: float
    parts: dict[str, float]

    def bits_per_dim(self, model: Trainable) -> float | None:
        """The loss in bits per sub-pixel where it is an exact negative log-likelihood, else None."""
        if getattr(model, "likelihood", LikelihoodKind.NONE) != LikelihoodKind.EXACT:
            return None
        return self.loss / (model.spec.dims * math.log(2))


class Validator:
    """Measures a model on a fixed random subset of the `size` images of `feed`, with the same random numbers each time.

    `allowed_seconds` limits a measurement: the number of images that the first one reaches in that time
    is kept, so that all figures of a run are about the same images. `images` is that number (None before).
    """

    def __init__(
        self,
        feed: Feed,
        size: int,
        *,
        images: int,
        batch_size: int,
        seed: int,
        allowed_seconds: float | None = None,
    ) -> None:
        self.feed, self.processes, self.seed = feed, feed.processes, seed
        order = torch.randperm(size, generator=seeded("cpu", "validation", seed))
        self.order, self.batch_size = order[:images], batch_size
        self.allowed_seconds = allowed_seconds
        self.images: int | None = None

    def measure(self, model: Trainable, *, bf16: bool = False) -> Score:
        """The mean losses of `model` (in evaluation mode, on the processes' device)."""
        self.processes.share_buffers(model)  # all must measure one and the same model
        start, sums, seen = time.monotonic(), {}, 0
        for indices in self.order[: self.images].split(self.batch_size):
            self._add(model, indices, seen, bf16, sums)
            seen += len(indices)
            if self.images is None and self._out_of_time(start):
                break
        self.images = seen
        names = list(sums)
        totals = self.processes.sum([sums[k].item() for k in names])
        means = {k: v / seen for k, v in zip(names, totals, strict=True)}
        loss = means[model.turns[-1]]
        if len(model.turns) == 1:
            means = {k.partition("/")[2]: v for k, v in means.items() if "/" in k}
        return Score(loss, means)

    def _out_of_time(self, start: float) -> bool:
        if self.allowed_seconds is None:
            return False
        late = time.monotonic() - start > self.allowed_seconds
        return self.processes.sum([float(late and self.processes.is_main)])[0] > 0

    def _add(self, model: Trainable, indices: Tensor, seen: int, bf16: bool, sums: dict[str, Tensor]) -> None:
        """Adds the losses of this process's share of the images `indices`."""
        batch = self.feed.batch(indices)
        generator = seeded(self.processes.device, "validation loss", self.seed, seen, self.processes.rank)
        for turn in model.turns:
            loss = self._loss(model, batch, turn, generator, bf16)
            for name, value in {
                turn: loss.total,
                **{f"{turn}/{k}": v for k, v in loss.parts.items()},
            }.items():
                sums[name] = sums.get(name, 0.0) + value.detach().double().sum()

    def _loss(
        self, model: Trainable, batch: Batch, turn: str, generator: torch.Generator, bf16: bool
    ) -> Loss:
        # losses of several players may contain gradients with respect to images (gradient penalties)
        gradients = torch.set_grad_enabled(len(model.turns) > 1)
        with gradients, torch.autocast(self.processes.device.type, torch.bfloat16, enabled=bf16):
            return model.loss(batch, turn, generator=generator)


class Best:
    """The weights that did best on validation, and how well they did (`loss`, at step `step`)."""

    def __init__(self) -> None:
        self.loss, self.step = math.inf, 0
        self.weights: dict[str, Tensor] | None = None

    def offer(self, loss: float, step: int, model: nn.Module) -> bool:
        """Keeps a copy of the weights of `model` if `loss` is the lowest so far; returns whether it is."""
        if not loss < self.loss:
            return False
        self.loss, self.step = loss, step
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        return True

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"loss": self.loss, "step": self.step, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.loss, self.step, self.weights = state["loss"], state["step"], state["weights"]
