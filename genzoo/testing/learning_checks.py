"""Checks of learning, of saving and loading, and of conditioning."""

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

import torch
from torch import Tensor

from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import Batch
from genzoo.models.base import GenerativeModel
from genzoo.models.loading import load_model
from genzoo.testing.probe import easy_batch, example_batch, example_cond, perturb, require, seeded, train

LEARNING_RATES = (3e-3, 3e-4, 3e-2)
"""Tried in this order until one of them does."""
STEPS = 60
DROP = 0.1
"""The share of its first value that the loss must lose."""


def save_and_load(model: GenerativeModel) -> None:
    """A model that is saved and loaded gives identical likelihoods and samples."""
    batch = example_batch(perturb(model), 4)
    list(train(model, batch, steps=3, rate=1e-3))  # state that builds up in training must be saved too
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.save(path)
        torch.manual_seed(1)  # what is drawn anew when the model is built must not come out the same
        loaded = load_model(path, types=types_of(model.config)).to(model.device)
    require(type(loaded) is type(model), f"{type(model).__name__} is loaded as {type(loaded).__name__}")
    assert isinstance(loaded, GenerativeModel)
    require(loaded.spec == model.spec, f"the spec {model.spec} is loaded as {loaded.spec}")
    if model.likelihood is not LikelihoodKind.NONE:
        nats = [
            _seeded_call(m, lambda m, g: m.log_likelihood(*batch, generator=g).nats) for m in (model, loaded)
        ]
        gap = (nats[0] - nats[1]).abs().max().item()
        require(torch.equal(*nats), f"likelihoods differ by up to {gap:.3g} nats after loading")
    samples = [_seeded_call(m, lambda m, g: m.sample(4, batch.cond, generator=g)) for m in (model, loaded)]
    require(torch.equal(*samples), "samples differ after loading, with equal generators")


def overfits_eight(model: GenerativeModel) -> None:
    """A few Adam steps on eight images lower their loss by a tenth or more, at some learning rate."""
    batch = easy_batch(model)
    before = _mean_loss(model, batch)
    lowest = before
    for rate in LEARNING_RATES:
        twin = copy.deepcopy(model)
        for step, _ in enumerate(train(twin, batch, STEPS, rate), start=1):
            if step % 15 == 0:
                lowest = min(lowest, _mean_loss(twin, batch))
                if lowest <= before - DROP * abs(before):
                    return
    raise AssertionError(
        f"{STEPS} Adam steps lower the loss of eight images only from {before:.4g} to {lowest:.4g}"
    )


def alternating_losses_stay_finite(model: GenerativeModel) -> None:
    """The losses of all turns stay finite over a few alternating steps."""
    for losses in train(model, easy_batch(model), steps=8, rate=1e-3):
        for turn, loss in zip(model.turns, losses, strict=True):
            require(bool(loss.isfinite()), f"the loss of turn {turn!r} is {loss.item()} after a few steps")


def cond_matters(model: GenerativeModel) -> None:
    """Likelihood, loss and samples change with the condition (at perturbed weights)."""
    if model.spec.cond == "class" and model.spec.cond_size == 1:
        raise SkipTest("there is only one class")
    perturb(model).eval()
    images = example_batch(model, 64).images
    first, second = example_cond(model, 64, seed=0), example_cond(model, 64, seed=1)
    assert first is not None and second is not None
    if model.likelihood is not LikelihoodKind.NONE:
        nats = [
            model.log_likelihood(images[:8], c[:8], generator=seeded(model, 0)).nats for c in (first, second)
        ]
        require(not torch.equal(*nats), "log_likelihood does not change with cond")
    samples = [model.sample(64, cond, generator=seeded(model, 0)) for cond in (first, second)]
    require(not torch.equal(*samples), "samples do not change with cond, with equal generators")
    changes = []
    for turn in model.turns:
        batches = (Batch(images, first), Batch(images, second))
        totals = [copy.deepcopy(model)(batch, turn, seeded(model, 0)).total for batch in batches]
        changes.append(not torch.equal(*totals))
    require(any(changes), "no loss changes with cond")


def _seeded_call(
    model: GenerativeModel, call: Callable[[GenerativeModel, torch.Generator], Tensor]
) -> Tensor:
    """The result in evaluation mode from a fixed global state, whose use is another check's matter."""
    torch.manual_seed(0)
    return call(model.eval(), seeded(model, 0))


@torch.no_grad()
def _mean_loss(model: GenerativeModel, batch: Batch) -> float:
    """The mean loss over fixed noise, on a copy: a loss in training mode may change buffers."""
    twin = copy.deepcopy(model)
    losses = [twin(batch, twin.turns[0], seeded(twin, 1000 + seed)).total.mean() for seed in range(8)]
    return torch.stack(losses).mean().item()


def types_of(value: object) -> set[type]:
    """The dataclasses that a configuration is made of."""
    if isinstance(value, (tuple, list)):
        return set().union(*(types_of(item) for item in value))
    if isinstance(value, dict):
        return types_of(list(value.values()))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return set()
    fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return {type(value)} | types_of(fields)
