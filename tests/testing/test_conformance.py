"""The conformance suite passes honest models, and each way of cheating is caught by the check made for it."""

import copy
import random

import numpy as np
import pytest
import torch
from broken_models import (
    AnyTurn,
    BadSampler,
    BatchCoupled,
    Counter,
    Detached,
    Drifts,
    Explodes,
    FloatSamples,
    GlobalNumpy,
    GlobalPython,
    GlobalTorch,
    Graph,
    HiddenNoise,
    IgnoresCond,
    IgnoresCondInSampling,
    Lazy,
    Leak,
    MeanLoss,
    ModeDependent,
    NotThatSure,
    NumbersFromNone,
    OutOfRange,
    PaddedBits,
    PlainAttribute,
    SameSeed,
    SumsClasses,
    TakesAnyClass,
    TakesAnyCond,
    TakesAnyValue,
    TakesFloats,
    TooHighBound,
    TooHighEstimate,
    TooLowEstimate,
    TurnMisses,
    TurnsShare,
    Unnormalised,
    Wraps,
    WrongKind,
)
from pixel_models import (
    CLASSES,
    GREY,
    REAL,
    VECTORS,
    Bound,
    Duel,
    Estimate,
    Gaussian,
    Pixels,
    failing,
    make,
)

from genzoo.core.errors import GenzooError
from genzoo.testing import ConformanceError, Status, check_model, yield_checks

# --- honest models ---------------------------------------------------------------------------------------

HONEST = [
    (Pixels, GREY),
    (Pixels, CLASSES),
    (Pixels, VECTORS),
    (Gaussian, REAL),
    (Bound, GREY),
    (Estimate, GREY),
]
HONEST += [(Duel, GREY), (Duel, CLASSES)]
MODELS = [make(*pair) for pair in HONEST]


@pytest.mark.parametrize("model", MODELS, ids=[f"{f.__name__}-{s.cond}" for f, s in HONEST])
def test_honest_models_pass(model):
    results = check_model(model)
    assert all(result.ok for result in results)
    assert {r.name for r in results if r.status is Status.SKIPPED} == set()
    assert len({r.name for r in results}) == len(results) >= 13


@pytest.mark.parametrize("check", list(yield_checks(MODELS[1])))
def test_checks_parametrise_pytest(check, request):
    assert f"[{check.name}]" in request.node.name
    assert check.description.endswith(".")
    check()


# --- broken models: exactly the named check catches each -------------------------------------------------

ENUMERATION = {"enumeration_binary", "enumeration_levels", "enumeration_rgb"}
BROKEN = [
    (WrongKind, GREY, {"likelihood_is_as_declared"}),
    (PaddedBits, GREY, {"likelihood_is_as_declared"}),
    (HiddenNoise, GREY, {"likelihood_is_as_declared", "likelihood_ignores_neighbours"}),
    (Unnormalised, GREY, ENUMERATION),
    (TooHighBound, GREY, ENUMERATION),
    (TooHighEstimate, GREY, ENUMERATION | {"estimate_sums_to_one"}),
    (TooLowEstimate, GREY, {"estimate_sums_to_one"}),
    (BadSampler, GREY, {"samples_follow_likelihood"}),
    (GlobalTorch, GREY, {"global_rng_untouched"}),
    (GlobalNumpy, GREY, {"global_rng_untouched"}),
    (GlobalPython, GREY, {"global_rng_untouched"}),
    (Counter, GREY, {"same_generator_same_results"}),
    (SameSeed, GREY, {"different_seeds_different_samples"}),
    (NotThatSure, GREY, {"samples_ignore_chance"}),
    (FloatSamples, GREY, {"samples_fit_the_spec"}),
    (OutOfRange, GREY, {"samples_fit_the_spec"}),
    (BatchCoupled, GREY, {"likelihood_ignores_neighbours"}),
    (ModeDependent, GREY, {"likelihood_ignores_mode"}),
    (Wraps, GREY, {"integer_types_agree"}),
    (TurnMisses, CLASSES, {"turns_partition_parameters"}),
    (TurnsShare, GREY, {"turns_partition_parameters"}),
    (AnyTurn, GREY, {"turns_partition_parameters"}),
    (Leak, GREY, {"gradients_stay_in_their_turn"}),
    (Detached, GREY, {"gradients_stay_in_their_turn"}),
    (Explodes, GREY, {"alternating_losses_stay_finite"}),
    (MeanLoss, GREY, {"loss_is_finite_per_image"}),
    (PlainAttribute, GREY, {"save_and_load"}),
    (Lazy, GREY, {"overfits_eight"}),
    (IgnoresCond, CLASSES, {"cond_matters"}),
    (IgnoresCondInSampling, CLASSES, {"cond_matters"}),
    (SumsClasses, CLASSES, {"class_likelihoods_average"}),
    (TakesAnyClass, CLASSES, {"wrong_cond_raises"}),
    (TakesAnyCond, GREY, {"cond_is_refused"}),
    (TakesFloats, GREY, {"wrong_images_raise"}),
    (TakesAnyValue, GREY, {"values_out_of_range_raise"}),
    (NumbersFromNone, GREY, {"no_likelihood_raises"}),
    (Graph, GREY, {"evaluation_leaves_no_trace"}),
    (Drifts, GREY, {"evaluation_leaves_no_trace"}),
]


