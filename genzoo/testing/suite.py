"""Which checks apply to a model, running them, and the report of those it fails."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from unittest import SkipTest

import torch

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.trainable import Trainable
from genzoo.models.base import GenerativeModel
from genzoo.testing import input_checks, learning_checks, likelihood_checks, sampling_checks, turn_checks
from genzoo.testing.probe import global_rng_kept

CheckFunction = Callable[[Any], None]
"""Takes a copy that it may change; raises where the check fails, `SkipTest` where it says nothing."""


class Status(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    EXPECTED_FAILURE = "failed as expected"
    UNEXPECTED_PASS = "passed although it was expected to fail"


@dataclass(frozen=True)
class CheckResult:
    """What came of one check; `message` says in one line why it failed or was skipped."""

    name: str
    status: Status
    message: str = ""

    @property
    def ok(self) -> bool:
        """False where the check failed, or passed although a failure was expected."""
        return self.status not in (Status.FAILED, Status.UNEXPECTED_PASS)


@dataclass(frozen=True)
class Check:
    """One check, bound to a model. Call it (it raises), or `run` it (it reports)."""

    name: str
    description: str
    function: CheckFunction
    model: Trainable

    def __call__(self) -> None:
        """Runs the check on a copy of the model, with the global random state put back afterwards.

        Raises whatever shows that the check fails, mostly `AssertionError`; `unittest.SkipTest`, which
        pytest counts as skipped, where the check says nothing about this model.
        """
        with global_rng_kept(), torch.enable_grad():
            torch.manual_seed(0)  # siblings built inside a check start from the same weights every time
            twin = copy.deepcopy(self.model)
            twin.zero_grad(set_to_none=True)
            self.function(twin)

    def run(self) -> CheckResult:
        """The outcome as a value: passed, failed or skipped, with the reason."""
        try:
            self()
        except SkipTest as reason:
            return CheckResult(self.name, Status.SKIPPED, str(reason))
        except Exception as error:  # whatever a stranger's model raises is the finding
            return CheckResult(self.name, Status.FAILED, _one_line(error))
        return CheckResult(self.name, Status.PASSED)

    @property
    def __name__(self) -> str:
        """The name, where pytest looks for the id of a parameter."""
        return self.name

    def __str__(self) -> str:
        return self.name


class ConformanceError(AssertionError):
    """A model fails checks of the contract; `results` holds the outcome of every check."""

    def __init__(self, message: str, results: list[CheckResult]) -> None:
        super().__init__(message)
        self.results = results


def yield_checks(model: GenerativeModel) -> Iterator[Check]:
    """The checks that apply to `model`, by its spec, its turns and its declared kind of likelihood."""
    for function in (*_checks_for_all(model), *_likelihood_checks(model), *_cond_checks(model)):
        description = (function.__doc__ or "").strip().splitlines()[0]
        yield Check(function.__name__, description, function, model)


def check_model(
    model: GenerativeModel, *, expected_failures: Mapping[str, str] | None = None
) -> list[CheckResult]:
    """Runs all checks that apply to `model`, which stays as it was, and returns their results.

    `expected_failures` maps names of checks to the reason why they may fail; one that passes all the same is
    itself a failure. Raises `ConformanceError` naming every failing check, `GenzooError` where
    `expected_failures` names a check that does not apply.
    """
    return run_checks(model, list(yield_checks(model)), expected_failures)


def run_checks(
    model: Trainable, checks: list[Check], expected_failures: Mapping[str, str] | None = None
) -> list[CheckResult]:
    """The results of these checks of `model`; raises as `check_model` does."""
    expected = dict(expected_failures or {})
    unknown = sorted(expected.keys() - {check.name for check in checks})
    if unknown:
        raise GenzooError(
            f"expected_failures names {unknown[0]!r}, which is no check of this model: remove it"
        )
    results = [_with_expectation(check.run(), expected.get(check.name)) for check in checks]
    failing = [result for result in results if not result.ok]
    if failing:
        lines = "".join(f"\n  {result.name}: {result.message}" for result in failing)
        title = f"{type(model).__name__} fails {len(failing)} of {len(results)} checks:"
        raise ConformanceError(title + lines, results)
    return results


def _with_expectation(result: CheckResult, reason: str | None) -> CheckResult:
    """The result in the light of an expected failure (strict: a pass is a failure too)."""
    if reason is None or result.status is Status.SKIPPED:
        return result
    if result.status is Status.FAILED:
        return CheckResult(result.name, Status.EXPECTED_FAILURE, f"{reason} ({result.message})")
    return CheckResult(result.name, Status.UNEXPECTED_PASS, f"passes, but was expected to fail: {reason}")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if type(error) is AssertionError else f"{type(error).__name__}: {text}"


def _checks_for_all(model: GenerativeModel) -> Iterator[CheckFunction]:
    yield sampling_checks.samples_fit_the_spec
    if model.decoder_part is not None:
        yield sampling_checks.means_fit_the_spec
    yield sampling_checks.same_generator_same_results
    yield (
        sampling_checks.samples_ignore_chance
        if model.deterministic
        else sampling_checks.different_seeds_different_samples
    )
    yield sampling_checks.global_rng_untouched
    yield sampling_checks.evaluation_leaves_no_trace
    yield turn_checks.loss_is_finite_per_image
    yield turn_checks.gradients_stay_in_their_turn
    yield turn_checks.turns_partition_parameters
    yield learning_checks.save_and_load
    yield (
        learning_checks.overfits_eight
        if len(model.turns) == 1
        else learning_checks.alternating_losses_stay_finite
    )
    yield input_checks.wrong_images_raise


def _likelihood_checks(model: GenerativeModel) -> Iterator[CheckFunction]:
    if model.likelihood is LikelihoodKind.NONE:
        yield likelihood_checks.no_likelihood_raises
        return
    yield likelihood_checks.likelihood_is_as_declared
    yield likelihood_checks.likelihood_ignores_neighbours
    yield likelihood_checks.likelihood_ignores_mode
    if model.spec.levels is None:
        return
    yield input_checks.values_out_of_range_raise
    if model.spec.levels <= 256:
        yield likelihood_checks.integer_types_agree
    yield likelihood_checks.enumeration_binary
    yield likelihood_checks.enumeration_levels
    yield likelihood_checks.enumeration_rgb
    if model.likelihood is LikelihoodKind.ESTIMATE:
        yield likelihood_checks.estimate_sums_to_one
    if model.likelihood is LikelihoodKind.EXACT:
        yield likelihood_checks.samples_follow_likelihood


def _cond_checks(model: GenerativeModel) -> Iterator[CheckFunction]:
    if model.spec.cond is None:
        yield input_checks.cond_is_refused
        return
    yield learning_checks.cond_matters
    yield input_checks.wrong_cond_raises
    if model.spec.cond == "class" and model.likelihood is LikelihoodKind.EXACT:
        yield likelihood_checks.class_likelihoods_average
