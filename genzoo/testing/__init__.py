"""The conformance suite: the checks that every generative model of the zoo passes.

Call `check_model(model)` on a model of your own, or hand the checks to pytest, whose ids they name:

    @pytest.mark.parametrize("check", list(yield_checks(model)))
    def test_conformance(check):
        check()

Encoders have checks of their own: `check_encoder(encoder)` and `yield_encoder_checks(encoder)`.

The checks are chosen by what the model declares (its spec, turns and kind of likelihood); they work on
copies and leave the model and the global random state as they were.
"""

from genzoo.testing.encoder_checks import check_encoder, yield_encoder_checks
from genzoo.testing.suite import Check, CheckResult, ConformanceError, Status, check_model, yield_checks

__all__ = [
    "Check",
    "CheckResult",
    "ConformanceError",
    "Status",
    "check_encoder",
    "check_model",
    "yield_checks",
    "yield_encoder_checks",
]
