"""Checks of sampling, of randomness, and of leaving no trace."""

import copy
import math
from collections.abc import Callable
from unittest import SkipTest

import torch
from torch import Tensor

from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.models.base import GenerativeModel
from genzoo.objectives.decoding import Decoding
from genzoo.testing.probe import (
    example_batch,
    example_cond,
    perturb,
    random_state,
    require,
    sample_dtype,
    seeded,
)


def samples_fit_the_spec(model: GenerativeModel) -> None:
    """Samples have the shape, the type and the range that the spec says."""
    for _ in ("weights as given", "perturbed weights"):
        for n in (1, 5):
            _require_fit(model, model.sample(n, example_cond(model, n), generator=seeded(model, n)), n)
        if model.spec.cond == "class":  # without cond the classes are drawn uniformly
            _require_fit(model, model.sample(3, generator=seeded(model, 3)), 3)
        perturb(model)


def means_fit_the_spec(model: GenerativeModel) -> None:
    """Decoded by the mean, samples are images of the spec as well; draws are afterwards what they were before."""
    cond = example_cond(model, 4)
    before = model.sample(4, cond, generator=seeded(model, 1))
    model.decoding = Decoding.MEAN
    _require_fit(model, model.sample(4, cond, generator=seeded(model, 1)), 4)
    model.decoding = Decoding.DRAW
    again = model.sample(4, cond, generator=seeded(model, 1))
    require(torch.equal(before, again), "draws are others after decoding by the mean")


def same_generator_same_results(model: GenerativeModel) -> None:
    """Equal generators give equal samples, losses and likelihoods."""
    for name, call in _random_calls(model):
        results = []
        for _ in range(2):
            torch.manual_seed(0)  # use of the global state is another check's matter
            results.append(call(model, 1))
        require(torch.equal(*results), f"{name} differs between two runs with equal generators")


def different_seeds_different_samples(model: GenerativeModel) -> None:
    """Different seeds give different samples, where chance makes equal ones all but impossible."""
    n = max(4, math.ceil(256 / model.spec.dims))
    cond, draws = example_cond(model, n), []
    for seed in (1, 2):
        torch.manual_seed(seed)  # use of the global state is another check's matter
        draws.append(model.sample(n, cond, generator=seeded(model, seed)))
    if not torch.equal(*draws):
        return
    if model.spec.levels is not None and model.likelihood is not LikelihoodKind.NONE:
        images = draws[0].to(sample_dtype(model.spec))
        surprise = -model.log_likelihood(images, cond, generator=seeded(model, 0)).nats.sum().item()
        if surprise < 30:
            raise SkipTest(f"{n} samples carry only {surprise:.1f} nats, so equal ones may be chance")
    raise AssertionError(f"{n} samples are the same for seeds 1 and 2")


def samples_ignore_chance(model: GenerativeModel) -> None:
    """A model that calls itself deterministic gives the same samples for two seeds."""
    cond = example_cond(model, 4)
    draws = [model.sample(4, cond, generator=seeded(model, seed)) for seed in (1, 2)]
    require(torch.equal(*draws), "samples of a deterministic model differ for seeds 1 and 2")


def global_rng_untouched(model: GenerativeModel) -> None:
    """With a generator nothing advances the global random state of torch, numpy or python."""
    for name, call in _random_calls(model):
        before = random_state()
        call(model, 0)
        changed = before.changed(random_state())
        require(not changed, f"{name} with a generator uses the global random state of {', '.join(changed)}")


def evaluation_leaves_no_trace(model: GenerativeModel) -> None:
    """`sample` and `log_likelihood` change no weight, buffer or mode, and leave no gradient or graph."""
    batch = example_batch(model, 4)
    for mode in (True, False):
        model.train(mode)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        results = {"sample": model.sample(4, batch.cond, generator=seeded(model, 0))}
        if model.likelihood is not LikelihoodKind.NONE:
            ll = model.log_likelihood(*batch, generator=seeded(model, 0))
            results["log_likelihood"] = ll.nats
        for name, result in results.items():
            require(not result.requires_grad, f"the result of {name} carries a graph: use torch.no_grad")
        after = model.state_dict()
        changed = [name for name, value in before.items() if not _same(value, after[name])]
        require(not changed, f"sample or log_likelihood changes {', '.join(changed[:3])}")
        same_modes = modes == [module.training for module in model.modules()]
        require(same_modes, "sample or log_likelihood changes between training and evaluation mode")
        grads = [name for name, p in model.named_parameters() if p.grad is not None]
        require(not grads, f"sample or log_likelihood leaves a gradient on {', '.join(grads[:3])}")


def _require_fit(model: GenerativeModel, samples: Tensor, n: int) -> None:
    spec, dtype = model.spec, samples.dtype
    shape = tuple(samples.shape)
    require(shape == (n, *spec.shape), f"samples have shape {shape} in place of {(n, *spec.shape)}")
    if spec.levels is None:
        require(dtype.is_floating_point, f"samples of real-valued data are {dtype} in place of float")
        require(bool(samples.isfinite().all()), "samples are not all finite")
        return
    require(dtype == sample_dtype(spec), f"samples are {dtype} in place of {sample_dtype(spec)}")
    low, high = int(samples.min()), int(samples.max())
    in_range = low >= 0 and high < spec.levels
    require(in_range, f"samples lie in {low}..{high}, outside 0..{spec.levels - 1}")


def _random_calls(model: GenerativeModel) -> list[tuple[str, Callable[[GenerativeModel, int], Tensor]]]:
    """Every random method by name, as a function of the model and a seed."""
    batch = example_batch(model, 4)
    calls = [("sample", lambda twin, seed: twin.sample(4, batch.cond, generator=seeded(twin, seed)))]
    if model.likelihood is not LikelihoodKind.NONE:
        calls.append(
            (
                "log_likelihood",
                lambda twin, seed: twin.log_likelihood(*batch, generator=seeded(twin, seed)).nats,
            )
        )
    for turn in model.turns:
        name = f"the loss of turn {turn!r}"
        calls.append(
            (
                name,
                lambda twin, seed, t=turn: copy.deepcopy(twin)(batch, t, seeded(twin, seed)).total.detach(),
            )
        )
    return calls


def _same(a: Tensor, b: Tensor) -> bool:
    return (
        torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) if a.is_floating_point() else torch.equal(a, b)
    )
