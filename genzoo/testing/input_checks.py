"""Checks of refusing what is wrong: images and conditions that do not fit the spec."""

from collections.abc import Callable

import torch
from torch import Tensor

from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import Batch
from genzoo.models.base import GenerativeModel
from genzoo.testing.probe import example_batch, example_cond, example_images, require_refusal


def wrong_images_raise(model: GenerativeModel) -> None:
    """Images of a wrong shape, and float images in place of integers, raise a clear error."""
    images, cond = example_batch(model, 4)
    wrong = {
        "images of twice the width": torch.cat([images, images], dim=-1),
        "images without a batch dimension": images[0],
    }
    if model.spec.levels is not None:
        wrong["float images in place of integers"] = images.float()
    for what, bad in wrong.items():
        for name, call in _calls(model):
            require_refusal(lambda c=call, b=bad: c(b, cond), f"{name} with {what}")


def values_out_of_range_raise(model: GenerativeModel) -> None:
    """A sub-pixel value of `levels` or more makes `log_likelihood` raise a clear error."""
    images, cond = example_batch(model, 4)
    bad, levels = images.long(), model.spec.levels or 0
    bad[0, 0, 0, 0] = levels
    what = f"log_likelihood with a value of {levels} for {levels} levels"
    require_refusal(lambda: model.log_likelihood(bad, cond), what)


def wrong_cond_raises(model: GenerativeModel) -> None:
    """A condition out of range, of the wrong shape, or missing raises a clear error."""
    images, cond = example_batch(model, 4)
    assert cond is not None
    calls = [*_calls(model), ("sample", lambda _, c: model.sample(4, c))]
    for what, bad in _wrong_conds(model, cond).items():
        for name, call in calls:
            require_refusal(lambda f=call, b=bad: f(images, b), f"{name} with {what}")
    for name, call in calls:
        # without a class, samples and likelihoods are those under uniformly drawn classes
        if model.spec.cond == "vector" or name.startswith("loss"):
            require_refusal(lambda f=call: f(images, None), f"{name} without cond")


def cond_is_refused(model: GenerativeModel) -> None:
    """An unconditional model refuses a condition in place of ignoring it."""
    images = example_images(model, 4)
    classes = torch.zeros(4, dtype=torch.long, device=model.device)
    for name, call in [*_calls(model), ("sample", lambda _, c: model.sample(4, c))]:
        require_refusal(lambda f=call: f(images, classes), f"{name} with a cond on an unconditional model")


def _calls(model: GenerativeModel) -> list[tuple[str, Callable[[Tensor, Tensor | None], object]]]:
    """What takes images and conditions, by name."""
    calls: list[tuple[str, Callable[[Tensor, Tensor | None], object]]] = []
    if model.likelihood is not LikelihoodKind.NONE:
        calls.append(("log_likelihood", lambda images, cond: model.log_likelihood(images, cond)))
    for turn in model.turns:
        calls.append(
            (f"loss of turn {turn!r}", lambda images, cond, t=turn: model.loss(Batch(images, cond), t))
        )
    return calls


def _wrong_conds(model: GenerativeModel, cond: Tensor) -> dict[str, Tensor]:
    more = example_cond(model, 5)
    assert more is not None
    if model.spec.cond == "vector":
        wide = torch.cat([cond, cond[:, :1]], dim=1)
        return {"5 conds for 4 images": more, f"cond vectors of width {wide.shape[1]}": wide}
    high, low = cond.clone(), cond.clone()
    high[0], low[0] = model.spec.cond_size, -1
    return {
        "5 classes for 4 images": more,
        f"class {model.spec.cond_size} of 0..{model.spec.cond_size - 1}": high,
        "class -1": low,
    }