@pytest.mark.parametrize(("family", "spec", "names"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
def test_broken_models_are_caught_by_exactly_their_check(family, spec, names):
    assert failing(make(family, spec)) == names


def test_every_check_is_seen_to_fail():
    models = [*MODELS, make(NotThatSure, GREY)]
    known = {check.name for model in models for check in yield_checks(model)}
    assert known == set().union(*(names for _, _, names in BROKEN))


# --- the report ------------------------------------------------------------------------------------------


def test_the_error_names_every_failing_check_on_a_line_of_its_own():
    with pytest.raises(ConformanceError, match="Unnormalised fails 3 of ") as caught:
        check_model(make(Unnormalised, GREY))
    lines = str(caught.value).splitlines()
    assert {line.split(":")[0].strip() for line in lines[1:]} == ENUMERATION
    assert "P sums to 1.0001" in lines[1]
    assert sum(not result.ok for result in caught.value.results) == 3


def test_expected_failures_are_strict():
    reasons = dict.fromkeys(ENUMERATION, "known to be off by a constant")
    results = check_model(make(Unnormalised, GREY), expected_failures=reasons)
    assert {r.name for r in results if r.status is Status.EXPECTED_FAILURE} == ENUMERATION
    with pytest.raises(ConformanceError, match="save_and_load: passes, but was expected to fail: why not"):
        check_model(make(Pixels, GREY), expected_failures={"save_and_load": "why not"})
    with pytest.raises(GenzooError, match="'sav_and_load', which is no check of this model"):
        check_model(make(Pixels, GREY), expected_failures={"sav_and_load": "a slip"})


class Picky(Pixels):
    def __init__(self, config, spec):
        if spec.shape != (1, 4, 4):
            raise GenzooError("this network takes 4x4 images only")
        super().__init__(config, spec)


def test_a_model_without_small_siblings_skips_the_enumeration_and_says_why():
    skipped = {r.name: r.message for r in check_model(make(Picky, GREY)) if r.status is Status.SKIPPED}
    assert skipped.keys() == ENUMERATION | {"samples_follow_likelihood"}
    assert all("this network takes 4x4 images only" in message for message in skipped.values())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_global_random_state_stay_as_they_were(training):
    model = make(Duel, CLASSES).train(training)
    model.bias.grad = torch.ones_like(model.bias)
    before, gradient = copy.deepcopy(model.state_dict()), model.bias.grad.clone()
    torch.manual_seed(5)
    np.random.seed(6)
    random.seed(7)
    expected = [torch.rand(()).item(), np.random.rand(), random.random()]
    torch.manual_seed(5)
    np.random.seed(6)
    random.seed(7)
    check_model(model)
    assert [torch.rand(()).item(), np.random.rand(), random.random()] == expected
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.bias.grad, gradient)
    assert model.training is training
